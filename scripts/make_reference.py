"""Write docs/reference/ from the code: every key of every config, every method, every command.

    python scripts/make_reference.py          # write the pages
    python scripts/make_reference.py --check  # exit with 1, and name the pages, where one is out of date

The pages are `configuration.md` (config files and their sections), `options/*.md` (one page a kind of method) and
`command-line.md` and `python-api.md`. Nothing here imports torch. Plugins that happen to be installed are left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from reference_api import python_api
from reference_commands import GENERATED, cell, code, command_line, wrapped
from reference_commands import page as joined

from robust_nas.config import Options, print_number
from robust_nas.descriptions import description
from robust_nas.registries import all_registries
from robust_nas.registry import Method, MethodField, Registry
from robust_nas.schema import Definitions

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
CONFIGURATION = "configuration.md"
LARGEST = 2**62  # bounds beyond it are those of the memory, not of the field
FILES = {  # the files that a user writes: the config, and the commands that read it
    "robust_nas.workflows.config:RunConfig": "A recipe: `run`, `search`, `train`, `compress --recipe`",
    "robust_nas.workflows.config:EvaluationConfig": "The config of `evaluate`",
    "robust_nas.workflows.config:CompressionConfig": "The config of `compress`",
    "robust_nas.workflows.attack_config:AttackTrainingConfig": "The config of `attack train`",
    "robust_nas.workflows.defence_config:DefenceConfig": "The config of `defend`",
    "robust_nas.workflows.distill_config:DistillConfig": "The config of `distill`",
    "robust_nas.workflows.rank_candidates:RankConfig": "The config of `rank`",
    "robust_nas.studies.config:StudyConfig": "A study: `study plan`, `study run`",
    "robust_nas.studies.comparison:Comparison": "The key `compare` of a recipe: `compare`",
    "robust_nas.evaluation.options:Suite": "A suite of attacks: `evaluate --suite`",
    "robust_nas.spaces:CellSpace": "A search space: `space.name`, `spaces`",
}
ABOUT = """\
A dotted key such as `training.loss.beta` leads through the sections below: `training` is a key of the recipe, `loss`
one of its section. *Required* keys have no default; the `eps` and `norm` of an attack are those of `threat_model` where
a file has it. A number may be written `8/255` or `1e-3`.

In the column *type*, a link leads to the keys of a section or of a kind of method. A method is written as its name
(`loss: trades`) or as a mapping (`loss: {name: trades, beta: 6}`), and one of your own as `file.py:Class`
([Extending](../how-to/extending.md)). How files, overrides and bases work is in [Configs](../how-to/configs.md)."""


def named(target: str) -> Any:
    """Return what `module:NAME` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def page_of(registry: Registry[Any]) -> str:
    """Return the page of a kind of method, seen from docs/reference/."""
    return f"options/{registry.group.rpartition('.')[2].replace('_', '-')}.md"


