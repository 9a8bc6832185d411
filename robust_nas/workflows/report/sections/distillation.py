"""A learned training set: what kernel regression on it reaches."""

from __future__ import annotations

from robust_nas.workflows.report.blocks import Facts, Section, duration, percent
from robust_nas.workflows.report.part import Part


def distillation(part: Part) -> Section | None:
    """Return the section of a distillation's `result.json`."""
    made = part.result
    if "support" not in made or "kernel" not in made:
        return None
    start = made["start"]
    answer = (
        f"Kernel regression on {made['support']} learned images is right on {percent(made['validation_clean'])} of the "
        f"validation images, under attack on {percent(made['validation_robust'])}; on the images that learning began "
        f"with {percent(start['clean'])} and {percent(start['robust'])}."
    )
    facts = Facts(
        [
            ("method", made["method"]),
            ("kernel", made["kernel"]),
            ("step that is kept", str(made["step"])),
            ("validation images", str(made["validation_images"])),
            ("dataset", made["dataset"]),
            ("time", duration(made["seconds"])),
            ("seed", str(made["seed"])),
        ]
    )
    limits = ["The step was chosen on these validation images; test images were not read."]
    return Section("Learned set", answer, [facts], limits)
