"""Check a file of weights before anything in it is read: names, shapes and types of its tensors, and its length.

Only safetensors files are read. Files of `torch.save` and pickles are refused with the command that converts them,
which loads with `weights_only=True`: no code in the file runs. Names that differ from the module's by a prefix alone,
as `DataParallel` and `torch.compile` write them, are refused with the command that renames them.
"""

from __future__ import annotations

import json
import os
import shlex
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from robust_nas.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
DTYPES = {  # of tensors, and their names in the file
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ARCHIVE = b"PK\x03\x04"
PICKLES = {
    ARCHIVE: "an archive, as torch.save writes it",
    b"\x80": "a pickle, as torch.save once wrote it",
}
WRAPPERS = {
    "module.": "torch.nn.DataParallel",
    "_orig_mod.": "torch.compile",
    "model.": "a class around the network",
}
_NESTED = ("state_dict", "model_state_dict", "model", "net")  # where training scripts keep the weights
CONVERT = (
    "import io, pathlib, torch, safetensors.torch as s; f = io.BytesIO(pathlib.Path({source!r}).read_bytes()); "
    "d = torch.load(f, map_location='cpu', weights_only=True); "
    "d = next((d[k] for k in {nested} if isinstance(d.get(k), dict)), d); "
    "s.save_file({{k: v.clone().contiguous() for k, v in d.items() if hasattr(v, 'dtype')}}, {target!r})"
)
RENAME = (
    "import safetensors.torch as s; "
    "s.save_file({{{new}: v for k, v in s.load_file({source!r}).items()}}, {target!r})"
)


def load_tensors(path: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, which have the names, shapes and types of `expected` (meta ones do).

    Raises `CheckpointError` for a file that is missing, damaged or of other tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    check_tensors(path, expected)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be loaded: {error}") from None


def check_tensors(path: Path, expected: Mapping[str, torch.Tensor]) -> None:
    """Compares a safetensors header with the names, shapes and types of tensors (meta ones do), and the file's length.

    Nothing but the header is read. Raises `CheckpointError` with the first differences.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            (length,) = struct.unpack("<Q", start)
            if length > MAX_HEADER_BYTES or start.startswith(ARCHIVE):
                _refuse_pickle(path, start)
                raise ValueError(f"its header claims {length} bytes")
            header = json.loads(file.read(length))
            size = file.seek(0, os.SEEK_END)
        header.pop("__metadata__", None)
        found = {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in header.items()}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise CheckpointError(f"{path}: no safetensors file: {error}") from None
    wanted = {
        name: (tuple(tensor.shape), DTYPES.get(tensor.dtype, str(tensor.dtype)))
        for name, tensor in expected.items()
    }
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is foreign" for name in found if name not in wanted]
    problems += [
        f"{name} is {found[name][1]} {list(found[name][0])}, the architecture needs {dtype} {list(shape)}"
        for name, (shape, dtype) in wanted.items()
        if name in found and found[name] != (shape, dtype)
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        shown = "; ".join(problems[:3]) + more + _renaming(path, set(found), wanted)
        raise CheckpointError(f"{path}: does not fit the architecture: {shown}")
    needed = 8 + length + sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    if size != needed:
        raise CheckpointError(f"{path}: is damaged or truncated: {size} bytes, its tensors need {needed}")


def _refuse_pickle(path: Path, start: bytes) -> None:
    """Raise `CheckpointError` for a file of `torch.save`, or another pickle, by its first bytes."""
    for mark, what in PICKLES.items():
        if start.startswith(mark):
            code = shlex.quote(CONVERT.format(source=str(path), nested=_NESTED, target=str(_converted(path))))
            raise CheckpointError(
                f"{path}: no safetensors file, but {what}; a safetensors file is needed. Convert it: python -c {code}"
            )


def _converted(path: Path) -> Path:
    return path.with_name(f"{path.stem}-converted.safetensors")


def _renaming(path: Path, found: set[str], wanted: Iterable[str]) -> str:
    """Return a hint where all names are those that are wanted but for a prefix, or an empty text."""
    names = set(wanted)
    for longer, shorter, new in ((found, names, "k.removeprefix({!r})"), (names, found, "{!r} + k")):
        first = min(shorter, default="")
        prefixes = [name.removesuffix(first) for name in longer if name.endswith(f".{first}")]
        for prefix in prefixes:
            if longer == {prefix + name for name in shorter}:
                whose = "the file" if longer is found else "the module"
                by = next(
                    (f", as {by} writes them" for mark, by in WRAPPERS.items() if prefix.startswith(mark)), ""
                )
                code = RENAME.format(new=new.format(prefix), source=str(path), target=str(_converted(path)))
                return f". All names of {whose} begin with {prefix!r}{by}. Rename them: python -c {shlex.quote(code)}"
    return ""