def anchor(heading: str) -> str:
    """Return the anchor that a heading gets on a git host and in the built pages, for the headings of these pages."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


class Pages:
    """The pages that were made, and where the keys of each model are described."""

    def __init__(self) -> None:
        """Give every model that a file or a method holds its place."""
        self.registries = all_registries()
        self.places: dict[type[BaseModel], tuple[str, str]] = {}  # model -> page, heading
        self.sections: dict[str, list[type[BaseModel]]] = {}  # page -> the models that are sections there
        for registry in self.registries:
            self.places[registry.base] = (page_of(registry), "Keys of all")
            for name in registry.built_in:
                self.places[registry.get(name)] = (page_of(registry), name)
        for target in FILES:
            self.places[named(target)] = (CONFIGURATION, named(target).__name__)
        for target in FILES:
            self._place(CONFIGURATION, named(target))
        for registry in self.registries:
            for name in registry.built_in:
                self._place(page_of(registry), registry.get(name))

    def _place(self, page: str, model: type[BaseModel]) -> None:
        for field in model.model_fields.values():
            for inner in _models_in(field.annotation):
                if inner not in self.places:
                    self.places[inner] = (page, inner.__name__)
                    self.sections.setdefault(page, []).append(inner)
                    self._place(page, inner)

    def all(self) -> dict[str, str]:
        """Return the text of every page by its path from docs/reference/."""
        found = {
            CONFIGURATION: self.configuration(),
            "command-line.md": command_line(),
            "python-api.md": python_api(),
        }
        return {**found, **{page_of(each): self.methods(each) for each in self.registries}}

    def configuration(self) -> str:
        """Return the page of the config files and their sections."""
        rows = [
            f"| [{named(each).__name__}](#{named(each).__name__.lower()}) | {FILES[each]} |" for each in FILES
        ]
        kinds = [f"- [{each.kind}]({page_of(each)})" for each in self.registries]
        parts = [GENERATED, "# Configuration", ABOUT]
        parts += ["\n".join(["| keys | file |", "|---|---|", *rows])]
        parts += ["Kinds of methods, each with a page of its options:", "\n".join(kinds)]
        parts += [
            "## Files",
            *(part for each in FILES for part in self.section(CONFIGURATION, named(each), "###")),
        ]
        parts += ["## Sections", *self.sections_of(CONFIGURATION)]
        return joined(parts)

    def sections_of(self, page: str) -> list[str]:
        """Return the sections of a page that are no methods, sorted by name."""
        models = sorted(self.sections.get(page, []), key=lambda model: model.__name__)
        return [part for model in models for part in self.section(page, model, "###")]

    def methods(self, registry: Registry[Any]) -> str:
        """Return the page of a kind of method: the keys of all, then of each its own."""
        page, base = page_of(registry), registry.base
        title = registry.group.rpartition(".")[2].replace("_", " ").capitalize()
        parts = [GENERATED, f"# {title}", _first_line(base)]
        parts += [
            wrapped(
                f"A config names one by `{registry.key}`; plugins add theirs by the entry point `{registry.group}`. "
                "Back to [Configuration](../configuration.md)."
            )
        ]
        parts += ["## Keys of all", self.table(page, base, base.model_fields)]
        for name in registry.built_in:
            model = registry.get(name)
            own = [key for key in model.model_fields if key != registry.key and not _same(model, base, key)]
            parts += [f"## {name}", _first_line(model)]
            parts += [self.table(page, model, own) if own else "It has no keys of its own."]
        if more := self.sections_of(page):
            parts += ["## Sections", *more]
        return joined(parts)

    def section(self, page: str, model: type[BaseModel], level: str) -> list[str]:
        """Return a heading, the model's first line, and the table of its keys."""
        keys = [*model.model_fields]
        return [f"{level} {model.__name__}", _first_line(model), self.table(page, model, keys)]

    def table(self, page: str, model: type[BaseModel], keys: Iterable[str]) -> str:
        """Return the table of some keys of a model."""
        rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
        for key in keys:
            field = model.model_fields[key]
            kind = self.kind(page, field.annotation, field.metadata)
            rows.append(f"| `{key}` | {kind} | {_default(field)} | {cell(description(model, key))} |")
        return "\n".join([*rows, *self._short_forms(page, model)])

    def _short_forms(self, page: str, model: type[BaseModel]) -> Iterator[str]:
        if not issubclass(model, Options):
            return
        for key, kind in model.short_forms().items():
            if key not in model.model_fields:
                words = [mark.description for mark in typing.get_args(kind) if isinstance(mark, FieldInfo)]
                text = cell("".join(filter(None, words)))
                yield f"| `{key}` | {self.kind(page, kind, ())} | | {text or 'short form of the keys above'} |"

    def kind(self, page: str, annotation: Any, metadata: Sequence[Any]) -> str:
        """Return the type of a key in words, with links to the keys of sections and methods."""
        return _words(_Linked(self, page).of(annotation, metadata)) or "see the meaning"

    def link(self, page: str, model: type[BaseModel]) -> str:
        """Return a link to the keys of a model."""
        if model not in self.places:
            return f"`{model.__name__}`"
        target, heading = self.places[model]
        return f"[{model.__name__}]({_path(page, target)}#{anchor(heading)})"


