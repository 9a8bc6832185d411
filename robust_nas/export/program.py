"""torch.export: a graph that torch (Python or C++, AOTInductor, ExecuTorch) takes without this package."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_nas.errors import RunError
from robust_nas.export.onnx import _plain_copy, first_line


def program_bytes(
    network: nn.Module, input_shape: tuple[int, int, int], *, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return a `.pt2` archive of a network in eval mode, for any batch; `metadata` are its extra files.

    Raises `RunError` for a module that torch.export cannot follow.
    """
    own = _plain_copy(network)
    for parameter in own.parameters():
        parameter.requires_grad = False
    written = io.BytesIO()
    try:
        with warnings.catch_warnings(action="ignore"):  # deprecations inside torch
            program = torch.export.export(
                own,
                (torch.zeros(2, *input_shape),),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                strict=False,
            )
            _forget_traces(program)
            torch.export.save(program, written, extra_files=dict(metadata or {}))
    except Exception as error:  # whatever torch.export meets in a foreign module
        raise RunError(f"torch.export cannot follow this module: {first_line(error)}") from error
    return written.getvalue()


def _forget_traces(program: torch.export.ExportedProgram) -> None:
    """Remove the stack traces of all nodes: they hold the paths of this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def load_program(archive: bytes | Path, keys: tuple[str, ...] = ()) -> tuple[nn.Module, dict[str, str]]:
    """Return the module of an archive, and the extra files of these names. Raise `RunError`."""
    extra: dict[str, Any] = dict.fromkeys(keys, "")
    source = io.BytesIO(archive) if isinstance(archive, bytes) else str(archive)
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.export.load(source, extra_files=extra)
    except Exception as error:
        raise RunError(
            f"{'the archive' if isinstance(archive, bytes) else archive}: {first_line(error)}"
        ) from error
    texts = {key: value.decode() if isinstance(value, bytes) else str(value) for key, value in extra.items()}
    return program.module(), texts
