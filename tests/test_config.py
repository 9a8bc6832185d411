"""Loading, overriding, checking and printing of YAML: round trips, and every kind of mistake."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, create_model

import robust_nas
from robust_nas.config import (
    MAX_YAML_BYTES,
    Count,
    CountOrZero,
    Fraction01,
    Number,
    Options,
    Positive,
    apply_overrides,
    check,
    config_hash,
    existing_file,
    json_copy,
    merge,
    parse_number,
    parse_yaml,
    print_number,
    read_yaml,
    text_field,
    to_yaml,
)
from robust_nas.errors import ConfigError
from robust_nas.registry import Method, Registry


class Colour(Method):
    pass


class Red(Colour):
    name: Literal["red"] = "red"
    depth: Count = 1


class Blue(Colour):
    name: Literal["blue"] = "blue"
    rate: Positive = 0.1


NAMES = {"red": f"{__name__}:Red", "blue": f"{__name__}:Blue"}
COLOURS = Registry("colour", Colour, "", NAMES, group="robust_nas.test_colours")


class Sample(Options):
    eps: Number = 0.5
    steps: Count = 3
    start: CountOrZero = 0
    share: Fraction01 = 0.0
    colour: Annotated[Colour, COLOURS.field()] = Red()
    colours: tuple[Annotated[Colour, COLOURS.field()], ...] = ()
    note: str | None = None


def refusal(tree: object, **keywords: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(Sample, tree, "file.yaml", **keywords)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("1e-3", 1e-3), ("0.25", 0.25), (" 2 / 255 ", 2 / 255), (3, 3.0), ("-1", -1.0)],
)
def test_numbers_are_read_as_people_write_them(text: object, value: float) -> None:
    assert check(Sample, {"eps": text}, "file.yaml").eps == value


@pytest.mark.parametrize(
    "text", ["1/0", "a/b", "8/255/2", "", "/", "eight", True, "nan", "inf", "1e999", None, [1], 10**400]
)
def test_what_is_no_number_is_refused(text: object) -> None:
    assert refusal({"eps": text}).startswith("file.yaml: eps: got ")


def test_booleans_are_neither_numbers_nor_integers() -> None:
    assert "got True" in refusal({"eps": True})
    assert "an integer is needed" in refusal({"steps": True})
    with pytest.raises(ValueError, match="a number is needed"):
        parse_number(False)


def test_every_multiple_of_a_grey_level_prints_and_reads_back_exactly() -> None:
    for levels in range(256):
        assert parse_number(print_number(levels / 255)) == levels / 255


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_prints_and_reads_back_exactly(value: float) -> None:
    assert parse_number(print_number(value)) == value
    sample = Sample(eps=value)
    assert check(Sample, parse_yaml(to_yaml(sample), "printed"), "printed") == sample


def test_grey_levels_stay_readable_and_short_decimals_stay_decimals() -> None:
    assert print_number(8 / 255) == "8/255"
    assert print_number(0.2) == 0.2  # 51/255, which people write as 0.2


colours = st.one_of(
    st.builds(Red, depth=st.integers(1, 9)), st.builds(Blue, rate=st.floats(1e-300, 1e300, allow_nan=False))
)


@given(
    st.builds(
        Sample,
        eps=st.floats(-1e9, 1e9),
        steps=st.integers(1, 10**18),
        share=st.floats(0, 1, exclude_max=True),
        colour=colours,
        colours=st.lists(colours, max_size=3).map(tuple),
        note=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    )
)
def test_a_printed_value_reads_back_equal_with_the_same_hash(sample: Sample) -> None:
    again = check(Sample, parse_yaml(to_yaml(sample), "printed"), "printed")
    assert again == sample
    assert config_hash(again) == config_hash(sample)
    assert hash(again) == hash(sample)


def test_the_hash_of_a_config_is_the_same_on_every_machine_and_changes_with_every_key() -> None:
    assert config_hash(Sample()) == config_hash(Sample(eps=0.5)) == "7ef4256bc09d8e22"
    assert len({config_hash(Sample()), config_hash(Sample(steps=4)), config_hash(Sample(note=""))}) == 3


def test_an_unknown_key_is_named_with_the_key_that_was_meant() -> None:
    message = refusal({"step": 4})
    assert "unknown key 'step'" in message
    assert "did you mean 'steps'?" in message
    assert "allowed: eps, steps, start" in message
    assert "colour.deph" in refusal({"colour": {"name": "red", "deph": 1}})
    assert "did you mean 'depth'?" in refusal({"colours": [{"name": "red", "deph": 1}]})


class Device(Options):
    norm: Literal["linf", "l2"] = "linf"
    device: Annotated[str, text_field(r"^(cpu|cuda)$", "cpu and cuda are taken")] = "cpu"


def test_the_name_or_value_that_was_meant_is_proposed() -> None:
    assert "got name 'bleu'; allowed: red, blue" in refusal({"colours": [{"name": "bleu"}]})
    assert "; did you mean 'blue'?" in refusal({"colours": [{"name": "bleu"}]})
    with pytest.raises(ConfigError, match=r"norm: got 'lnif'; allowed: linf, l2; did you mean 'linf'\?$"):
        check(Device, {"norm": "lnif"}, "file")
    with pytest.raises(ConfigError, match="norm: got 'x'; allowed: linf, l2"):
        check(Device, {"norm": "x"}, "file")


@pytest.mark.parametrize(
    ("kind", "value", "needed"),
    [
        (int, "many", "a whole number is needed"),
        (int, 1.5, "a whole number is needed"),
        (float, [1], "a number is needed"),
        (bool, 3, "true or false is needed"),
        (str, 3, "a text is needed"),
        (Annotated[int, Field(le=3)], 4, "at most 3 is allowed"),
        (Annotated[float, Field(lt=1)], 1, "less than 1.0 is needed"),
        (Literal[1, 2, 4], 3, "allowed: 1, 2, 4"),
    ],
)
def test_a_value_of_another_kind_is_answered_by_what_is_needed(kind: Any, value: Any, needed: str) -> None:
    model = create_model("Own", __base__=Options, key=(kind, ...))
    with pytest.raises(ConfigError) as caught:
        check(model, {"key": value}, "override 'key=1'")
    assert str(caught.value) == f"override 'key=1': key: got {value!r}; {needed}"


def test_a_message_has_words_and_no_regular_expression() -> None:
    with pytest.raises(ConfigError) as caught:
        check(Device, {"device": "gpu"}, "file")
    assert str(caught.value) == "file: device: got 'gpu'; cpu and cuda are taken"
    package = Path(robust_nas.__file__).parent
    bare = [str(path) for path in package.rglob("*.py") if re.search(r"[(\s]pattern=r", path.read_text())]
    assert bare == []  # `text_field` has the words


def test_an_error_names_the_source_the_key_the_value_and_what_is_allowed() -> None:
    message = refusal({"steps": 0, "eps": "x", "colours": [{"name": "green"}]})
    assert "file.yaml: steps: got 0; at least 1 is needed" in message
    assert "file.yaml: eps: got 'x'; a number is needed, such as 0.1 or 8/255" in message
    assert "file.yaml: colours.0: got name 'green'; allowed: red, blue" in message
    assert len(message.splitlines()) == 3  # all problems at once


def test_an_error_of_an_override_is_said_to_come_from_there() -> None:
    tree = apply_overrides({"steps": 2}, ["steps=-4"])
    assert refusal(tree, overrides=["steps=-4"]).startswith("override 'steps=-4': steps: got -4")


def test_a_long_value_is_shortened_in_the_error() -> None:
    assert len(refusal({"steps": "x" * 10_000})) < 250


def test_an_option_value_made_in_python_is_checked_and_frozen() -> None:
    with pytest.raises(ConfigError, match="Sample: steps: got 0"):
        Sample(steps=0)
    with pytest.raises(ConfigError, match="unknown key 'stpes'"):
        Sample(stpes=1)
    with pytest.raises(Exception, match="frozen"):
        Sample().steps = 4  # type: ignore[misc]
    assert eval(str(Sample(colour=Blue(rate=8 / 255)))) == Sample(colour=Blue(rate=8 / 255))  # noqa: S307


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["a.b=3"], {"a": {"b": 3, "c": [1, {"d": 2}]}}),
        (["a.c.1.d=8/255"], {"a": {"b": 1, "c": [1, {"d": "8/255"}]}}),
        (["a.c.0=[5, 6]"], {"a": {"b": 1, "c": [[5, 6], {"d": 2}]}}),
        (["x.y.z=true"], {"a": {"b": 1, "c": [1, {"d": 2}]}, "x": {"y": {"z": True}}}),
        (["a.b="], {"a": {"b": None, "c": [1, {"d": 2}]}}),
        (["a={}", "a.b=1"], {"a": {"b": 1}}),
        (
            ["a=red", "a.b=1"],
            {"a": {"name": "red", "b": 1}},
        ),  # a method in its short form, and an option of it
        (["a.b=x=y"], {"a": {"b": "x=y", "c": [1, {"d": 2}]}}),
    ],
)
def test_overrides(overrides: list[str], expected: object) -> None:
    tree = {"a": {"b": 1, "c": [1, {"d": 2}]}}
    assert apply_overrides(tree, overrides) == expected
    assert tree == {"a": {"b": 1, "c": [1, {"d": 2}]}}  # the tree itself stays


@pytest.mark.parametrize(
    "override",
    [
        "steps",
        "=3",
        "a..b=1",
        ".=1",
        "c.9=1",
        "c.x=1",
        "c.-1=1",
        "c.²=1",
        "c.0.x=1",
        "c." + "9" * 5000 + "=1",
    ],
)
def test_bad_overrides_are_quoted_in_the_error(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"a": 1, "c": [1, 2]}, [override])
    assert override[:20] in str(caught.value)


@given(st.text(max_size=40))
def test_any_override_is_applied_or_refused_with_our_error(override: str) -> None:
    try:
        apply_overrides({"a": {"b": [1, {"c": 2}]}}, [override])
    except ConfigError as error:
        assert "override" in str(error)  # noqa: PT017 - most overrides are applied


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a: 1\na: 2\n", "'a' is written twice"),
        ("x: {a: 1, a: 2}", "'a' is written twice"),
        ("a: [1", "not valid YAML"),
        ("a: !!python/object/apply:os.system [echo hi]", "not valid YAML"),
        ("a: !!python/name:os.system", "not valid YAML"),
        ("[1, 2]: 3", "a key must be a plain word"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: &x {b: 1}\nc: {<<: *x}", "aliases"),
        ("&x [*x]", "aliases"),
        ("[" * 5000, "not valid YAML"),
        ("[" * 101 + "]" * 101, "nested deeper than 100 levels"),
        ("[" + "1," * 1_900_000 + "]", "more than 200000 keys and values"),
        ("a: !!str 1", "tags"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: \0", "not valid YAML"),
        ("a: !!binary 'é'", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
def test_bad_yaml_is_refused(text: str, fragment: str) -> None:
    with pytest.raises(ConfigError, match=fragment) as caught:
        parse_yaml(text, "file.yaml")
    assert str(caught.value).startswith("file.yaml: ")


def test_an_alias_bomb_is_refused_before_it_can_grow() -> None:
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [
        f"{new}: &{new} [{', '.join(['*' + old] * 9)}]"
        for old, new in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    with pytest.raises(ConfigError, match="aliases"):
        parse_yaml("\n".join(lines), "bomb.yaml")


def test_files_that_hold_no_mapping_or_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for content in (b"", b"- 1\n", b"word\n", b"\xff\xfe\x00", b"a: 1\n" * 2):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            read_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)
    with path.open("wb") as file:
        file.truncate(MAX_YAML_BYTES + 1)
    with pytest.raises(ConfigError, match="too large"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="at most"):
        parse_yaml("a" * (MAX_YAML_BYTES + 1), "text")


@pytest.mark.parametrize("name", ["none.yaml", "~nosuchuser/a.yaml", "x" * 5000, "a\0b", ".", ""])
def test_what_is_no_file_is_no_file(name: str) -> None:
    assert existing_file(name) is None


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Sample.model_fields, "other", "", 3]), trees, max_size=4))
def test_any_tree_is_accepted_or_refused_with_our_error(tree: dict[Any, Any]) -> None:
    try:
        check(Sample, tree, "file.yaml")
    except ConfigError as error:
        assert all(line.startswith("file.yaml: ") for line in str(error).splitlines() if line)  # noqa: PT017 - some are accepted


def test_merge_goes_into_mappings_and_replaces_everything_else() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert merge(base, {"a": {"c": [2]}, "d": {"e": 3}}) == {"a": {"b": 1, "c": [2]}, "d": {"e": 3}}
    assert base == {"a": {"b": 1, "c": [1]}, "d": 2}
    copied = json_copy(base)
    copied["a"]["c"].append(9)
    assert base["a"]["c"] == [1]  # type: ignore[index]


@pytest.mark.parametrize("text", ["8/255", "1e-3", "1.0e-3", ".5", "-2"])
def test_numbers_written_bare_in_yaml(text: str) -> None:
    tree = parse_yaml(f"eps: {text}", "file.yaml")
    assert check(Sample, tree, "file.yaml").eps == parse_number(text)
