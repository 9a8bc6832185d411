"""ONNX: a graph that other runtimes execute, and ONNX Runtime around it.

Input `images`, float32 `[batch, C, H, W]` in 0..1, any batch; output `logits` `[batch, K]`; normalisation is inside.
Written by torch's own exporter (torch.export, onnxscript) in channels-first memory order. Its optimiser folds a batch
norm right behind a convolution; one behind a sum, or a convolution with other readers, stays an operator, which the
runtime may merge with its neighbours. Needs the extra `export`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_nas.errors import ConfigError, RunError

OPSET = 20  # what torch's exporter writes without converting; ONNX Runtime has it since 1.17
IR_VERSION = 9  # the exporter says 10, for notes on nodes, dropped here; ONNX Runtime 1.17 refuses 10
INPUT, OUTPUT = "images", "logits"


def needs(package: str) -> Any:
    """Return a package of the extra `export`. Raise `ConfigError` where it is not installed."""
    try:
        return import_module(package)
    except ImportError:
        raise ConfigError(
            f"{package} is not installed; ONNX needs: pip install 'robust-nas[export]'"
        ) from None


def onnx_bytes(
    network: nn.Module, input_shape: tuple[int, int, int], *, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return the graph of a network in eval mode, checked by ONNX's checker; the network is left as it was.

    `metadata` become the model's properties. Raises `ConfigError` without the extra `export`, `RunError` for a module
    that torch cannot export.
    """
    onnx = needs("onnx")
    needs("onnxscript")
    own = _plain_copy(network)
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, *input_shape)
    with _quiet():
        try:
            program: Any = torch.onnx.export(
                own,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            model = program.model_proto
        except Exception as error:  # whatever torch's exporter meets in a foreign module
            raise RunError(f"torch cannot export this module to ONNX: {first_line(error)}") from error
    _refuse_fixed_batch(model.graph)
    _forget_makers(model.graph)
    model.ir_version = IR_VERSION
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise RunError(f"the exported graph is not valid ONNX: {first_line(error)}") from error
    written = io.BytesIO()
    onnx.save_model(model, written)
    return written.getvalue()


def _refuse_fixed_batch(graph: Any) -> None:
    """Raise `RunError` for a graph that takes one number of images alone, as of an unrolled loop over them."""
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    if not batch.dim_param:
        raise RunError(
            f"torch cannot export this module to ONNX for any batch: the graph takes {batch.dim_value} images alone, "
            "as of a module that loops over the images; one that works on the whole batch is needed"
        )


def _forget_makers(graph: Any) -> None:
    """Remove the exporter's notes on every node and value: stack traces, with the paths of this machine."""
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _forget_makers(inner)


def _plain_copy(network: nn.Module) -> nn.Module:
    """Return a copy on the CPU, in eval mode and channels-first order."""
    own = copy.deepcopy(network).cpu().eval()
    own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # torch leaves it out of its stubs
    return own


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, cut at 300 characters, or its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about itself: deprecations inside torch, packages that it does without."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class OnnxModel:
    """A graph in ONNX Runtime on the CPU: images `[B, C, H, W]` to logits `[B, K]`, as tensors."""

    def __init__(self, graph: bytes | Path, threads: int = 1) -> None:
        """Loads a graph from a file, or as `onnx_bytes` gives it. Raises `RunError` for one that cannot be loaded."""
        runtime = needs("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:
            where = "" if isinstance(graph, bytes) else f"{graph}: "
            raise RunError(f"{where}ONNX Runtime cannot load it: {first_line(error)}") from error

    @property
    def metadata(self) -> dict[str, str]:
        """Return the model's properties."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits of images on the CPU. Raises `RunError` for images that the graph does not take."""
        try:
            (logits,) = self.session.run([OUTPUT], {INPUT: images.contiguous().numpy()})
        except Exception as error:  # the runtime's own family, which is none of Python's
            raise RunError(
                f"ONNX Runtime cannot run it on images {tuple(images.shape)}: {first_line(error)}"
            ) from error
        return torch.from_numpy(logits)
