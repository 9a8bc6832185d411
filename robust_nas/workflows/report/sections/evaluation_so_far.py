"""An evaluation that is not finished: what its attacks left right, from the records that it keeps for a resume."""

from __future__ import annotations

from typing import Any

from robust_nas.config import tree_hash
from robust_nas.record_log import RecordLog
from robust_nas.run_folder import CHECKPOINT
from robust_nas.statistics.proportions import wilson
from robust_nas.workflows.report.blocks import Section, Table, score, threat
from robust_nas.workflows.report.part import Part

LIMITS = ("The evaluation is not finished: attacks that follow can only lower the accuracy.",)


def evaluation_so_far(part: Part) -> Section | None:
    """Return the section of a begun evaluation that has answered the images without attack."""
    options = part.config.get("evaluation")
    if (
        part.result
        or part.has("evaluation.json")
        or "model" not in part.config
        or not isinstance(options, dict)
    ):
        return None
    if not part.has(CHECKPOINT):
        return None
    extended = part.config.get("extended") or ()
    hashes = [tree_hash(part.config), *(str(one["config_hash"]) for one in extended)]
    records = RecordLog(part.folder / CHECKPOINT, "evaluate", hashes).records
    clean = [record["right"] for name, record in records.items() if name.split(" ")[0] == "clean"]
    images, right = sum(map(len, clean)), sum(int(each.sum()) for each in clean)
    if not images:
        return None
    rows, left = [], right
    for label, answers in _by_attack(records).items():
        attacked, broken = sum(map(len, answers)), sum(int((~each).sum()) for each in answers)
        left -= broken
        rows.append([label, f"{broken} of {attacked}", _share(left, images)])
    answer = (
        f"So far {_share(left, images)} of {images} test images are right under the attacks that were made "
        f"({threat(options.get('threat_model'))}), {_share(right, images)} without attack."
    )
    header = ("attack", "broken so far", "still right of all images")
    return Section(
        "Evaluation", answer, [Table(header, rows, title="Attacks so far")] if rows else [], LIMITS
    )


def _by_attack(records: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the answers `[n]` after each batch of each attack, by its name in the records."""
    found: dict[str, list[Any]] = {}
    for name, record in records.items():
        attack, batch, _ = name.partition(" batch ")
        if batch and attack.startswith("attack ") and "right" in record:
            found.setdefault(attack.split(" ", 2)[2], []).append(record["right"])
    return found


def _share(count: int, of: int) -> str:
    low, high = wilson(count, of)
    return score({"accuracy": count / of, "interval": [low, high]})
