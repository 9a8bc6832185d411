"""The model folder: `architecture.yaml`, `model.safetensors`, `model.json`, each written atomically.

A compressed model lists in `model.json` which layers stand in another form; it is rebuilt from that, nothing is
decomposed again. A model that was not made from an architecture (any torch module, compressed) has none: whoever loads
it brings the module.

What is loaded gives the same logits bit for bit, in the same memory format and with the same number of threads.

Names, shapes and types of the stored tensors are compared with the architecture's (built on torch's meta device), and
the file's length with them, before any tensor is allocated or copied.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import save
from torch import nn

from robust_nas.config import (
    Count,
    CountOrZero,
    Number,
    Options,
    Positive,
    check,
    existing_file,
    expand_path,
    to_dict,
)
from robust_nas.defences import Defended, StoredDefence
from robust_nas.errors import CheckpointError, CodeRefusedError, ConfigError, NoModelError
from robust_nas.layers.factorised import LayerForm, rebuild
from robust_nas.layers.normalise import Normalise
from robust_nas.nets.build import build_network
from robust_nas.nets.cost import measured_cost
from robust_nas.nets.devices import usable_device
from robust_nas.nets.digest import model_digest
from robust_nas.nets.model_card import model_card, write_card
from robust_nas.nets.weights import load_tensors
from robust_nas.run_folder import CHECKPOINT, write_atomic
from robust_nas.spaces import Architecture, Cost, count, load_architecture
from robust_nas.user_code import from_elsewhere, names_by_content

ARCHITECTURE, WEIGHTS, DESCRIPTION = "architecture.yaml", "model.safetensors", "model.json"
OWN = "defence."  # before the names of a defence's tensors


class StoredForm(Options):
    """A layer in another form than the architecture's: `LayerForm` as it is written in `model.json`."""

    name: str
    form: Literal["gdws", "tucker-2", "low-rank", "biased", "identity"]
    numbers: tuple[CountOrZero, ...] = ()


class ModelDescription(Options):
    """What belongs to the model and not to the architecture: input, classes, normalisation, forms, and its making.

    `module` is where the user's own module came from, of a model that was not made from an architecture; mean and std
    are then its own business.
    """

    schema_version: Literal[1] = 1
    input_shape: tuple[Count, Count, Count]
    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    mean: tuple[Number, ...]
    std: tuple[Positive, ...]
    made_by: dict[str, Any] = Field(default={})
    layers: tuple[StoredForm, ...] = ()  # in the order in which they are rebuilt
    module: str | None = None
    # Of a plain model there is no such key.
    defence: StoredDefence | None = Field(default=None, exclude_if=lambda defence: defence is None)

    @property
    def forms(self) -> tuple[LayerForm, ...]:
        """The layers in another form than the architecture's."""
        return tuple(LayerForm(layer.name, layer.form, layer.numbers) for layer in self.layers)

    def changed(self, forms: Iterable[LayerForm], made: Mapping[str, Any]) -> ModelDescription:
        """Return the description with more layers in another form; `made` is added to `made_by`."""
        added = (StoredForm(name=name, form=form, numbers=numbers) for name, form, numbers in forms)
        return self.model_copy(update={"layers": (*self.layers, *added), "made_by": {**self.made_by, **made}})


@dataclass(frozen=True)
class Model:
    """A network with the architecture and the description it was built from."""

    network: nn.Module
    architecture: Architecture | None  # None: the user's own module
    description: ModelDescription
    folder: Path | None = field(default=None)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.description.input_shape))
        params = sum(parameter.numel() for parameter in self.network.parameters())
        where = "" if self.folder is None else f", {self.folder}"
        return f"<Model {self.name}: {shape} to {len(self.description.class_names)} classes, {params:,} params{where}>"

    @property
    def digest(self) -> str:
        """Return the digest of everything that decides the model's answers."""
        architecture = None if self.architecture is None else names_by_content(self.architecture.nameless())
        forms = [to_dict(layer) for layer in self.description.layers]
        return model_digest(self.network, architecture=architecture, layers=forms)

    @property
    def undefended(self) -> Model:
        """The model without the defence around it; itself where there is none. Its weights are the same tensors."""
        if not isinstance(self.network, Defended):
            return self
        description = self.description.model_copy(update={"defence": None})
        return replace(self, network=self.network.module, description=description)

    @property
    def name(self) -> str:
        """The architecture's name, or the module's."""
        return str(self.description.module) if self.architecture is None else self.architecture.name


