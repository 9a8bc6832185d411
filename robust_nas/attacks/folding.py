"""A copy of a model for attacks in eval mode: batch norm folded into the convolutions, channels-last memory order.

    bn(W * x + b) = (g / s) W * x + g / s (b - mean) + beta,   s = sqrt(var + eps)

also where the batch norm follows a concatenation of convolutions (a factorised reduction). Layers in factors are
written back into the dense ones that compute the same, through which gradients are taken in less time. The graph comes
from torch.fx and is kept per model; weights are copied again for every attack, so that a model in training is attacked
as it is now. A model that cannot be traced, has hooks, or whose copy does not give its logits, is attacked as it
is: `folded` then says why. Nothing about the model is trusted, its logits are compared on every call; or once for every
graph, in training, which waits for no device. There the graph is made again when a module or a number that it took for
a constant has changed (`_signature`); a number that changes at every step costs a graph at every step.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, fx, nn

from robust_nas.attacks.compiling import CompiledCopy
from robust_nas.layers.agreement import agree
from robust_nas.layers.batch_norm import NORMS, SynchronisedBatchNorm2d
from robust_nas.layers.depthwise import DepthwiseConv2d, quicken
from robust_nas.layers.factorised import FactorisedLayer, dense_layer
from robust_nas.layers.inspection import has_hooks
from robust_nas.layers.norm_folding import fold_norm
from robust_nas.layers.self_folding import SelfFolding

COMPARED = 16  # images on which the copy is held against the model
CONSTANTS = (int, float, str, type(None))  # bool is an int
RELATIVE = 1e-3  # of what decides (`layers/agreement.py`); folding rounds at 1e-6, a wrong trace is off by whole units


class Folded(NamedTuple):
    """The copy, or None and the reason."""

    network: nn.Module | None
    model_form: str
    compilations: dict[str, CompiledCopy] | None = (
        None  # of the copy, kept with its trace; None: there is no trace
    )


class _Fold(NamedTuple):
    """A convolution whose batch norm went into it: output channels `start..start + size` of the norm."""

    convolution: str  # name of the module in the model
    norm: str
    start: int


class _Trace(NamedTuple):
    """A traced copy, and where its tensors come from."""

    network: fx.GraphModule
    folds: dict[str, _Fold]  # name in the copy -> what it is made of
    modules: dict[str, str]  # name in the copy -> name in the model, copied as it is
    constants: dict[str, str]  # buffer in the copy -> dotted name of a parameter or buffer in the model
    compilations: dict[str, CompiledCopy]  # by backend


# model -> whether factors are written back -> the signature that it was traced with, and the trace, or why not
_TRACES: WeakKeyDictionary[nn.Module, dict[bool, tuple[tuple[Any, ...], _Trace | str]]] = WeakKeyDictionary()
_AGREED: WeakSet[nn.Module] = WeakSet()  # copies that have given their model's logits


def folded(
    model: nn.Module, images: Tensor, *, once: bool = False, twice_differentiated: bool = False
) -> Folded:
    """Return the folded copy of a model in eval mode, with the model's present weights, on the model's device.

    With `twice_differentiated` it is one that has second derivatives, which those of `SelfFolding` have not.
    With `once` a copy that has given the model's logits before is not compared again.
    Whatever a random model draws meanwhile, torch's global generators come back as they were.
    """
    if twice_differentiated and isinstance(model, SelfFolding):
        return Folded(None, "as it is: its own folded copy has no second derivative")
    with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
        return _folded(model, images, once)


def _folded(model: nn.Module, images: Tensor, once: bool) -> Folded:
    own = model.folded() if isinstance(model, SelfFolding) else None
    if own is not None:  # it knows better than a trace
        if _agree(own, model, images, once):
            return Folded(own, "folded")
        return Folded(None, "as it is: its own folded copy gives other logits")
    if any(isinstance(module, FactorisedLayer) for module in model.modules()):
        whole = _by_trace(model, images, once, write_back=True)
        if whole.network is not None:
            return whole._replace(model_form="folded, factors written back")
    return _by_trace(model, images, once, write_back=False)


def _by_trace(model: nn.Module, images: Tensor, once: bool, write_back: bool) -> Folded:
    """Return the copy by the kept trace, or by a new one; with `write_back`, layers in factors are dense in it."""
    signature = _signature(model)
    traces = _TRACES.setdefault(model, {})
    known, trace = traces.get(write_back, (None, ""))
    fresh = known != signature
    if fresh:
        trace = _traced(model, write_back)
        traces[write_back] = signature, trace
    if isinstance(trace, str):
        return Folded(None, f"as it is: {trace}")
    try:
        if _gives_its_logits(trace, model, images, once):
            return Folded(trace.network, "folded", trace.compilations)
    except Exception as error:  # whatever a foreign module raises when it meets what it did not expect
        return Folded(None, f"as it is: its traced copy fails ({_first_line(error)})")
    if fresh:
        traces[write_back] = signature, "its traced copy gives other logits"
    else:  # something that the trace took for a constant has changed since, unseen: a new one may do
        del traces[write_back]
    return _by_trace(model, images, once, write_back)


def _gives_its_logits(trace: _Trace, model: nn.Module, images: Tensor, once: bool) -> bool:
    """Return whether the copy, with the model's present tensors, gives the model's logits for a few images."""
    with torch.no_grad():
        _refresh(trace, model)
    return _agree(trace.network, model, images, once)


def _agree(copied: nn.Module, model: nn.Module, images: Tensor, once: bool) -> bool:
    """Return whether a copy gives the model's logits; with `once`, one that has given them before is not asked."""
    if once and copied in _AGREED:
        return True
    same = same_logits(copied, model, images)
    if same:
        _AGREED.add(copied)
    return same