class _Linked(Definitions):
    """The schema of a key, with a link where a schema would have the keys of a section or a method."""

    def __init__(self, pages: Pages, page: str) -> None:
        super().__init__()
        self.pages, self.page = pages, page

    def reference(self, model: type[BaseModel]) -> dict[str, Any]:
        return {"words": self.pages.link(self.page, model)}

    def of_method(self, field: MethodField) -> dict[str, Any]:
        return {"words": f"[{field.registry.kind}]({_path(self.page, page_of(field.registry))})"}


def _words(schema: Mapping[str, Any]) -> str:
    """Return a schema as a reader of a table wants it."""
    if "words" in schema:
        return str(schema["words"])
    if "anyOf" in schema:
        if {"type": "boolean"} in schema["anyOf"]:
            return "true or false"
        found = [_words(each) for each in schema["anyOf"] if "pattern" not in each]
        return " or ".join(dict.fromkeys(filter(None, found)))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    kind = schema.get("type", "")
    if kind == "array":
        if "prefixItems" in schema:
            return "[" + ", ".join(_words(each) or "value" for each in schema["prefixItems"]) + "]"
        return f"list of {_words(schema['items']) or 'values'}"
    if kind == "object":
        return f"mapping to {_words(schema['additionalProperties']) or 'values'}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [
        f"{sign} {schema[word]:.12g}"
        for word, sign in bounds.items()
        if word in schema and schema[word] < LARGEST
    ]
    plain = {"string": "text", "null": "`null`"}.get(kind, kind)
    return " ".join([plain, ", ".join(limits)]).strip()


def _default(field: FieldInfo) -> str:
    if field.default_factory is None and field.default is PydanticUndefined:
        return "*required*"
    if field.default_factory is not None and field.default_factory_takes_validated_data:
        return "from other keys"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults" if not value.model_fields_set else code(_flow(value))
    return code(_flow(value))


def _flow(value: Any) -> str:
    """Return a value as one line of YAML."""
    if isinstance(value, BaseModel):
        shown = value.model_fields_set | ({"name"} if isinstance(value, Method) else set())
        return _flow({key: inner for key, inner in value if key in shown})
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        return str(print_number(value))
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value) or '""'


def _first_line(model: type[BaseModel]) -> str:
    """Return the first paragraph of a class's docstring as one line, its own or an inherited one's."""
    text = (model.__doc__ or "").strip().partition("\n\n")[0].partition("\n\n")[0]
    return wrapped(re.sub(r"\s+", " ", text).replace("<", "&lt;"))


def _same(model: type[BaseModel], base: type[BaseModel], key: str) -> bool:
    """Return whether a key of a method is that of its kind, with the same type, default and meaning."""
    if key not in base.model_fields:
        return False
    own, theirs = model.model_fields[key], base.model_fields[key]
    alike = own.annotation == theirs.annotation and _default(own) == _default(theirs)
    return alike and description(model, key) == description(base, key)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _path(page: str, target: str) -> str:
    """Return the path of a page seen from another one; both are given from docs/reference/."""
    if page == target:
        return ""
    own, theirs = Path(page), Path(target)
    if own.parent == theirs.parent:
        return theirs.name
    return f"../{target}" if own.parent.name else target


def out_of_date(pages: Mapping[str, str], folder: Path) -> list[str]:
    """Return the pages that the code would write otherwise, and those that it would not write, sorted."""
    there = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.md")}
    written = {name for name, text in there.items() if text.startswith(GENERATED)}
    return sorted(name for name in written | pages.keys() if there.get(name) != pages.get(name))


def main() -> int:
    """Write the pages, or check them; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where a page is out of date"
    )
    arguments = parser.parse_args()
    pages = Pages().all()
    stale = out_of_date(pages, FOLDER)
    if arguments.check:
        for name in stale:
            print(f"docs/reference/{name} is out of date: run scripts/make_reference.py", file=sys.stderr)
        return int(bool(stale))
    for name in stale:
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in pages:
            path.write_text(pages[name])
        else:
            path.unlink()
    print(f"{len(pages)} pages, {len(stale)} of them changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
