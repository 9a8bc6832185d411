"""A distillation as a job: from a recipe to a learned training set, and kernel regression on it as a model folder.

    <folder>/                 a model folder (`robust-nas evaluate`): kernel regression on the learned images
    <folder>/learned.npz      image (uint8) and label, as `data: {name: npz}` reads them; pixels (float32) and target
                              (float64) unrounded; class_names
    <folder>/figures/         learned-set: the pictures, and as CSV the labels with their targets

The validation split chooses which step is kept, and nothing else; test images are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from robust_nas import figures
from robust_nas.attacks import ThreatModel
from robust_nas.config import to_dict
from robust_nas.data import DataOptions
from robust_nas.distillation import DISTILLERS, Distiller
from robust_nas.distributed import refuse_several
from robust_nas.extension import ExtensibleJob
from robust_nas.records import RESULT, Shape, read_json
from robust_nas.run_folder import Mode, Progress, Run, silent, write_atomic
from robust_nas.spaces import count
from robust_nas.spaces.kernel_regression import KernelRegressionArchitecture
from robust_nas.workflows.context import JobContext, context_unless_finished, load_context, session
from robust_nas.workflows.distill_config import DistillConfig
from robust_nas.workflows.places import of_config
from robust_nas.workflows.report.at_end import reporting

if TYPE_CHECKING:
    from robust_nas.distillation import DistillationOutcome

LEARNED = "learned.npz"
FIGURE = "learned-set"
_ACCURACIES: Shape = {"clean": float, "robust": float}
DISTILLED: Shape = {  # of `result.json`
    "method": str,
    "kernel": str,
    "support": int,
    "params": int,
    "macs": int,
    "step": int,
    "start": _ACCURACIES,
    "validation_clean": float,
    "validation_robust": float,
    "validation_images": int,
    "other_labels": int,
    "dataset": str,
    "seed": int,
    "seconds": float,
}


class DistillJob(ExtensibleJob):
    """What a learned set depends on. Nothing of it can be extended; the place of its images may change."""

    name: str
    seed: int
    data: DataOptions
    threat_model: ThreatModel
    method: Annotated[Distiller, DISTILLERS.field()]


def distill(
    config: DistillConfig,
    out: Path | None = None,
    *,
    mode: Mode = "new",
    progress: Progress = silent,
    context: JobContext | None = None,
) -> dict[str, Any]:
    """Learn a training set; return the content of `result.json`. Results go to `results/<name>-<method>`.

    The folder is the model folder of kernel regression on the set; `learned.npz` in it is the set.
    Raises `ConfigError` for more images than there are, images that the kernel cannot take, and a start on which kernel
    regression has no solution (`KernelError`), all before anything is written.
    """
    refuse_several("distill")
    folder = default_folder(config, out)
    keys = DistillJob.model_fields.keys() - {"extended"}
    job = DistillJob(**{key: getattr(config, key) for key in keys})
    context = context_unless_finished(config, folder, mode, context, job)
    if context is not None:
        _refuse(config, context)
    with reporting(folder), Run(folder, job, mode, recipe=config) as run:
        if not run.complete:
            context = context or load_context(config)
            with session(run, JobContext(config, context.dataset, context.device)):
                outcome = _distilled(run, config, context, progress)
                _write(run, config, context, outcome)
        return distilled_record(folder)


def default_folder(config: DistillConfig, out: Path | None = None) -> Path:
    """Return `out`, or `results/<name>-<method>`."""
    return of_config("distill", out, config.name, config.method.label)


def distilled_record(folder: Path) -> dict[str, Any]:
    """Return what `result.json` of a finished distillation says. Raises `RunError` where it is damaged."""
    return read_json(folder / RESULT, DISTILLED)


def _refuse(config: DistillConfig, context: JobContext) -> None:
    """Raise `ConfigError` for what could not be learned from."""
    from robust_nas.distillation.loop import first_set, regression_of

    method = config.method
    method.kernel.refuse_shape(context.dataset.shape)
    first = first_set(method, context.images, context.dataset.classes, config.seed)
    regression_of(method, first, *context.normalisation)


def _distilled(
    run: Run, config: DistillConfig, context: JobContext, progress: Progress
) -> DistillationOutcome:
    from robust_nas.distillation.loop import distil

    return distil(
        run,
        context.images_on_device,
        context.validation.to(context.device),
        config.method,
        config.threat_model,
        config.data.augment,
        context.normalisation,
        classes=context.dataset.classes,
        seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
        progress=progress,
    )


def _write(run: Run, config: DistillConfig, context: JobContext, outcome: DistillationOutcome) -> None:
    """Write the model folder, the set and its pictures, and finish the run."""
    from robust_nas.nets import ModelDescription, inference_state, save_model
    from robust_nas.nets.model import ARCHITECTURE, DESCRIPTION, WEIGHTS

    method, dataset, learned = config.method, context.dataset, outcome.learned
    mean, std = context.normalisation
    made = {
        "recipe": config.name,
        "method": method.label,
        "seed": config.seed,
        "step": outcome.step,
        "validation_clean": outcome.accuracies[0],
        "validation_robust": outcome.accuracies[1],
        "dataset": dataset.name,
        "dataset_checksum": dataset.checksum,
    }
    description = ModelDescription(
        input_shape=dataset.shape,
        class_names=dataset.class_names,
        mean=mean,
        std=std,
        made_by={**made, "options": to_dict(method)},
    )
    architecture = KernelRegressionArchitecture(
        name=f"{method.label}-{len(learned.labels)}", support=len(learned.labels), kernel=method.kernel
    )
    save_model(run.folder, architecture, inference_state(outcome.network), description)
    write_atomic(run.folder / LEARNED, packed_set(outcome, dataset.class_names))
    threat, validated = config.threat_model, len(context.validation)
    about = (
        f"{method.label} on {dataset.name}, {method.kernel.label}, {threat.norm} eps {threat.eps:.4g}, seed "
        f"{config.seed}; kept: step {outcome.step} of {method.steps}"
    )
    record = {
        "images": learned.images.tolist(),
        "labels": learned.labels.tolist(),
        "targets": learned.targets.tolist(),
        "class_names": list(dataset.class_names),
    }
    figures.draw_figures("distillation", record, run.folder / "figures", about=about)
    own = [figure for figure in config.figures if figure.of == "distillation"]
    figures.draw_own("distillation", record, run.folder / "figures", about=about, figures=own)
    cost = count(architecture, dataset.shape, dataset.classes)
    result = {
        **made,
        "kernel": method.kernel.label,
        "support": len(learned.labels),
        "params": cost.params,
        "macs": cost.macs,
        "start": dict(zip(("clean", "robust"), outcome.start, strict=True)),
        "validation_images": min(validated, method.validation_images or validated),
        "other_labels": int((learned.targets.argmax(1) != learned.labels).sum()),
        "seconds": round(outcome.seconds, 1),
    }
    stems = [FIGURE, *(figure.stem for figure in own)]
    run.finish(result, [ARCHITECTURE, DESCRIPTION, WEIGHTS, LEARNED], figures=dict.fromkeys(stems))


def packed_set(outcome: DistillationOutcome, class_names: tuple[str, ...]) -> bytes:
    """Return the bytes of `learned.npz`; `label` is the class of the largest target."""
    import numpy as np

    from robust_nas.data import npz

    learned = outcome.learned
    pixels = learned.images.cpu()
    return npz.packed(
        {
            npz.IMAGE: (pixels * 255).round().byte().numpy(),
            npz.LABEL: learned.targets.argmax(1).cpu().numpy(),
            "pixels": pixels.float().numpy(),
            "target": learned.targets.cpu().numpy(),
            "class_names": np.array(class_names),
        }
    )