def same_logits(copied: nn.Module, model: nn.Module, images: Tensor) -> bool:
    """Return whether a copy gives its model's logits for the first images, both in eval mode; waits for the device."""
    with torch.no_grad():
        few = images[:COMPARED].contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False):
            # Clones: either may change its input in place.
            own, other = model(images[:COMPARED].clone()), copied(few.clone())
        return agree(own, other, RELATIVE)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__


def _signature(model: nn.Module) -> tuple[Any, ...]:
    """Return what the graph depends on.

    It changes when a module, hook or tensor is replaced, moved or reshaped, and when a number, string or None that is
    an attribute of a module becomes another one: torch.fx writes its value into the graph.
    """
    modules = tuple(
        (name, id(module), has_hooks(module), _constants(module)) for name, module in model.named_modules()
    )
    named = [*model.named_parameters(), *model.named_buffers()]
    return modules, tuple((name, tuple(t.shape), t.dtype, t.device) for name, t in named)


def _constants(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    """Return the attributes of a module that a trace takes for constants, but its mode: the copy is in eval mode."""
    return tuple(
        pair for pair in vars(module).items() if isinstance(pair[1], CONSTANTS) and pair[0] != "training"
    )


def _traced(model: nn.Module, write_back: bool) -> _Trace | str:
    """Return the trace, or why there is none."""
    seen = _graph(model, write_back)
    if isinstance(seen, str):
        return seen
    graph, made = seen
    try:
        return _folded_copy(model, graph, made)
    except Exception as error:  # a module that cannot be copied
        return f"it cannot be copied ({_first_line(error)})"


def _graph(model: nn.Module, write_back: bool = False) -> tuple[fx.Graph, dict[str, Tensor]] | str:
    """Return the graph, and the tensors that tracing met and that no module holds; or why there is none.

    With `write_back` a layer in factors is one node. The model is left as it was.
    """
    for module in model.modules():
        if has_hooks(module):
            return f"{type(module).__name__} has hooks"
    saved = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        graph = _Tracer(write_back).trace(model)
    except Exception as error:  # fx raises whatever the traced code raises when it meets a proxy
        return f"torch.fx cannot trace it ({_first_line(error)})"
    finally:
        # Tensors that the model makes on its way become its attributes, and what it stores is a proxy: undone.
        made = {name: value for name, value in vars(model).items() if name not in saved[0][1]}
        for now, then in saved:
            now.clear()
            now.update(then)
    return graph, made


def foldable(model: nn.Module) -> list[tuple[str, str]] | str:
    """Return names of convolutions, each with the batch norm that alone follows it, both read once; or why not.

    What is read twice cannot be folded in place: a layer called twice, a tensor that another layer has too, and a
    weight or statistic that the forward pass takes for itself, as in `F.conv2d(x, self.conv.weight)`.
    The model is left as it was.
    """
    seen = _graph(model)
    if isinstance(seen, str):
        return seen
    graph, made = seen
    modules = dict(model.named_modules())
    reads: Counter[int] = Counter()
    for node in graph.nodes:
        reads.update(_read_by(node, model, modules, made))
    pairs = []
    for node in graph.nodes:
        if (
            node.op == "call_module"
            and _is_norm(modules.get(node.target))
            and isinstance(node.args[0], fx.Node)
        ):
            source = node.args[0]
            alone = source.op == "call_module" and bool(_convolutions(node, modules))
            own = [_read_by(each, model, modules, made) for each in (source, node)] if alone else []
            if alone and all(reads[tensor] == 1 for tensors in own for tensor in tensors):
                pairs.append((str(source.target), str(node.target)))
    return pairs


def _read_by(
    node: fx.Node, model: nn.Module, modules: dict[str, nn.Module], made: dict[str, Tensor]
) -> set[int]:
    """Return where the tensors begin that a node of the graph reads."""
    tensors: list[Any] = []
    if node.op == "call_module":
        tensors = _tensors(modules[str(node.target)])
    elif node.op == "get_attr":
        target = str(node.target)
        tensors = [made[target] if target in made else _attribute(model, target)]
    return {tensor.data_ptr() or id(tensor) for tensor in tensors}


class _Tracer(fx.Tracer):
    """Sees layers of ours as one module where torch has one too; and layers in factors where asked to."""

    def __init__(self, write_back: bool) -> None:
        super().__init__()
        own = (SynchronisedBatchNorm2d, DepthwiseConv2d)
        self.leaves = (*own, FactorisedLayer) if write_back else own

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is not looked into."""
        return isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualified_name)


def _folded_copy(model: nn.Module, graph: fx.Graph, made: dict[str, Tensor]) -> _Trace:
    """Return the graph on modules of its own; `made` are the tensors that tracing met and that no module holds."""
    called = {node.target for node in graph.nodes if node.op == "call_module"}
    modules = {name: _dense(module) for name, module in model.named_modules() if name in called}
    root = nn.Module()
    folds: dict[str, _Fold] = {}
    plain: dict[str, str] = {}
    constants: dict[str, str] = {}
    for node in list(graph.nodes):
        if node.op == "call_module" and _is_norm(modules.get(node.target)):
            sources = _convolutions(node, modules)
            start = 0
            for source in sources:
                taken = str(source.target)
                name = f"folded_{len(folds)}"
                own: Any = modules[taken]
                folds[name] = _Fold(taken, str(node.target), start)
                start += own.out_channels
                fused = copy.deepcopy(own)
                fused.bias = nn.Parameter(own.weight.new_zeros(own.out_channels))
                root.add_module(name, fused)
                source.target = name
            if sources:
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
    for node in graph.nodes:
        if node.op == "call_module" and node.target not in folds:
            name = f"plain_{len(plain)}"
            plain[name] = node.target
            root.add_module(name, copy.deepcopy(modules[node.target]))
            node.target = name
        elif node.op == "get_attr":
            if node.target in made:
                name = f"made_{node.target}"
                root.register_buffer(name, made[node.target])
            else:
                name = f"constant_{len(constants)}"
                constants[name] = node.target
                root.register_buffer(name, _attribute(model, node.target).detach().clone())
            node.target = name
    for parameter in root.parameters():
        parameter.requires_grad = False
    quicken(root)
    root.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch leaves it out of its stubs
    network = fx.GraphModule(root, graph).eval()
    return _Trace(network, folds, plain, constants, {})


def _is_norm(module: nn.Module | None) -> bool:
    """Return whether it is a plain batch norm of images with running statistics."""
    plain = type(module) in NORMS
    return plain and getattr(module, "running_mean", None) is not None


def _convolutions(node: fx.Node, modules: dict[str, nn.Module]) -> list[fx.Node]:
    """Return the convolutions that a batch norm can go into: its input, or all parts of a concatenation of channels."""
    source = node.args[0]
    parts: Any = [source]
    if isinstance(source, fx.Node) and source.op == "call_function" and source.target is torch.cat:
        dim = source.kwargs.get("dim", source.args[1] if len(source.args) > 1 else 0)
        if dim != 1 or len(source.users) > 1:
            return []
        parts = source.args[0]
        if len(set(parts)) < len(parts):
            return []
    for part in parts:
        if not (
            isinstance(part, fx.Node)
            and part.op == "call_module"
            and type(modules.get(str(part.target))) in (nn.Conv2d, DepthwiseConv2d)
            and len(part.users) == 1
        ):
            return []
    return list(parts)


def _attribute(model: nn.Module, target: str) -> Tensor:
    value: Any = model
    for part in target.split("."):
        value = getattr(value, part)
    return value  # type: ignore[no-any-return]


def _refresh(trace: _Trace, model: nn.Module) -> None:
    """Copy the model's present tensors into the copy, folding on the way."""
    modules = dict(model.named_modules())
    for name, fold in trace.folds.items():
        convolution: Any = _dense(modules[fold.convolution])
        norm: Any = modules[fold.norm]
        weight, bias = fold_norm(convolution, norm, fold.start)
        own: Any = trace.network.get_submodule(name)
        own.weight.copy_(weight)
        own.bias.copy_(bias)
    for name, target in trace.modules.items():
        pairs = zip(
            _tensors(trace.network.get_submodule(name)), _tensors(_dense(modules[target])), strict=True
        )
        for own, now in pairs:
            own.copy_(now)
    for name, target in trace.constants.items():
        getattr(trace.network, name).copy_(_attribute(model, target))


def _dense(module: nn.Module) -> nn.Module:
    """Return the dense layer of one in factors, in the weights' precision also under autocast; others as they are."""
    if not isinstance(module, FactorisedLayer):
        return module
    with torch.autocast(next(module.parameters()).device.type, enabled=False):
        return dense_layer(module)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
