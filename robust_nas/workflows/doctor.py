"""What this machine has of what the toolkit uses: packages, devices, datasets, plugins, disk; what adds the rest."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from robust_nas.config import suggestion
from robust_nas.data import DATASETS
from robust_nas.environment import allocator, machine_memory
from robust_nas.errors import ConfigError, RobustNASError
from robust_nas.registries import all_registries

PACKAGE = "robust-nas"
GROUPS = "robust_nas."  # what the groups of entry points begin with
TORCH = "pip install -c constraints.txt torch; on a machine with a GPU its own build, without constraints.txt"
LEAST_DISK = 1e9  # bytes that are free, below which a run may end halfway
NOT_FOR_USERS = ("dev",)  # extras

State = Literal["ok", "missing", "note"]


class Finding(NamedTuple):
    """One thing: what it is, how it is, what was found, and what adds or mends it."""

    what: str
    state: State  # missing: something of the toolkit cannot be used; note: worth knowing
    found: str
    remedy: str = ""
    needed: bool = False  # whether nothing works without it


def doctor(folder: Path | str = ".") -> list[Finding]:
    """Return what was found on this machine; `folder` is where results would be written. Nothing is changed."""
    return [
        Finding("python", "ok", platform.python_version()),
        *_core(),
        *_torch(),
        *_machine(),
        *_extras(),
        *_datasets(),
        *_plugins(),
        _disk(Path(folder)),
    ]


def _requirements() -> list[Requirement]:
    try:
        return [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        return []


def _absent(requirement: Requirement) -> str | None:
    """Return what is wrong with an installed package, or None."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{requirement.name} {version}, {requirement.specifier} is needed"


def _core() -> list[Finding]:
    requirements = [one for one in _requirements() if one.marker is None]
    if not requirements:
        remedy = "pip install -c constraints.txt -e . (or scripts/setup.sh)"
        return [
            Finding(
                "packages", "note", f"{PACKAGE} itself is not installed, it is run from its folder", remedy
            )
        ]
    wrong = [(one, problem) for one in requirements if (problem := _absent(one)) is not None]
    if not wrong:
        return [Finding("packages", "ok", f"all {len(requirements)} that {PACKAGE} needs")]
    return [
        Finding(
            f"package {one.name}",
            "missing",
            problem,
            TORCH if one.name == "torch" else f"pip install -c constraints.txt '{one}'",
            needed=True,
        )
        for one, problem in wrong
    ]


def _torch() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:  # a shared library that is not there
        return [Finding("torch", "missing", f"cannot be imported: {error}", TORCH, needed=True)]
    found = [Finding("torch", "ok", torch.__version__)]
    count = torch.cuda.device_count()
    names = [torch.cuda.get_device_name(number) for number in range(count)]
    where = "; ".join(f"cuda:{number} {name}" for number, name in enumerate(names))
    if where:
        return [*found, Finding("device", "ok", where)]
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    why = "this torch is built for a GPU and sees none" if built else "this torch is built for the CPU"
    remedy = "" if built else "with a GPU, install the build of torch for it"
    return [*found, Finding("device", "note", f"cpu; {why}", remedy)]


def _machine() -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = machine_memory() / 2**30
    own = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    threads = ", ".join(f"{name}={value}" for name, value in own.items())
    found = [
        Finding("cores", "ok", f"{cores}, {memory:.1f} GiB of memory{f'; {threads}' if threads else ''}")
    ]
    if allocator() == "system":
        remedy = (
            "apt install libtcmalloc-minimal4, then source scripts/allocator.sh (docs/how-to/execution.md)"
        )
        return [*found, Finding("allocator", "note", "the system's; tcmalloc is faster on a CPU", remedy)]
    return [*found, Finding("allocator", "ok", allocator())]


def _extras() -> list[Finding]:
    findings = []
    wanted: dict[str, list[Requirement]] = {}
    for requirement in _requirements():
        if requirement.marker is None:
            continue
        for extra in metadata.metadata(PACKAGE).get_all("Provides-Extra") or ():
            if requirement.marker.evaluate({"extra": extra}) and requirement.name != PACKAGE:
                wanted.setdefault(extra, []).append(requirement)
    for extra, requirements in sorted(wanted.items()):
        if extra in NOT_FOR_USERS:
            continue
        wrong = [problem for one in requirements if (problem := _absent(one)) is not None]
        remedy = f"pip install -c constraints.txt '{PACKAGE}[{extra}]'"
        names = ", ".join(one.name for one in requirements)
        state: State = "missing" if wrong else "ok"
        findings.append(Finding(f"extra {extra}", state, "; ".join(wrong) or names, remedy if wrong else ""))
    return findings


def _datasets() -> list[Finding]:
    findings = []
    for name in DATASETS.names():
        what = f"data {name}"
        try:
            reader = DATASETS.get(name)()
        except RobustNASError as error:  # a plugin that cannot be imported; a reader that needs options
            findings.append(Finding(what, "note", str(error)))
            continue
        if not reader.stored:
            continue
        if not reader.takes_path:
            findings.append(Finding(what, "ok", reader.where))
        elif reader.default_path is None:
            findings.append(Finding(what, "note", f"from data.path: {reader.files}", reader.where))
        else:
            try:
                findings.append(Finding(what, "ok", str(reader.location(None))))
            except RobustNASError:
                findings.append(Finding(what, "missing", f"nothing at {reader.default_path}", reader.where))
    return findings


def _plugins() -> list[Finding]:
    """Return every method of an installed package, and every entry point in a group that nobody reads."""
    findings = []
    registries = {registry.group: registry for registry in all_registries()}
    for registry in registries.values():
        for name, origin in sorted(registry.plugins().items()):
            what = f"plugin {name}"
            try:
                registry.get(name)
            except ConfigError as error:
                findings.append(Finding(what, "note", str(error)))
            else:
                findings.append(Finding(what, "ok", f"{registry.kind}: {origin}"))
    for group in sorted(metadata.entry_points().groups):
        if not group.startswith(GROUPS) or group in registries:
            continue
        for entry in metadata.entry_points(group=group):
            said = (
                f"{entry.value} is in the group {group!r}, which nobody reads{suggestion(group, registries)}"
            )
            remedy = "correct the group in the package's pyproject.toml, and install it again"
            findings.append(Finding(f"plugin {entry.name}", "note", said, remedy))
    return findings


def _disk(folder: Path) -> Finding:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    said = f"{free / 1e9:.1f} GB free at {folder.absolute()}"
    if not os.access(folder, os.W_OK):
        return Finding(
            "disk", "missing", f"{folder.absolute()} may not be written", "choose another with --out"
        )
    if free < LEAST_DISK:
        return Finding("disk", "note", said, "remove runs that are no longer needed, or use --out")
    return Finding("disk", "ok", said)
