"""Methods by name: built in, by entry point, by path; only what is named is imported."""

import pickle
import subprocess
import sys
from typing import Annotated, ClassVar, Literal

import pytest
from plugins import install

from robust_nas import user_code
from robust_nas.config import Count, Options, check, to_dict, to_yaml
from robust_nas.errors import CodeRefusedError, ConfigError, UnknownMethodError
from robust_nas.registry import Method, Registry, as_recipe
from robust_nas.training import LOSSES
from robust_nas.yaml_reader import parse_yaml


class Colour(Method):
    pale: ClassVar[bool] = False


class Red(Colour):
    name: Literal["red"] = "red"
    depth: Count = 1


class Pink(Red):
    name: Literal["pink"] = "pink"
    pale: ClassVar[bool] = True


class Number(Method):
    pass


PLUGIN = """
from test_registry import Colour
from robust_nas.config import Count

class Green(Colour):
    leaves: Count = 2
"""


def registry():
    names = {"red": f"{__name__}:Red", "pink": f"{__name__}:Pink", "broken": f"{__name__}:Number"}
    return Registry("colour", Colour, "", names, group="robust_nas.test_colours")


def options(found, **keywords):
    class Picture(Options):
        colour: Annotated[Colour, found.field(**keywords)]

    return Picture


@pytest.fixture
def green(tmp_path):
    (tmp_path / "green.py").write_text(PLUGIN)
    return tmp_path / "green.py"


def test_a_value_prints_and_reads_back_as_the_class_of_its_name():
    picture = options(registry())
    value = check(picture, {"colour": {"name": "red", "depth": 3}}, "file")
    assert type(value.colour) is Red
    assert check(picture, to_dict(value), "again") == value
    assert to_yaml(value) == "colour:\n  name: red\n  depth: 3\n"
    assert check(picture, {"colour": "pink"}, "short").colour == Pink()
    assert picture(colour=Red(depth=2)).colour.depth == 2


def test_what_fits_is_asked_of_the_class():
    picture = options(registry(), allows=lambda colour: colour.pale, needs="a pale one is needed")
    with pytest.raises(ConfigError, match="got colour 'red', which does not fit here: a pale one is needed"):
        check(picture, {"colour": {"name": "red"}}, "file")
    with pytest.raises(ConfigError, match="a pale one is needed"):
        picture(colour=Red())


def test_a_default_name_and_presets_that_a_config_may_override():
    picture = options(registry(), default="red", presets={"depth": 7, "unknown": 1})
    assert check(picture, {"colour": {}}, "file").colour == Red(depth=7)
    assert check(picture, {"colour": {"name": "pink", "depth": 2}}, "file").colour == Pink(depth=2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "blue"}, "file: colour: got name 'blue'; allowed: red, pink, broken, or file.py:Class"),
        ({"name": 3}, "file: colour: got name 3; allowed: red, pink"),
        ({}, "file: colour: 'name' is missing; allowed: red"),
        (3, "a mapping with a 'name' is needed"),
        ({"name": "red", "dept": 1}, r"file: colour.dept: unknown key 'dept'; did you mean 'depth'\?"),
        ({"name": "red", "depth": 0}, "file: colour.depth: got 0"),
        ({"name": "broken"}, r"a subclass of .*\.Colour is needed"),
    ],
)
def test_a_mistake_is_placed_and_answered(value, message):
    with pytest.raises(ConfigError, match=message):
        check(options(registry()), {"colour": value}, "file")


def test_a_plugin_by_path_keeps_its_place_as_its_name(green):
    picture = options(registry())
    with user_code.own_config(green.parent):
        value = check(picture, {"colour": {"name": "green.py:Green", "leaves": 5}}, "file")
        assert value == check(picture, {"colour": {"name": f"{green}:Green", "leaves": 5}}, "file")
        with pytest.raises(ConfigError, match=r"colour\.leave: unknown key 'leave'; did you mean 'leaves'"):
            check(picture, {"colour": {"name": "green.py:Green", "leave": 5}}, "file")
    assert value.colour.leaves == 5
    assert value.colour.name == f"{green}:Green"
    assert value.colour.label == "Green"


def test_a_value_of_a_plugin_by_path_can_be_pickled(green):
    with user_code.own_config(green.parent):
        value = registry().make("green.py:Green", leaves=5)
    again = pickle.loads(pickle.dumps(value))  # noqa: S301 - our own
    assert again == value
    assert type(again) is type(value)


def test_a_stranger_s_config_that_names_code_is_refused(green, tmp_path):
    found = registry()
    with user_code.own_config(green.parent):
        found.get("green.py:Green")
    for spec in ("green.py:Green", f"{tmp_path}/other/green.py:Green"):
        with pytest.raises(CodeRefusedError):
            found.get(spec)  # what one config may run, another may not


def test_a_method_is_written_as_a_recipe_has_it():
    assert as_recipe(Red()) == "{name: red}"
    loss = LOSSES.make("trades", attack={"name": "pgd", "eps": 8 / 255, "steps": 7}, beta=5)
    text = as_recipe(loss)
    assert (
        text == "{name: trades, attack: {name: pgd, eps: 8/255, keep: last, steps: 7, loss: kl}, beta: 5.0}"
    )
    assert check(type(loss), parse_yaml(text, ""), "text") == loss


def test_an_installed_plugin_needs_no_line(green, monkeypatch):
    found = registry()
    install(monkeypatch, green.parent, found, "leaf-green", "green:Green")
    assert found.names() == ["red", "pink", "broken", "leaf-green"]
    value = check(options(found), {"colour": {"name": "leaf-green"}}, "file")
    assert (value.colour.name, value.colour.leaves) == ("leaf-green", 2)
    assert check(options(found), to_dict(value), "again").colour == value.colour


def test_a_name_that_two_packages_give_is_refused_with_both(green, tmp_path, monkeypatch):
    found = registry()
    (tmp_path / "olive.py").write_text(PLUGIN.replace("Green", "Olive"))
    install(monkeypatch, tmp_path, found, "leaf", "green:Green")
    assert found.get("leaf").__name__ == "Green"
    install(monkeypatch, tmp_path, found, "leaf", "olive:Olive")
    with pytest.raises(ConfigError) as error:
        found.get("leaf")
    for given in ("'leaf'", "green:Green of leaf_green 1.0", "olive:Olive of leaf_olive 1.0"):
        assert given in str(error.value)


def test_a_plugin_named_like_a_built_in_method_is_refused_with_its_package(green, monkeypatch):
    found = registry()
    install(monkeypatch, green.parent, found, "red", "green:Green")
    with pytest.raises(ConfigError, match=r"given by robust_nas and green:Green of red_green 1.0; rename"):
        found.get("red")
    assert found.get("pink") is Pink


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch, tmp_path):
    found = registry()
    install(monkeypatch, tmp_path, found, "torn", "no_such_module:Torn")
    with pytest.raises(ConfigError, match="its plugin no_such_module:Torn cannot be imported"):
        found.get("torn")
    with pytest.raises(UnknownMethodError, match="a plugin that provides it is not installed"):
        found.get("worn")


def test_only_the_file_of_the_named_method_is_imported():
    code = (
        "import sys; from robust_nas.attacks import ATTACKS; ATTACKS.get('fgsm'); "
        "print([name for name in ('pgd', 'square', 'apgd') if f'robust_nas.attacks.{name}' in sys.modules], "
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"
