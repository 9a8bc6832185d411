"""What a search is worth: its result next to random networks of equal MACs, trained and evaluated by one recipe.

After the search, `search.controls` random architectures whose MACs are within 5 % of the result's at its final size are
trained and attacked as the result is, each in a folder of its own; `search.finalists` adds networks of the Pareto set,
evenly spread over the order of the first objective (our choice).

    difference = accuracy of the result - mean accuracy of the controls,  paired by image (`statistics/contrasts.py`)

With two controls or more the interval covers images and how much networks of equal MACs differ; that the result varies
as much as they do is assumed. With one it covers the images alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robust_nas.errors import SearchSpaceError
from robust_nas.records import Shape, read_environment, read_json
from robust_nas.run_folder import Progress, Run, is_finished, silent, write_json
from robust_nas.search.sampled.loop import evaluated_networks
from robust_nas.spaces import CellArchitecture, Size, sample
from robust_nas.spaces.isomorphism import isomorphism_class
from robust_nas.statistics import Measurements, contrast
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.context import JobContext, load_context
from robust_nas.workflows.evaluate import run_evaluation
from robust_nas.workflows.search_job import SearchJob, SearchResult
from robust_nas.workflows.train import train, trained_record

CONTROLS = "controls"  # folder
FILE = "controls.json"
WINDOW = 0.05  # of a control's MACs around the result's
DRAWS = 20  # for every control, until it is a network that is not there yet
RESULT_LABEL, RANDOM = "result", "random"
WORDS = {True: "better than random at equal MACs", False: "not better than random at equal MACs"}
NETWORK: Shape = {
    "label": str,
    "group": str,
    "params": int,
    "macs": int,
    "clean": float,
    "robust": float,
    "robust_interval": [float, ...],
    "verdict": str,
}
DIFFERENCE: Shape = {"effect": float, "interval": ([float, ...], None), "includes_seeds": bool}
COMPARED: Shape = {  # what is read of `controls.json`
    "controls": int,
    "finalists": int,
    "images": int,
    "networks": [NETWORK, ...],
    "difference": ({"clean": DIFFERENCE, "robust": DIFFERENCE}, None),
    "words": (str, None),
}


class Network(NamedTuple):
    """An architecture, what it is here, and the folder of its model."""

    label: str
    group: str
    architecture: CellArchitecture
    folder: Path


def compare_with_controls(
    config: RunConfig,
    found: SearchResult,
    folder: Path,
    *,
    model: Path | None = None,
    progress: Progress = silent,
    context: JobContext | None = None,
) -> dict[str, Any]:
    """Train and evaluate the result, the controls and the finalists; return the content of `controls.json`.

    What is finished is kept. `model` is the folder of the trained result where there is one, with its evaluation next
    to it. Raises `SearchSpaceError` where the space has too few networks of these MACs.
    """
    own = folder / RESULT_LABEL if model is None else model
    networks = [Network(RESULT_LABEL, RESULT_LABEL, found.architecture, own)]
    networks += [Network(one.name, "finalist", one, folder / one.name) for one in _finalists(config, found)]
    window, shape, classes = _window(found), tuple(found.record["input_shape"]), found.record["classes"]
    for number, control in enumerate(_drawn(config, found.architecture, window, shape, classes)):
        networks.append(Network(f"{RANDOM}-{number}", RANDOM, control, folder / f"{RANDOM}-{number}"))
    places = {one.label: one.folder / "evaluation" for one in networks}
    if model is not None:
        places[RESULT_LABEL] = model.with_name("evaluation")
    if context is None and not all(is_finished(place) for place in places.values()):
        context = load_context(config)
    rows, answers = [], dict[str, dict[str, list[bool]]]()
    for number, one in enumerate(networks):
        progress("search: controls", number, len(networks), one.label)
        train(config, one.architecture, one.folder, mode="resume", progress=progress, context=context)
        place = places[one.label]
        tree = run_evaluation(config, one.folder, place, mode="resume", progress=progress, context=context)
        rows.append(_row(one, tree))
        answers[one.label] = answers_of(tree, read_environment(place)["images"]["test"], config.seed)
    progress("search: controls", len(networks), len(networks))
    difference = _difference(networks, answers)
    threat = config.evaluation.threat_model
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / FILE,
        {
            "schema_version": 1,
            "controls": config.search.controls,
            "finalists": _wanted_finalists(config),
            "seed": config.seed,
            "threat_model": threat.model_dump(mode="json"),
            "macs_window": list(window),
            "images": len(answers[RESULT_LABEL]["robust"]),
            "networks": rows,
            "difference": difference,
            "words": None if difference is None else WORDS[_is_above_zero(difference["robust"])],
        },
    )
    return read_json(folder / FILE, COMPARED)


def is_compared(config: RunConfig, folder: Path) -> bool:
    """Return whether `folder` has the comparison that the config asks for, or the config asks for none."""
    if not config.search.followed:
        return True
    if not (folder / FILE).is_file():
        return False
    tree = read_json(folder / FILE, COMPARED)
    return (tree["controls"], tree["finalists"]) == (config.search.controls, _wanted_finalists(config))


def _wanted_finalists(config: RunConfig) -> int:
    return int(getattr(config.search, "finalists", 0))  # of a sampled strategy


def _window(found: SearchResult) -> tuple[float, float]:
    macs = found.record["macs"]
    return macs * (1 - WINDOW), macs * (1 + WINDOW)


def _drawn(
    config: RunConfig,
    result: CellArchitecture,
    window: tuple[float, float],
    shape: tuple[int, int, int],
    classes: int,
) -> list[CellArchitecture]:
    """Return random networks in the window, each another one and none the result; by the seed alone."""
    space, count = config.space.load(), config.search.controls
    drawn = {isomorphism_class(result): result}
    seeds = np.random.default_rng([config.seed, 2]).integers(2**32, size=DRAWS * count)
    for seed in seeds.tolist():
        if len(drawn) > count:
            break
        size = Size(cells=result.cells, channels=result.channels)
        one = sample(space, seed, macs=window, size=size, input_shape=shape, classes=classes)
        drawn.setdefault(isomorphism_class(one), one)
    controls = list(drawn.values())[1:]
    if len(controls) < count:
        raise SearchSpaceError(
            f"search.controls: got {count}; {len(seeds)} draws in {space.name} gave {len(controls)} networks with "
            f"{window[0]:.0f} to {window[1]:.0f} MACs other than the result; ask for at most as many"
        )
    return controls


def _finalists(config: RunConfig, found: SearchResult) -> list[CellArchitecture]:
    """Return networks of the Pareto set other than the result."""
    count = _wanted_finalists(config)
    if not count:
        return []
    column = config.search.criterion.key
    front = sorted(found.record["pareto_set"], key=lambda one: (one[column], one["name"]))
    names = [one["name"] for one in front if one["name"] != found.record["taken"]]
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    chosen = found.record.get("chosen_seed", config.seed)  # of a search over several seeds
    own = config.model_copy(update={"seed": chosen})
    searched = found.folder / f"seed-{chosen}" if "chosen_seed" in found.record else found.folder
    size = Size(cells=found.architecture.cells, channels=found.architecture.channels)
    with Run(searched, SearchJob.of(own), "resume") as run:
        return evaluated_networks(run, config.space.load(), size, [names[place] for place in places])


def _row(network: Network, tree: dict[str, Any]) -> dict[str, Any]:
    trained = trained_record(network.folder)
    return {
        "label": network.label,
        "group": network.group,
        "architecture": network.architecture.name,
        "params": trained["params"],
        "macs": trained["macs"],
        "clean": tree["clean"]["accuracy"],
        "robust": tree["robust"]["accuracy"],
        "robust_interval": tree["robust"]["interval"],
        "verdict": tree["verdict"]["status"],
    }


def answers_of(tree: dict[str, Any], test: int, seed: int) -> dict[str, list[bool]]:
    """Return whether each image was answered right, clean and under every attack, in the order of the seed.

    Robust answers are of the images that all attacks had, which are the first of the clean ones.
    """
    from robust_nas.data import random_indices

    wrong = set(tree["clean"]["wrong_indices"])
    broken = {index for attack in tree["attacks"] for index in attack["broken_indices"]}
    order = random_indices(test, tree["clean"]["images"], seed).tolist()
    first = order[: tree["robust"]["images"]]
    return {
        "clean": [index not in wrong for index in order],
        "robust": [index not in wrong and index not in broken for index in first],
    }


def _difference(
    networks: list[Network], answers: dict[str, dict[str, list[bool]]]
) -> dict[str, dict[str, Any]] | None:
    """Return what the result has more than the mean of the controls, of both accuracies; None without controls."""
    controls = [one.label for one in networks if one.group == RANDOM]
    if not controls:
        return None
    found = {}
    for key in ("clean", "robust"):
        result, random = (
            Measurements(
                name=name,
                seeds=tuple(range(len(labels))),
                outcomes={key: np.array([answers[label][key] for label in labels])},
            )
            for name, labels in ((RESULT_LABEL, [RESULT_LABEL]), (RANDOM, controls))
        )
        found[key] = contrast(result, random, key).to_dict()
    return found


def _is_above_zero(difference: dict[str, Any]) -> bool:
    return difference["interval"] is not None and difference["interval"][0] > 0
