"""Plain Python: one file that defines the found network with torch alone, and its weights beside it.

The file carries the text of the files in `nets/` that define the network, without their imports of this package, the
cells or stages as literals, and `load()`. It is executed once against the model before it gets its final name.
"""

from __future__ import annotations

import copy
import io
import math
import pprint
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from robust_nas._version import __version__
from robust_nas.errors import ConfigError, RunError, RunExistsError
from robust_nas.export.carried import Carried, carried
from robust_nas.export.metadata import MARK, metadata
from robust_nas.layers import (
    factorised,
    factorised_layer,
    factorised_reduction,
    gdws_conv,
    low_rank,
    normalise,
    relu_conv_bn,
    tucker2_conv,
)
from robust_nas.nets import Model, inference_state, mlp, network, residual
from robust_nas.nets.build import block_plan, plans, stage_plans
from robust_nas.operations import ACTIVATIONS, OPERATIONS
from robust_nas.runs import write_atomic
from robust_nas.spaces import Architecture, MLPArchitecture, ResidualArchitecture

SOURCE, WEIGHTS = "network.py", "weights.pt"


def export_source(model: Model, folder: Path, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Writes `network.py` and `weights.pt` and returns their paths; `overwrite` replaces an earlier export.

    Raises `RunExistsError` when the folder holds files of these names that may not be replaced, and `RunError` when
    the exported form computes other logits than the model.
    """
    refuse_source(model, folder, overwrite=overwrite)
    state = inference_state(model.network)
    text = source_text(model)
    _compare(text, state, model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}") from None
    weights = io.BytesIO()
    torch.save(state, weights)
    data = {SOURCE: text.encode(), WEIGHTS: weights.getvalue()}
    fresh = {name: folder / f".{name}.new" for name in data}
    try:
        for name, path in fresh.items():  # both, before anything is replaced: the disk may be full
            write_atomic(path, data[name])
        # A kill in between leaves no weights, which `load` says, rather than those of another network.
        (folder / WEIGHTS).unlink(missing_ok=True)
        for name, path in fresh.items():
            path.replace(folder / name)
    finally:
        for path in fresh.values():
            path.unlink(missing_ok=True)
    return folder / SOURCE, folder / WEIGHTS


def refuse_source(model: Model, folder: Path, *, overwrite: bool) -> None:
    """Raises what `export_source` would, before any work: `ConfigError`, `RunExistsError`."""
    _architecture(model)
    for name in (SOURCE, WEIGHTS):
        if (folder / name).exists() and not _ours(folder):
            raise RunExistsError(
                f"{folder / name}: exists already and was not written by this export; choose another folder"
            )
        if (folder / name).exists() and not overwrite:
            raise RunExistsError(
                f"{folder / name}: exists already; replace it with --overwrite, or choose another folder with --out"
            )


def _ours(folder: Path) -> bool:
    path = folder / SOURCE
    return path.is_file() and MARK in path.read_text(encoding="utf-8", errors="replace")[:400]


class _Form(NamedTuple):
    """What the exported files of the families differ in."""

    legend: str  # of the literals
    literals: str
    modules: tuple[ModuleType, ...]
    carried: Carried  # its operations or activations
    network: str  # the class
    arguments: str  # of the class, made from the literals


CELLS = """\
Cells: (channels of the input before last, of the last input, of a node, reduces, reduced before, nodes, output nodes);
a node is a list of (operation, source), sources 0 and 1 are the outputs of the two cells before.
"""
STAGES = """\
Stages: (blocks, their channels, stride of the first one); STEM is the channels of the stem, BLOCK the kind of the
blocks and their numbers as `BlockPlan` names them.
"""
HIDDEN = "INPUTS is the numbers of an image, HIDDEN the hidden layers and their width.\n"
REBUILT = "    rebuild(network, [LayerForm(*layer) for layer in LAYERS])\n"
FACTORED = (factorised_layer, gdws_conv, tucker2_conv, low_rank, factorised)
COMMON = "len(CLASS_NAMES), MEAN, STD"


def _architecture(model: Model) -> Architecture:
    """The model's architecture. Raises `ConfigError` for a module of the user's own."""
    if model.architecture is None:
        raise ConfigError(
            f"{model.name}: is a module of your own; its source is where you have it, "
            "--format onnx and --format program deliver it"
        )
    return model.architecture


def _form(model: Model) -> _Form:
    architecture = _architecture(model)
    if isinstance(architecture, ResidualArchitecture):
        return _Form(
            STAGES,
            f"STEM = {architecture.stem}\nSTAGES = {_literal(stage_plans(architecture))}\n"
            f"BLOCK = {tuple(block_plan(architecture))!r}\n{_choices(architecture)}",
            (normalise, residual),
            carried(ACTIVATIONS, [architecture.activation], "ACTIVATIONS"),
            "ResidualNetwork",
            f"[StagePlan(*stage) for stage in STAGES], STEM, {COMMON}, "
            "BlockPlan(*BLOCK), ACTIVATION, INITIALISATION",
        )
    if isinstance(architecture, MLPArchitecture):
        return _Form(
            HIDDEN,
            f"INPUTS = {math.prod(model.description.input_shape)}\n"
            f"HIDDEN = {(architecture.depth, architecture.width)}\n{_choices(architecture)}",
            (normalise, mlp),
            carried(ACTIVATIONS, [architecture.activation], "ACTIVATIONS"),
            "MLPNetwork",
            f"INPUTS, *HIDDEN, {COMMON}, ACTIVATION, INITIALISATION",
        )
    used = [operation for cell in architecture.genotype for operation in cell.operations()]
    return _Form(
        CELLS,
        f"CELLS = {_literal(plans(architecture))}",
        (relu_conv_bn, factorised_reduction, normalise, network),
        carried(OPERATIONS, used, "OPERATIONS"),
        "CellNetwork",
        f"[CellPlan(*cell) for cell in CELLS], {COMMON}",
    )


def _choices(architecture: ResidualArchitecture | MLPArchitecture) -> str:
    return f"ACTIVATION, INITIALISATION = {architecture.activation!r}, {architecture.initialisation!r}"


def _literal(values: Sequence[tuple[object, ...]]) -> str:
    return pprint.pformat([tuple(value) for value in values], width=110)


def source_text(model: Model) -> str:
    """The Python file as text."""
    description, architecture = model.description, _architecture(model)
    form = _form(model)
    layers = [tuple(layer) for layer in description.forms]
    files = dict.fromkeys([*form.modules, *form.carried.modules, *(FACTORED if layers else ())])
    shape = "x".join(map(str, description.input_shape))
    bodies = "\n\n".join([*map(_body, files), *form.carried.plugins, form.carried.table])
    # Names come from files that anyone may have written: they stand in literals alone, never in a docstring.
    return f'''"""A network {MARK} {__version__}. Needs torch alone.

    from network import load
    logits = load()(images)  # images: float [B, {shape}] in 0..1, logits [B, {len(description.class_names)}]

{form.legend}"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

NAME = {architecture.name!r}
CLASS_NAMES = {list(description.class_names)!r}
MEAN, STD = {tuple(description.mean)!r}, {tuple(description.std)!r}
{form.literals}
{_forms(layers)}METADATA = {pprint.pformat(metadata(model), width=110, sort_dicts=False)}


{bodies}

def build() -> {form.network}:
    """The network with fresh weights."""
    network = {form.network}({form.arguments})
{REBUILT if layers else ""}    return network


def load(weights: Path = Path(__file__).with_name("{WEIGHTS}")) -> {form.network}:
    """The trained network in eval mode."""
    network = build()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()
'''


def _forms(layers: Sequence[tuple[object, ...]]) -> str:
    """The literal of the layers that stand in another form; empty where there are none."""
    if not layers:
        return ""
    return f"# Layers in another form: (name, form, numbers), see `LayerForm`.\nLAYERS = {_literal(layers)}\n"


def _body(module: object) -> str:
    """A module's text behind its imports."""
    text = Path(str(vars(module)["__file__"])).read_text(encoding="utf-8")
    first = re.search(r"^(?:class|def|#|[A-Z_]+\b)", text, flags=re.MULTILINE)
    if first is None:
        raise RunError(f"{module}: holds no definitions")
    return text[first.start() :].rstrip() + "\n"


def _compare(text: str, state: dict[str, torch.Tensor], model: Model) -> None:
    """Execute the exported text and hold its logits against the model's on random images."""
    images = torch.rand(2, *model.description.input_shape, generator=torch.Generator().manual_seed(0))
    try:
        logits = _logits_of(text, state, images)
    except Exception as error:  # whatever the text of a plugin raises without the rest of its file
        raise RunError(
            f"the exported text of {', '.join(_form(model).carried.names)} does not run alone "
            f"({type(error).__name__}: {error}); a file that needs torch alone can be carried"
        ) from None
    with torch.no_grad():
        if not torch.equal(logits, copy.deepcopy(model.network).cpu().eval()(images)):
            raise RunError("the exported network computes other logits than the model; nothing was written")


def _logits_of(text: str, state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    names: dict[str, Any] = {"__name__": "exported_network", "__file__": "network.py"}
    exec(compile(text, SOURCE, "exec"), names)  # noqa: S102 - the text was generated above, from files in use
    exported = names["build"]()
    exported.load_state_dict(state)
    with torch.no_grad():
        logits: torch.Tensor = exported.eval()(images)
    return logits