def inference_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a model keeps: all but the auxiliary head, on the CPU, contiguous.

    Of a network with a defence they are the network's own, and the defence's as `defence.<name>`. Raises `ConfigError`
    where the network has a tensor of such a name itself.
    """
    own: dict[str, torch.Tensor] = {}
    if isinstance(network, Defended):
        own = _own_tensors(network)
        network = network.module
    state: dict[str, torch.Tensor] = network.state_dict()
    if both := sorted(own.keys() & state.keys()):
        raise ConfigError(
            f"{both[0]}: is the name of a tensor of the network and, in a model folder, of one of its defence; rename "
            f"the network's module {OWN.rstrip('.')!r}"
        )
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in {**state, **own}.items()
        if not name.startswith("auxiliary.")
    }


def save_model(
    folder: Path,
    architecture: Architecture | None,
    state: dict[str, torch.Tensor],
    description: ModelDescription,
) -> None:
    """Writes the files of a model folder and its card, each atomically; `state` as `inference_state` gives it.

    Without an architecture the description names the user's own module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if architecture is not None:
        write_atomic(folder / ARCHITECTURE, architecture.to_yaml().encode())
    write_card(folder, model_card(architecture, description, cost_of(architecture, description)))
    write_atomic(folder / DESCRIPTION, (json.dumps(to_dict(description), indent=2) + "\n").encode())
    write_atomic(folder / WEIGHTS, save(state, metadata={"format": "pt"}))


def cost_of(architecture: Architecture | None, description: ModelDescription) -> Cost | None:
    """Return parameters and MACs of the network in the folder, without values; None where they are not known.

    They are not of a module of the user's own, nor of a network that does not run without values.
    """
    if architecture is None:
        return None
    if not description.layers:
        return count(architecture, description.input_shape, len(description.class_names))
    try:
        return measured_cost(_built(architecture, description, torch.device("meta")), description.input_shape)
    except (RuntimeError, NotImplementedError):
        return None


def load_model(
    folder: str | Path, device: torch.device | str = "cpu", *, module: nn.Module | None = None
) -> nn.Module:
    """The network of a model folder, compressed or not, in eval mode. Errors as `read_model`."""
    return read_model(folder, device, module=module).network


