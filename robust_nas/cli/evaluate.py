"""`robust-nas evaluate`: attack a trained model, or any torch module, on the test set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robust_nas.cli import common
from robust_nas.cli.defence_table import show_defence, show_rows
from robust_nas.cli.report import show_path
from robust_nas.config import Verbatim, expand_path
from robust_nas.errors import ConfigError

if TYPE_CHECKING:
    from robust_nas.workflows.config import EvaluationConfig


Model = Annotated[
    str | None,
    typer.Argument(help=common.MODEL_HELP),
]
Suite = Annotated[
    str | None,
    typer.Option(
        callback=common.filled,
        help="quick, cascade, autoattack, rand, transfer, black-box, l1, or a YAML file.",
    ),
]
Eps = Annotated[
    str | None,
    typer.Option(callback=common.filled, help="Perturbation budget on the 0..1 scale, such as 8/255."),
]
Norm = Annotated[str | None, typer.Option(callback=common.filled, help="linf, l2 or l1.")]
ImageLimit = Annotated[
    str | None,
    typer.Option(
        callback=common.filled,
        metavar="N|FILE.npz",
        help="The largest number of test images; or a set of `attack run`, whose images are judged as they are.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        callback=common.filled,
        help="digits, fashion-mnist, cifar10, an image folder, or where the images of the model's own dataset are now.",
    ),
]
OwnRecipe = Annotated[
    str | None,
    typer.Option(
        callback=common.filled, help="Take data and evaluation from this recipe instead of the model's own."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 where the verdict is UNRELIABLE.")]


def command(
    model: Model = None,
    overrides: common.Overrides = None,
    module: common.Module = None,
    weights: common.Weights = None,
    suite: Suite = None,
    eps: Eps = None,
    norm: Norm = None,
    images: ImageLimit = None,
    data: Data = None,
    recipe: OwnRecipe = None,
    other_data: common.OtherData = False,
    strict: Strict = False,
    allow_code: common.AllowCode = None,
    out: Annotated[Path | None, common.out("evaluate")] = None,
    resume: common.Resume = False,
    overwrite: common.Overwrite = False,
    print_config: common.PrintConfig = False,
    live: common.Live = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Attack a model: worst case per example, intervals, findings, and a verdict on the figure.

    Example: [bold]robust-nas evaluate results/quickstart --suite cascade --images 100[/bold]

    Saved adversarial images: [bold]robust-nas evaluate results/quickstart
    --images results/quickstart/attack-apgd/set.npz[/bold]

    Any module: [bold]robust-nas evaluate --module net.py:build --weights net.safetensors --data digits --eps 0.1[/bold]

    In Python: robust_nas.evaluate(module, dataset.test, robust_nas.ThreatModel(eps=0.1), "cascade")
    """
    if module is not None and model is not None:
        # With --module there is no model folder: the word in its place is the first override.
        overrides = [model, *(overrides or [])]
    if module is None and model is None:
        raise typer.BadParameter("name a model folder, or a module with --module file.py:function")
    if module is None and weights is not None:
        raise typer.BadParameter("--weights goes with --module; a model folder has its own")
    if images is not None and images.endswith(".npz"):
        from robust_nas.cli.evaluate_set import evaluate_saved

        others: dict[str, object] = {"--suite": suite, "--eps": eps, "--norm": norm, "--data": data}
        others |= {"--recipe": recipe, "KEY=VALUE": overrides, "--resume": resume, "--overwrite": overwrite}
        others |= {"--strict": strict, "--print-config": print_config}
        evaluate_saved(str(module or model), images, weights, others, out, json=json, quiet=quiet)
        return
    changes = _shorthands(suite, eps, norm, _count(images))
    changes += [*data_overrides(data, None if module else model), *(overrides or [])]
    other_data = common.are_meant(other_data, recipe, changes)

    config = _config(recipe, module, model, changes)
    if print_config:
        common.print_and_exit(config)
    mode = common.mode_of(resume, overwrite)
    from robust_nas.workflows.evaluate import run_evaluation

    if module is not None:
        from robust_nas.nets.user_module import source_of

        source_of(module)
    source = module or expand_path(str(model))
    with common.progress(quiet, live) as report:
        tree = run_evaluation(
            config, source, out, weights=weights, mode=mode, progress=report, other_data=other_data
        )
    if json:
        common.print_json({"folder": str(tree.folder), **tree})
    else:
        _show(tree, str(module or model), tree.folder)
    if strict and tree["verdict"]["status"] == "UNRELIABLE":
        common.say("error: the verdict is UNRELIABLE (--strict)")
        raise typer.Exit(1)


