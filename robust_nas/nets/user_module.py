"""Any torch module from a user's own Python file, with weights from a safetensors file.

The file is executed: it is the user's own. Names, shapes and types of the weights are compared with the module's
before anything is copied.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from robust_nas.config import existing_file, expand_path, read_yaml
from robust_nas.errors import CheckpointError, ConfigError
from robust_nas.nets.digest import built_digest, model_digest
from robust_nas.nets.model import load_model
from robust_nas.nets.values import without_values
from robust_nas.nets.weights import load_tensors
from robust_nas.run_folder import CONFIG
from robust_nas.user_code import run_file


def load_module(spec: str, weights: Path | None = None) -> nn.Module:
    """The module that `path.py:function` builds, in eval mode, with the weights of a file.

    Where `weights` is a folder, it is that of the module as it was compressed, and the compressed one is returned.
    Raises `ConfigError` for a file or function that is not there or builds no module, and `CheckpointError` for weights
    that do not fit.
    """
    module = _built(spec)
    if weights is not None and weights.is_dir():
        return load_model(weights, module=module)
    if weights is not None:
        state = load_tensors(weights, module.state_dict())
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"{weights}: cannot be loaded: {error}") from None
    return module.eval()


def module_digest(network: nn.Module, source: Path) -> str:
    """Return the digest of a user's module as it was built: its tensors, its modules, and the text of its file.

    Behind a point follows what `built_digest` adds, where there is any; records of earlier versions end before it.
    """
    digest = model_digest(network, source=hashlib.sha256(source.read_bytes()).hexdigest())
    built = built_digest(network)
    return f"{digest}.{built}" if built else digest


def known_digest(folder: Path, digest: str) -> str:
    """Return the digest as the run in `folder` would have it: of an earlier version, without what follows the point."""
    try:
        before = read_yaml(folder / CONFIG).get("digest")
    except ConfigError:  # none there, or a damaged one, which the run answers
        return digest
    own = digest.partition(".")[0]
    return own if before == own else digest


def source_of(spec: str) -> tuple[Path, str]:
    """File and function that `path.py:function` names. Raises `ConfigError`."""
    path, colon, name = spec.rpartition(":")
    if not colon or not name.isidentifier() or existing_file(path) is None:
        raise ConfigError(
            f"--module: got {spec!r}; an existing Python file and a function in it are needed, such as net.py:build"
        )
    return expand_path(path), name


@contextmanager
def _settings_kept(spec: str) -> Iterator[None]:
    """Keep the current folder and torch's switches from what runs inside.

    Raises `ConfigError` where it changes torch's default type or device, on which its answers may depend.
    """
    folder = Path.cwd()
    before = torch.get_default_dtype(), torch.get_default_device()
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            yield
        after = torch.get_default_dtype(), torch.get_default_device()
    finally:
        os.chdir(folder)
        torch.set_default_dtype(before[0])
        torch.set_default_device(before[1])
    if after != before:
        changed = " and ".join(
            f"{new} (was {old})" for old, new in zip(before, after, strict=True) if old != new
        )
        raise ConfigError(
            f"--module: {spec} sets torch's default to {changed} for the whole process; "
            "pass dtype= or device= to what needs another"
        )


def _built(spec: str) -> nn.Module:
    path, name = source_of(spec)
    with _settings_kept(spec):
        try:
            build = getattr(run_file(path.resolve()), name, None)
        except ConfigError as error:
            raise ConfigError(f"--module: {error}") from error
        if not callable(build):
            raise ConfigError(f"--module: {path} has no function {name!r}")
        try:
            module = build()
        except (Exception, SystemExit) as error:  # whatever the user's own code raises; a script may exit
            raise ConfigError(f"--module: {spec} fails: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"--module: {spec} built {type(module).__name__}; a torch.nn.Module is needed")
    if reason := without_values(module):
        raise ConfigError(f"--module: {spec}: {reason}")
    return module
