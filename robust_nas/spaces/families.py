"""The families of architectures by name, and reading an architecture from a name, a text or a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from robust_nas.config import check, existing_file, expand_path, parse_yaml, read_yaml
from robust_nas.errors import ArchitectureError, ConfigError, UnknownMethodError
from robust_nas.registry import Registry
from robust_nas.spaces.architecture import Architecture
from robust_nas.spaces.files import is_shipped, shipped
from robust_nas.user_code import from_elsewhere

ARCHITECTURE = "architecture.yaml"
MOST_SHOWN = 12  # folders that an error lists
FAMILIES = Registry(
    "family of architectures",
    Architecture,
    "robust_nas.spaces",
    {
        "cell": "cell:CellArchitecture",
        "residual": "residual:ResidualArchitecture",
        "mlp": "mlp:MLPArchitecture",
        "nas-bench-201": "nas_bench_201:NASBench201Architecture",
        "ensemble": "ensemble:EnsembleArchitecture",
        "mean-field": "mean_field:MeanFieldArchitecture",
        "kernel-regression": "kernel_regression:KernelRegressionArchitecture",
    },
    group="robust_nas.families",
    key="type",
)

AnyArchitecture = Annotated[Architecture, FAMILIES.field()]  # a field of options that holds an architecture
MemberArchitecture = Annotated[  # one that an architecture of several networks is made of
    Architecture,
    FAMILIES.field(
        lambda family: bool(family.network) and not family.wraps and not family.learns_by,
        "a member is one network that a training makes, of a family that names its module",
    ),
]


def architecture_from_text(text: str, source: str) -> Architecture:
    """Return the architecture that a YAML or JSON text describes. Raises `ArchitectureError`."""
    tree = parse_yaml(text, source)
    if not isinstance(tree, dict):
        raise ArchitectureError(f"{source}: a mapping of keys to values is needed, got {type(tree).__name__}")
    return _check(tree, source)


def load_architecture(name_or_path: str | Path) -> Architecture:
    """Return a shipped architecture (`arnas`, `rrn-a1`), one that a family knows by name, or one from a file.

    A file is YAML or JSON, or the `architecture.yaml` of a folder, or of `model/` or `search/` in a run folder. Names
    of families are such as `wrn-28-10` and the strings of NAS-Bench-201. Code that a file names needs `allow_code`.
    Raises `ArchitectureError`.
    """
    text = str(name_or_path)
    known = is_shipped("architectures", text)
    path = existing_file(Path(name_or_path) / ARCHITECTURE)
    if path is None and not known:
        inner = architecture_folder(name_or_path)
        path = existing_file(text) if inner is None else inner / ARCHITECTURE
        found = _named(text, FAMILIES.names() if path is None else FAMILIES.built_in)
        if found is not None:
            return found
    if path is None:
        path = shipped("architectures", text, ArchitectureError, also="" if known else names_in_words())
    with from_elsewhere():
        return _check(read_yaml(path), str(path))


def architecture_folder(place: str | Path) -> Path | None:
    """Return the folder of the architecture that a folder holds: itself, `model/` or `search/` in it; None for others.

    A folder with architectures in other folders alone is refused with `ArchitectureError`, which lists them.
    """
    try:
        folder = expand_path(place)
        if not folder.is_dir():
            return None
    except (ConfigError, OSError, ValueError):  # no place that can be
        return None
    for inner in (folder, folder / "model", folder / "search"):
        if existing_file(inner / ARCHITECTURE):
            return inner
    found = sorted(path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{ARCHITECTURE}"))
    if found:
        names = ", ".join(map(str, found[:MOST_SHOWN]))
        more = f" and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
        raise ArchitectureError(
            f"{folder}: holds no {ARCHITECTURE}; name one of the folders in it: {names}{more}"
        )
    return None


def named_architecture(name: str) -> Architecture | None:
    """Return the architecture that a family knows by this name, None where none does.

    A plugin is imported only where no built-in family knows the name; one that cannot be imported knows none.
    """
    return _named(name, FAMILIES.names())


def known_architecture(name: str) -> Architecture | None:
    """Return the architecture that ships under a name, or that a family knows by it; None: no file is looked for."""
    return load_architecture(name) if is_shipped("architectures", name) else named_architecture(name)


def _named(name: str, families: Iterable[str]) -> Architecture | None:
    found = (family.named(name) for family in _imported(families))
    return next((architecture for architecture in found if architecture is not None), None)


def names_in_words() -> str:
    """Return the names that `named_architecture` reads, in words."""
    return "; or ".join(family.named_as for family in _imported(FAMILIES.names()) if family.named_as)


def _imported(families: Iterable[str]) -> Iterator[type[Architecture]]:
    """Yield the families that can be imported, each imported when it is asked for."""
    for name in families:
        try:
            yield FAMILIES.get(name)
        except ConfigError:  # a broken plugin; a config that names its `type` gets the error
            if name in FAMILIES.built_in:
                raise


def _check(tree: dict[str, Any], source: str) -> Architecture:
    """Return the architecture of the family that the tree's `type` names."""
    found = tree.get("type")
    if not isinstance(found, str):
        wrong = "missing, and it has no default" if "type" not in tree else f"got {found!r}"
        raise ArchitectureError(f"{source}: type: {wrong}; allowed: {', '.join(FAMILIES.names())}")
    try:
        family = FAMILIES.get(found)
    except UnknownMethodError as error:
        raise ArchitectureError(f"{source}: {error}") from None
    type_ = family.model_fields["type"].default  # of user code, with the absolute path
    return check(family, {**tree, "type": type_}, source, ArchitectureError)