def read_model(
    folder: str | Path, device: torch.device | str = "cpu", *, module: nn.Module | None = None
) -> Model:
    """The model of a folder, in eval mode.

    `module` is the user's own, as it was before it was compressed, where the folder holds no architecture; it is not
    changed. Raises `CheckpointError` for a missing, damaged or foreign file, whichever of them it is, and `ConfigError`
    for a device that is not there.
    """
    folder, device = expand_path(folder), usable_device(device)
    if device.type == "meta":
        raise ConfigError("device: got 'meta', where a network has no values; allowed: cpu, or a GPU")
    missing = [name for name in (WEIGHTS, DESCRIPTION) if not existing_file(folder / name)]
    description = None if missing else _read_description(folder / DESCRIPTION)
    foreign = description is not None and description.module is not None
    if not foreign and not existing_file(folder / ARCHITECTURE):
        missing.insert(0, ARCHITECTURE)
    if missing or description is None:
        near = [other for other in (folder / "model", folder.parent) if (other / WEIGHTS).is_file()]
        inner = "" if folder.exists() else "; it does not exist"
        if (folder / CHECKPOINT).is_file() and not near:
            inner = "; it holds an unfinished training, continue it with --resume"
        elif near:
            inner += f"; did you mean {near[0]}?"
        raise NoModelError(f"{folder}: no model folder, {', '.join(missing)} is missing{inner}")
    channels = description.input_shape[0]
    if len(description.mean) != channels or len(description.std) != channels:
        raise CheckpointError(
            f"{folder / DESCRIPTION}: mean and std need {channels} numbers, one per channel"
        )
    architecture, build = _builder(folder, description, module)
    try:
        expected, expected_own = _expected(build(torch.device("meta")), description.defence)
    except (RuntimeError, OverflowError, TypeError) as error:  # sizes that no tensor can have
        raise CheckpointError(f"{folder / ARCHITECTURE}: no network can be built: {error}") from None
    except ValueError as error:  # forms that do not fit the network
        raise CheckpointError(f"{folder / DESCRIPTION}: layers: {error}") from None
    state = load_tensors(folder / WEIGHTS, {**expected, **expected_own})
    own = {name.removeprefix(OWN): state.pop(name) for name in expected_own}
    network = build(torch.device("cpu"))
    stated = {} if foreign else _normalisation(network)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: cannot be loaded: {error}") from None
    bad = [
        name
        for name, tensor in {**state, **own}.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise CheckpointError(f"{folder / WEIGHTS}: {bad[0]} holds NaN or infinite values")
    _refuse_other_normalisation(stated, state, folder)
    found = Model(network.eval(), architecture, description, folder)
    if description.defence is not None:
        bare = replace(found, description=description.model_copy(update={"defence": None}))
        defended = description.defence.around(network, bare.digest, own, str(folder / DESCRIPTION))
        found = replace(found, network=defended.eval())
    found.network.to(device)
    return found


def _expected(
    network: nn.Module, defence: StoredDefence | None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the tensors of the network and of its defence that the weights' file should hold, on the meta device."""
    state: dict[str, torch.Tensor] = network.state_dict()
    if defence is None:
        return state, {}
    with torch.device("meta"):
        return state, _own_tensors(defence.method.wrap(network, defence.values))


def _own_tensors(defended: Defended) -> dict[str, torch.Tensor]:
    """Return the tensors of the defence itself, by their names in the weights' file."""
    return {f"{OWN}{name}": tensor for name, tensor in defended.own_state().items()}


def _normalisation(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of mean and std of the layers that normalise, by their names in the state."""
    return {
        f"{name}.{key}": tensor.clone()
        for name, module in network.named_modules()
        if isinstance(module, Normalise)
        for key, tensor in (("mean", module.mean), ("std", module.std))
    }


def _refuse_other_normalisation(
    stated: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], folder: Path
) -> None:
    """Raise `CheckpointError` where the description has another mean or std than the weights, which decide."""
    for name, tensor in stated.items():
        if not torch.equal(tensor, state[name]):
            said, held = (one.flatten().tolist() for one in (tensor, state[name]))
            raise CheckpointError(
                f"{folder / DESCRIPTION}: {name.rpartition('.')[2]} is {said}, but {WEIGHTS} was trained with {held}; "
                "put the file back"
            )


def _builder(
    folder: Path, description: ModelDescription, module: nn.Module | None
) -> tuple[Architecture | None, Callable[[torch.device], nn.Module]]:
    """The architecture, where there is one, and what builds the network on a device, forms and all."""
    if description.module is not None:
        if module is None:
            raise CheckpointError(
                f"{folder}: was made from the module {description.module}, which the folder does not hold; "
                "pass it, as it was before: load_model(folder, module=build()), or --module on the command line"
            )

        def own(device: torch.device) -> nn.Module:
            network = copy.deepcopy(module).to(device)
            rebuild(network, description.forms)
            return network

        return None, own
    if module is not None:
        raise CheckpointError(f"{folder}: was made from an architecture, which it holds; no module is needed")
    try:
        architecture = load_architecture(folder / ARCHITECTURE)
    except CodeRefusedError:
        raise
    except ConfigError as error:
        raise CheckpointError(str(error)) from None

    return architecture, lambda device: _built(architecture, description, device)


def _built(architecture: Architecture, description: ModelDescription, device: torch.device) -> nn.Module:
    with device:
        network = build_network(
            architecture,
            input_shape=description.input_shape,
            classes=len(description.class_names),
            mean=description.mean,
            std=description.std,
        )
        rebuild(network, description.forms)
    return network


def _read_description(path: Path) -> ModelDescription:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    try:
        with from_elsewhere():  # a defence may be of somebody's own file
            return check(ModelDescription, tree, str(path))
    except CodeRefusedError:
        raise
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
