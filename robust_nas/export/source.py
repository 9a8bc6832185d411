"""Plain Python: one file that defines the found network with torch alone, and a file with its weights.

The file carries the text of the files in `nets/` and `layers/` that define the network, without their imports of this
package, the arguments of the network as literals, and `load()`. It is executed once against the model before it gets
its final name.
"""

from __future__ import annotations

import ast
import copy
import importlib
import io
import pprint
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from robust_nas._version import __version__
from robust_nas.errors import ConfigError, RunError, RunExistsError
from robust_nas.export.carried import BUILT, carried
from robust_nas.export.metadata import MARK, metadata
from robust_nas.files import write_together
from robust_nas.layers import factorised
from robust_nas.nets import Model, inference_state
from robust_nas.nets.networks import NETWORKS
from robust_nas.operations import ACTIVATIONS, OPERATIONS
from robust_nas.spaces import Architecture

SOURCE, WEIGHTS = "network.py", "weights.pt"
CARRIED = ("robust_nas.layers.", "robust_nas.nets.")
# What files import from these is written as tables of their own.
TABLES = ("robust_nas.operations", "robust_nas.nets.networks")
REBUILT = "    rebuild(network, [LayerForm(*layer) for layer in LAYERS])\n"


def export_source(model: Model, folder: Path, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write `network.py` and `weights.pt` and return their paths; `overwrite` replaces an earlier export.

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
    data = {folder / SOURCE: text.encode(), folder / WEIGHTS: weights.getvalue()}
    write_together(data)
    return folder / SOURCE, folder / WEIGHTS


def refuse_source(model: Model, folder: Path, *, overwrite: bool) -> None:
    """Raise what `export_source` would, before any work: `ConfigError`, `RunExistsError`."""
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


def _architecture(model: Model) -> Architecture:
    """Return the model's architecture. Raises `ConfigError` for a module of the user's own."""
    if model.architecture is None:
        raise ConfigError(
            f"{model.name}: is a module of your own; its source is where you have it, "
            "--format onnx and --format program deliver it"
        )
    return model.architecture


def source_text(model: Model) -> str:
    """Return the Python file as text."""
    description, architecture = model.description, _architecture(model)
    network = architecture.network_class()
    layers = [tuple(layer) for layer in description.forms]
    members = {name: NETWORKS.get(name) for name in sorted(architecture.networks_used())}
    modules = [network.__module__, *(member.__module__ for member in members.values())]
    modules += [factorised.__name__] if layers else []
    methods = [
        carried(OPERATIONS, architecture.operations_used(), "OPERATIONS"),
        carried(ACTIVATIONS, architecture.activations_used(), "ACTIVATIONS"),
    ]
    modules += [module.__name__ for found in methods for module in found.modules]
    imports, bodies = carried_files(modules, architecture)
    plugins = [text for found in methods for text in found.plugins]
    tables = [found.table for found in methods]
    if members:
        entries = "".join(f"    {name!r}: {member.__name__},\n" for name, member in members.items())
        tables.append(f"NETWORKS = {{\n{entries}}}\n")
    shape = "x".join(map(str, description.input_shape))
    arguments = pprint.pformat(architecture.arguments(description.input_shape), width=110, sort_dicts=False)
    # Names come from files that anyone may have written: they stand in literals alone, never in a docstring.
    return f'''"""A network {MARK} {__version__}. Needs torch alone.

    from network import load
    logits = load()(images)  # images: float [B, {shape}] in 0..1, logits [B, {len(description.class_names)}]

ARGUMENTS are those of `{network.__name__}` below.
"""

from __future__ import annotations

{imports}

NAME = {architecture.name!r}
CLASS_NAMES = {list(description.class_names)!r}
MEAN, STD = {tuple(description.mean)!r}, {tuple(description.std)!r}
ARGUMENTS: dict[str, Any] = {arguments}
{_forms(layers)}METADATA = {pprint.pformat(metadata(model), width=110, sort_dicts=False)}


{chr(10).join([bodies, *plugins, BUILT, *tables])}

def build() -> {network.__name__}:
    """Return the network with fresh weights."""
    network = {network.__name__}(classes=len(CLASS_NAMES), mean=MEAN, std=STD, **ARGUMENTS)
{REBUILT if layers else ""}    return network


def load(weights: Path = Path(__file__).with_name("{WEIGHTS}")) -> {network.__name__}:
    """Return the trained network in eval mode."""
    network = build()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()
'''


def _forms(layers: Sequence[tuple[object, ...]]) -> str:
    """Return the literal of the layers in another form; empty where there are none."""
    if not layers:
        return ""
    literal = pprint.pformat(list(layers), width=110)
    return f"# Layers in another form: (name, form, numbers), see `LayerForm`.\nLAYERS = {literal}\n"


def carried_files(modules: Iterable[str], architecture: Architecture) -> tuple[str, str]:
    """Return the imports that the files of these modules need, and their text behind the imports.

    Files of this package that they import go before them. Raises `ConfigError` for a file that needs other rooms of
    the package than `layers` and `nets`.
    """
    imports = {
        "import torch",
        "from collections.abc import Callable",
        "from pathlib import Path",
        "from typing import Any",
        "from torch import nn",
    }
    bodies: dict[str, str] = {}

    def carry(name: str) -> None:
        if name in bodies:
            return
        text = Path(str(vars(importlib.import_module(name))["__file__"])).read_text(encoding="utf-8")
        own, outside, body = _split(text)
        for other in own:
            if other in TABLES:
                continue
            if not other.startswith(CARRIED):
                raise ConfigError(
                    f"{architecture.name}: its network's file {name} needs {other}, which plain Python cannot carry; "
                    "--format onnx and --format program deliver it"
                )
            carry(other)
        imports.update(outside)
        bodies[name] = body

    for name in modules:
        carry(name)
    return "\n".join(sorted(imports, key=_import_order)), "\n\n".join(bodies.values())


def _split(text: str) -> tuple[list[str], list[str], str]:
    """Return the modules of this package that a file imports, its other imports, and its text behind them."""
    own, outside, end = [], [], 0
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("robust_nas"):
            own.append(str(node.module))
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            outside += [ast.unparse(ast.ImportFrom(node.module, [name], 0)) for name in node.names]
        elif isinstance(node, ast.Import):
            outside += [ast.unparse(ast.Import([name])) for name in node.names]
        elif not (
            isinstance(node, ast.ImportFrom)
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        ):
            break
        end = node.end_lineno or end
    return own, outside, "".join(text.splitlines(keepends=True)[end:]).strip() + "\n"


def _import_order(line: str) -> tuple[bool, bool, str]:
    """Sort as isort does: the standard library first, plain imports before `from`."""
    module = line.split()[1]
    return module.partition(".")[0] == "torch", line.startswith("from"), line


def _compare(text: str, state: dict[str, torch.Tensor], model: Model) -> None:
    """Execute the exported text and compare its logits with the model's on random images."""
    images = torch.rand(2, *model.description.input_shape, generator=torch.Generator().manual_seed(0))
    try:
        logits = _logits_of(text, state, images)
    except Exception as error:  # whatever the text of a plugin raises without the rest of its file
        architecture = _architecture(model)
        used = sorted({architecture.type, *architecture.operations_used(), *architecture.activations_used()})
        raise RunError(
            f"the exported text of {', '.join(used)} does not run alone "
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