def _config(
    recipe: str | None, module: str | None, model: str | None, changes: list[str]
) -> EvaluationConfig:
    """Return data and protocol: of a recipe, of a module's options, or of the model folder."""
    from robust_nas.workflows.config import EvaluationConfig, load_config, model_config, module_config

    if recipe:
        return EvaluationConfig.of(load_config(recipe, changes))
    if module is None:
        return model_config(expand_path(str(model)), changes)
    config = module_config(_name_of(module), changes)
    if not any(change.startswith(("data.name=", "data.path=", "data=")) for change in changes):
        raise typer.BadParameter(
            "name the images that the module takes with --data, such as --data fashion-mnist"
        )
    return config


def _name_of(module: str) -> str:
    """The stem of the module's file, as far as it is a name."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", Path(module.rpartition(":")[0]).stem).strip(".-_") or "module"


def _shorthands(suite: str | None, eps: str | None, norm: str | None, images: int | None) -> list[str]:
    """The overrides that the options stand for."""
    changes: list[str] = []
    if suite is not None:
        changes.append(Verbatim(f"evaluation.suite={suite}"))
    if eps is not None:
        changes.append(Verbatim(f"evaluation.threat_model.eps={eps}"))
    if norm is not None:
        changes.append(Verbatim(f"evaluation.threat_model.norm={norm}"))
    if images is not None:
        changes.append(Verbatim(f"evaluation.images={images}"))
    return changes


def _count(images: str | None) -> int | None:
    """Return the number of images that an option asks for."""
    if images is None:
        return None
    if not images.isdecimal() or int(images) < 1:
        raise typer.BadParameter(
            f"--images: got {images[:200]!r}; a number from 1, or the .npz file of a set, is needed"
        )
    return int(images)


def data_overrides(data: str | None, model: str | None) -> list[str]:
    """Return the overrides that `--data` stands for: a folder with `train/` holds images, another place files.

    Files are of the dataset that their place is named like, else of the dataset that the model folder records.
    """
    if data is None:
        return []
    from robust_nas.data import DATASETS

    names, own = DATASETS.names(), _own_dataset(model)
    place = expand_path(data)
    name, path = Verbatim(f"data.name={data}"), Verbatim(f"data.path={place}")
    if data in names:
        if (place / "train").is_dir():
            common.say(f"--data {data}: the images in ./{data}, not the dataset {data} (data.name={data})")
            return ["data.name=image-folder", path]
        if not place.exists():
            return [name, *(["data.path=null"] if own not in (None, data) else [])]
        if DATASETS.get(data).takes_path:
            common.say(f"--data {data}: the dataset {data}, with its files in ./{data}")
            return [name, path]
        common.say(f"--data {data}: the dataset {data}, not the folder ./{data}")
        return [name, "data.path=null"]
    if not place.exists():
        if "/" in data or "\\" in data:
            raise ConfigError(
                f"--data: {data!r} is no folder; an image folder or the name of a dataset is needed"
            )
        return [name]
    files = not (place / "train").is_dir() and own is not None
    if files and (own not in names or DATASETS.get(str(own)).takes_path):  # of a plugin: its reader says so
        return [path]
    return ["data.name=image-folder", path]


def _own_dataset(model: str | None) -> str | None:
    """Return the name of the dataset that a model folder was trained on; None without a folder."""
    if model is None:
        return None
    from robust_nas.workflows.config import EvaluationConfig, stored_config

    try:
        data = stored_config(expand_path(model), EvaluationConfig)[1].get("data")
    except ConfigError:  # said where the folder is read
        return None
    name = data.get("name") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None


def _show(tree: dict[str, Any], what: str, folder: Path) -> None:
    threat = tree["threat_model"]
    title = (
        f"{what}: {tree['dataset']}, {threat['norm']} eps {threat['eps']:.4g}, "
        f"suite {tree['suite']}, seed {tree['seed']}"
    )
    common.table(title, common.ACCURACY_HEADER, common.accuracy_rows(tree))
    if "defence" in tree:
        show_defence(tree["defence"])
    if "posterior_mean" in tree:
        show_rows("network", "posterior mean", tree["posterior_mean"])
    common.show_evidence(tree)
    print(f"evaluation         {folder / 'evaluation.json'}")
    show_path(folder)
    stems = ("evaluation", "eps_curve", "eot_curve", "loss_traces", "queries", "roc", "certified", "examples")
    for stem in stems:
        path = folder / "figures" / f"{stem}.png"
        if path.exists():
            print(f"{'figure: ' + stem.replace('_', ' '):<18} {path}")
