"""Methods by name: an entry is imported only when a config names it.

A method is one class in one file: its options, which are read without torch, and its algorithm. The registry of a room
maps names to `file:Class`; other packages add theirs by an entry point of the registry's group, users by
`file.py:Class` in a config. What other code needs to know of a method is an attribute of its class.

    ATTACKS = Registry("attack", Attack, "robust_nas.attacks", {"pgd": "pgd:PGD"}, group="robust_nas.attacks")

    class Step(Options):
        attack: Annotated[Attack, ATTACKS.field(lambda attack: attack.for_training, "it is not fit for training")]
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Generic, Literal, TypeVar

import yaml
from pydantic import GetCoreSchemaHandler, SerializationInfo, ValidationInfo, create_model
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from robust_nas.config import Options, suggestion, to_yaml_dict
from robust_nas.errors import CodeRefusedError, ConfigError, UnknownMethodError
from robust_nas.user_code import is_code, resolve


class Method(Options):
    """Base of every method. `name` is what a config calls it; the registry fills it in for a plugin."""

    not_preset: ClassVar[frozenset[str]] = frozenset()  # keys that no config around it gives it

    name: str = ""  # built-in name, or file.py:Class

    @property
    def label(self) -> str:
        """Return a short name for tables and progress bars."""
        return self.name.rpartition(":")[2] or type(self).__name__.lower()


M = TypeVar("M", bound=Options)
# Of every plugin that was asked for: its name, and its `module:Class`, package and version.
_ORIGINS: dict[type[Options], tuple[str, str]] = {}


def methods_in(value: object, place: str, kind: type[M]) -> Iterator[tuple[str, M]]:
    """Yield every method of a kind among options with its place, such as `training.loss`; not those within another."""
    if isinstance(value, kind):
        yield place, value
    elif isinstance(value, Options):
        for key, inner in value:
            yield from methods_in(inner, f"{place}.{key}", kind)
    elif isinstance(value, tuple | list):
        for number, inner in enumerate(value):
            yield from methods_in(inner, f"{place}.{number}", kind)


def as_recipe(method: Method) -> str:
    """Return a method as a recipe has it, on one line: its name, and the options that differ from their defaults."""
    text = yaml.safe_dump(
        _changed(method), default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text.strip()


def _changed(value: Options) -> dict[str, Any]:
    plain, found = to_yaml_dict(value), {}
    for key, inner in value:
        default = type(value).model_fields[key].get_default(call_default_factory=True)
        if isinstance(value, Method) and key == "name":
            found[key] = plain[key]
        elif key in plain and inner != default:
            found[key] = _changed(inner) if isinstance(inner, Options) else plain[key]
    return found


def plugins_in(value: object) -> dict[str, str]:
    """Return the methods among options that an installed package gave: name -> `module:Class of package version`."""
    found: dict[str, str] = {}
    if isinstance(value, Options):
        if type(value) in _ORIGINS:
            name, origin = _ORIGINS[type(value)]
            found[name] = origin
        for _, inner in value:
            found |= plugins_in(inner)
    elif isinstance(value, tuple | list | Mapping):
        for inner in value.values() if isinstance(value, Mapping) else value:
            found |= plugins_in(inner)
    return found


@dataclass(eq=False)
class Registry(Generic[M]):
    """The methods of a room. `built_in` maps names to `file:Class`, seen from `package`."""

    kind: str  # what a method is called in errors, such as "attack"
    base: type[M]
    package: str
    built_in: Mapping[str, str]
    group: str  # of entry points
    key: str = "name"  # the key of a config that holds the name
    renamed: Mapping[str, str] = field(default_factory=dict)  # old name -> present name, for the error
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # name -> what it is instead, for the error
    _found: dict[str, type[M]] = field(default_factory=dict, repr=False)

    @cached_property
    def _plugins(self) -> dict[str, dict[str, EntryPoint]]:
        """The plugins of each name, by `module:Class`; one that is installed twice is one plugin."""
        found: dict[str, dict[str, EntryPoint]] = {}
        for entry in _installed().select(group=self.group):
            found.setdefault(entry.name, {})[entry.value] = entry
        return found

    def plugins(self) -> dict[str, str]:
        """Return the installed plugins by name: their `module:Class`, package and version; none is imported."""
        return {name: " and ".join(map(_origin, entries.values())) for name, entries in self._plugins.items()}

    def names(self) -> list[str]:
        """Return every known name: the built-in ones in their order, then those of installed plugins, sorted."""
        return [*self.built_in, *sorted(self._plugins.keys() - self.built_in.keys())]

    def get(self, name: str) -> type[M]:
        """Return the class of a name; nothing but its file is imported.

        Raises `UnknownMethodError` for a name that nobody has, and `ConfigError` for a plugin that is no such method.
        """
        if is_code(name):  # asked for every time: what one config may run, a stranger's folder may not
            absolute, found = resolve(name)
            return _named(self._checked(name, found), self.key, absolute)
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def _load(self, name: str) -> type[M]:
        plugins = list(self._plugins.get(name, {}).values())
        if len(plugins) + (name in self.built_in) > 1:
            given = " and ".join([*(["robust_nas"] if name in self.built_in else []), *map(_origin, plugins)])
            raise ConfigError(
                f"{self.kind} {name!r}: is given by {given}; rename the entry point of a package, or uninstall it"
            )
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            return self._checked(
                name, getattr(importlib.import_module(f"{self.package}.{module}".lstrip(".")), attribute)
            )
        if plugins:
            try:
                found = plugins[0].load()
            except Exception as error:  # whatever a foreign package raises when it is imported
                raise ConfigError(
                    f"{self.kind} {name!r}: its plugin {plugins[0].value} cannot be imported: {error}"
                ) from error
            named = _named(self._checked(name, found), self.key, name)
            _ORIGINS[named] = (name, _origin(plugins[0]))
            return named
        if name in self.renamed:
            raise UnknownMethodError(f"got {self.key} {name!r}; is now {self.renamed[name]!r}")
        if name in self.elsewhere:
            raise UnknownMethodError(f"got {self.key} {name!r}; it is {self.elsewhere[name]}")
        raise UnknownMethodError(
            f"got {self.key} {name[:200]!r}; allowed: {', '.join(self.names())}, or file.py:Class of your own "
            f"(or a plugin that provides it is not installed){suggestion(name, self.names())}"
        )

    def _checked(self, name: str, found: object) -> type[M]:
        if not (isinstance(found, type) and issubclass(found, self.base)):
            what = f"class {found.__name__}" if isinstance(found, type) else type(found).__name__
            raise ConfigError(
                f"{self.kind} {name!r}: a subclass of {self.base.__module__}.{self.base.__name__} is needed, got {what}"
            )
        return found

    def make(self, name: str, **options: Any) -> M:
        """Return a method by name with these options."""
        return self.get(name)(**options)

    def field(
        self,
        allows: Callable[[type[M]], bool] | None = None,
        needs: str = "",
        *,
        default: str | None = None,
        presets: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    ) -> MethodField:
        """Return what makes a field of options hold a method of this registry, to be put into `Annotated`.

        `allows` says which classes fit here, `needs` says it in words. `default` is the name where a config gives none;
        `presets` are options that a config may override, or what gives them when a config is read.
        """
        return MethodField(self, allows, needs, default, presets or {})


@cache
def _installed() -> Any:  # typed as a deprecated class until Python 3.12
    """The entry points of all packages, which take 20 ms to find."""
    return entry_points()


def _origin(plugin: EntryPoint) -> str:
    package = f" of {plugin.dist.name} {plugin.dist.version}" if plugin.dist else ""
    return f"{plugin.value}{package}"


@cache
def _named(found: type[M], key: str, name: str) -> type[M]:
    """Return the class of a plugin under the name by which configs call it; its values can be pickled."""
    if found.model_fields[key].default == name:
        return found
    named: Any = {key: (Literal[name], name)}
    made = create_model(found.__name__, __base__=found, __module__=found.__module__, **named)
    made.__reduce__ = lambda value: (_restored, (found, key, name, value.__getstate__()))  # type: ignore[assignment,method-assign]
    return made


def _restored(found: type[Options], key: str, name: str, state: dict[Any, Any]) -> Options:
    value: Options = object.__new__(_named(found, key, name))
    value.__setstate__(state)
    return value


@dataclass(frozen=True, eq=False)  # hashed by identity: typing hashes it in `Annotated[...] | None`
class MethodField:
    """A pydantic field that holds a method: its class is chosen by name, and checks its own options."""

    registry: Registry[Any]
    allows: Callable[[type[Any]], bool] | None
    needs: str
    default: str | None
    presets: Mapping[str, Any] | Callable[[], Mapping[str, Any]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._parse,
            serialization=core_schema.plain_serializer_function_ser_schema(_dump, info_arg=True),
        )

    def _parse(self, value: Any, info: ValidationInfo) -> Any:
        registry = self.registry
        if isinstance(value, registry.base):
            self._refuse_unfit(type(value), getattr(value, registry.key))
            return value
        if isinstance(value, str):
            value = {registry.key: value}
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "method_type", "a mapping with a {key} is needed", {"key": repr(registry.key)}
            )
        name = value.get(registry.key, self.default)
        if not isinstance(name, str):
            got = f"got {registry.key} {name!r}"
            if registry.key not in value:
                got = f"{registry.key!r} is missing" + (
                    f" among {', '.join(map(repr, value))}" if value else ""
                )
            raise _problem(f"{got}; allowed: {', '.join(self.names())}, or file.py:Class of your own")
        try:
            chosen = registry.get(name)
        except UnknownMethodError as error:
            raise _problem(str(error)) from None
        except CodeRefusedError:
            raise
        except ConfigError as error:
            raise _problem(str(error)) from None
        self._refuse_unfit(chosen, name)
        presets = self.presets() if callable(self.presets) else self.presets
        fields = chosen.model_fields.keys() - getattr(chosen, "not_preset", ())
        known = {key: preset for key, preset in presets.items() if key in fields}
        options = {key: given for key, given in value.items() if key != registry.key}
        fixed = {registry.key: chosen.model_fields[registry.key].default}
        return chosen.model_validate({**fixed, **known, **options}, context=info.context)

    def _refuse_unfit(self, chosen: type[Any], name: str) -> None:
        if self.allows is not None and not self.allows(chosen):
            raise _problem(
                f"got {self.registry.kind} {name!r}, which does not fit here: {self.needs}; "
                f"allowed: {', '.join(self.names())}"
            )

    def names(self) -> list[str]:
        """Return the known names that fit here; asking imports their files."""
        names = self.registry.names()
        if self.allows is None:
            return names
        return [name for name in names if self._fits(name)]

    def _fits(self, name: str) -> bool:
        try:
            return self.allows is None or self.allows(self.registry.get(name))
        except ConfigError:  # a plugin that is broken
            return False


def _problem(text: str) -> PydanticCustomError:
    return PydanticCustomError("method", "{text}", {"text": text})


def _dump(value: Options, info: SerializationInfo) -> dict[str, Any]:
    return value.model_dump(mode=info.mode, context=info.context)
