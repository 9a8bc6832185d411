"""What a result depends on besides its config: versions, machine, code."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas._version import __version__
from robust_nas.config import Options, config_hash
from robust_nas.registry import plugins_in
from robust_nas.user_code import code_digests

if TYPE_CHECKING:
    import torch

# glibc's `M_MMAP_THRESHOLD`, at the highest that it takes, and `M_TRIM_THRESHOLD` (mallopt(3)), in bytes.
KEPT = ((-3, 32 * 2**20), (-1, 512 * 2**20))
MAPS = Path("/proc/self/maps")  # the files that are mapped into this process
CGROUPS = Path("/sys/fs/cgroup")
MEMORY_LIMITS = (
    CGROUPS / "memory.max",
    CGROUPS / "memory" / "memory.limit_in_bytes",
)  # of version 2 and of version 1


def environment(config: Options | None = None, **more: Any) -> dict[str, Any]:
    """What a result depends on besides its config: versions, machine, code version, and what the caller adds."""
    return {
        "robust_nas": __version__,
        "code": _code_version(),
        "user_code": code_digests(),
        "plugins": plugins_in(config),
        **({} if config is None else {"config_hash": config_hash(config)}),
        "python": platform.python_version(),
        "packages": dict(_packages()),
        "platform": platform.platform(),
        "processor": processor(),
        "allocator": allocator(),
        "command": command(),
        **more,
    }


def command() -> list[str]:
    """Return the words by which this process was started; `python -m robust_nas` is the console script."""
    program, own = Path(sys.argv[0]), Path(__file__).with_name("__main__.py")
    if program.name != own.name:
        words = [program.name]
    else:
        words = (
            ["robust-nas"] if program.resolve() == own.resolve() else ["python", "-m", program.parent.name]
        )
    return [*words, *sys.argv[1:]]


# What a process runs is what it imported, so all of these are asked once: a trial of a study takes tenths of a second.
@functools.cache
def _packages() -> dict[str, str]:
    """Return the versions of the packages that decide results."""
    packages = {
        name: metadata.version(name) for name in ("torch", "numpy", "safetensors", "pydantic", "pyautoattack")
    }
    for name in ("nni", "pytorch-lightning"):  # an extra
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return packages


@functools.cache
def _code_version() -> str | None:
    """The commit of the checkout this package runs from, with `+` when it has changes; None for an installed one."""
    root = Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(  # noqa: S603 - fixed arguments
                # Without a lock of the index, which would stay in the user's repository where this process is killed.
                [git, "--no-optional-locks", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changes else "")


def allocator() -> str:
    """Return the memory allocator of this process: `tcmalloc` or `jemalloc`, which it was started with, else `system`.

    `unknown` where the system does not list what is mapped into a process.
    """
    try:
        lines = MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown"
    files = {line.rpartition("/")[2] for line in lines}
    for name in ("tcmalloc", "jemalloc"):
        if any(file.startswith(f"lib{name}") for file in files):
            return name
    return "system"


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next tensor, as tcmalloc does; return whether it does from now on.

    By itself it gives each larger tensor back to the system and takes new pages, one fault each, for the next one.
    Does nothing with another allocator, without glibc, and where a variable of the user's tunes glibc's.
    """
    tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if tuned or not sys.platform.startswith("linux") or allocator() != "system":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, size) for option, size in KEPT)


def machine_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or the limit of its container (cgroup)."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or `max`
            found = min(found, int(limit.read_text(encoding="utf-8")))
    return found


@functools.cache
def peak_memory(device: torch.device) -> int:
    """Return the highest memory in bytes that this process has had: of a GPU its tensors, else all of it."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def processor() -> str:
    """The processor's name, as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
