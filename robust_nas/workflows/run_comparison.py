"""Compare finished runs: where their configs differ, and their accuracies on the same images, paired.

Two evaluations are paired where both are of the same images (`tested`: test_checksum, part): on the images that both
took, the difference has McNemar's exact p value and an interval over images (`statistics/contrasts.py`). Robust answers
are paired under one norm and eps alone. One model a run: the interval does not cover new trainings, and the record says
so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robust_nas.errors import ConfigError, RunError
from robust_nas.records import read_json
from robust_nas.run_folder import CONFIG
from robust_nas.statistics.contrasts import Contrast, contrasts, holm
from robust_nas.statistics.measurements import Measurements
from robust_nas.workflows.config_diff import stored_tree, tree_differences
from robust_nas.workflows.run_table import RunRow, row_of

PLACES = ("", "evaluation", "model/evaluation")  # of `evaluation.json`, as seen from a run's folder
EVALUATION = "evaluation.json"


class Pair(NamedTuple):
    """A run against the first one: contrasts `run - first` by `clean` and `robust`, or why there is none."""

    run: str
    first: str
    contrasts: dict[str, Contrast]
    why_not: str = ""
    notes: tuple[str, ...] = ()


class RunComparison(NamedTuple):
    """Rows of the runs, the values of every key at which their configs differ, and the pairs, Holm-corrected."""

    rows: list[RunRow]
    config: dict[str, list[Any]]
    pairs: list[Pair]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        pairs = [
            {
                **pair._asdict(),
                "contrasts": {key: each.to_dict() for key, each in pair.contrasts.items()},
                "notes": list(pair.notes),
            }
            for pair in self.pairs
        ]
        return {"runs": [row._asdict() for row in self.rows], "config": self.config, "pairs": pairs}


def compare_runs(folders: Sequence[Path | str]) -> RunComparison:
    """Compare runs with the first of them.

    Raises `ConfigError` for fewer than two folders, one given twice, and one that is no run; `RunError` for a damaged
    record.
    """
    places = [Path(folder) for folder in folders]
    if len({place.resolve() for place in places}) < max(len(places), 2):
        given = ", ".join(map(str, places)) or "none"
        raise ConfigError(f"runs to compare: got {given}; at least two different folders are needed")
    for place in places:
        if not (place / CONFIG).is_file():
            raise ConfigError(f"{place}: is no run: it has no {CONFIG}")
    rows = [row_of(place) for place in places]
    pairs = [_pair(place, places[0]) for place in places[1:]]
    return RunComparison(rows, tree_differences([stored_tree(place) for place in places]), _corrected(pairs))


class _Answers(NamedTuple):
    """What an evaluation kept of every image: by index in the test set, right as it is, and under all attacks."""

    tree: dict[str, Any]
    clean: dict[int, bool]
    robust: dict[int, bool]


def _answers(place: Path) -> _Answers | str:
    """Return the answers of a run's evaluation, or why there are none."""
    file = next(
        (place / inner / EVALUATION for inner in PLACES if (place / inner / EVALUATION).is_file()), None
    )
    if file is None:
        return f"{place} has no {EVALUATION}: robust-nas evaluate makes one"
    tree = read_json(file)
    try:
        tested, clean, robust = tree["tested"], tree["clean"], tree["robust"]
        order = _order(tested["available"], tested["images"], tested["seed"])
        wrong = set(clean["wrong_indices"])
        broken = set().union(*(attack["broken_indices"] for attack in tree["attacks"]))
        common = order[: robust["images"]]
        said = (clean["correct"], robust["correct"])
        _ = (tree["threat_model"]["norm"], tree["threat_model"]["eps"], tested["checksum"], tested["dataset"])
        _ = [(attack["label"], attack["images"]) for attack in tree["attacks"]]
    except (KeyError, TypeError) as error:
        return f"{file} does not say which images were wrong ({error}): an earlier version wrote it; evaluate again"
    found = _Answers(
        tree,
        {index: index not in wrong for index in order},
        {index: index not in wrong and index not in broken for index in common},
    )
    counted = (sum(found.clean.values()), sum(found.robust.values()))
    if counted != said:
        raise RunError(f"{file}: damaged: it says {said} images right, clean and robust, and lists {counted}")
    return found


def _order(available: int, images: int, seed: int) -> list[int]:
    """Return the indices of the test images that an evaluation took, in its order."""
    from robust_nas.data import random_indices

    found: list[int] = random_indices(available, images, seed).tolist()
    return found


def _same_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether `tested` of two evaluations is the same part with the same images, whatever was trained on."""
    if one.get("part") != other.get("part"):
        return False
    checksums = [each.get("test_checksum") for each in (one, other)]  # older records have none
    key = "checksum" if None in checksums else "test_checksum"
    return bool(one.get(key) == other.get(key))


def _pair(place: Path, first: Path) -> Pair:
    """Return the paired differences of a run to the first one, before Holm's correction."""
    ours, theirs = _answers(place), _answers(first)
    if isinstance(ours, str) or isinstance(theirs, str):
        return Pair(
            str(place), str(first), {}, why_not=" and ".join(e for e in (ours, theirs) if isinstance(e, str))
        )
    tested = [answers.tree["tested"] for answers in (ours, theirs)]
    if not _same_images(*tested):
        names = " and ".join(f"{each['dataset']} ({each['part']})" for each in tested)
        return Pair(str(place), str(first), {}, why_not=f"they were evaluated on other images: {names}")
    notes, metrics = [], {"clean": (ours.clean, theirs.clean)}
    threats = [answers.tree["threat_model"] for answers in (ours, theirs)]
    if all(threats[0][key] == threats[1][key] for key in ("norm", "eps")):
        metrics["robust"] = (ours.robust, theirs.robust)
    else:
        sizes = " and ".join(f"{each['norm']} {each['eps']:.4g}" for each in threats)
        notes.append(f"robust accuracies are of other threat models: {sizes}")
    attacks = [
        [(row["label"], row.get("parameters"), row["images"]) for row in answers.tree["attacks"]]
        for answers in (ours, theirs)
    ]
    if attacks[0] != attacks[1]:
        names = " and ".join(", ".join(label for label, _, _ in each) for each in attacks)
        notes.append(f"the attacks, their options or their images differ: {names}")
    rules = [answers.tree.get("deployed") for answers in (ours, theirs)]
    if rules[0] != rules[1]:
        notes.append(f"the inference rules differ: {rules[0]} and {rules[1]}")
    found: dict[str, Contrast] = {}
    for key, (a, b) in metrics.items():
        both = sorted(a.keys() & b.keys())
        if not both:
            notes.append(f"{key}: no image was taken by both")
            continue
        points = [
            Measurements(name=str(name), seeds=(0,), outcomes={key: _row(answers, both)})
            for name, answers in ((place, a), (first, b))
        ]
        found[key] = contrasts([(points[0], points[1])], key)[0]
    return Pair(str(place), str(first), found, notes=tuple(notes))


def _row(answers: Mapping[int, bool], indices: Sequence[int]) -> NDArray[np.bool_]:
    return np.array([[answers[index] for index in indices]], dtype=np.bool_)


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs with Holm's correction over the robust contrasts, and over the clean ones."""
    corrected = {
        key: iter(holm([pair.contrasts[key] for pair in pairs if key in pair.contrasts]))
        for key in ("clean", "robust")
    }
    return [pair._replace(contrasts={key: next(corrected[key]) for key in pair.contrasts}) for pair in pairs]
