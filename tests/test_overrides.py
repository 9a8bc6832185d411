"""What a shell's text means: overrides and paths are what was typed, numbers are decimal, messages are bounded."""

import json
from pathlib import Path
from typing import Any

import pytest

from robust_nas.config import (
    Count,
    Options,
    Verbatim,
    apply_overrides,
    check,
    expand_path,
    parse_yaml,
    read_yaml,
)
from robust_nas.errors import MAX_MESSAGE, ConfigError, RobustNASError
from robust_nas.overrides import override_value
from robust_nas.workflows.config import load_config


class Words(Options):
    name: str = "x"
    path: str | None = "default"
    folders: tuple[str, ...] = ()
    seed: Count = 1
    limit: Count | None = 5
    flip: bool = False


def read(*overrides: str) -> Words:
    return check(Words, apply_overrides({}, overrides), "file.yaml", overrides=overrides)


@pytest.mark.parametrize(
    "text",
    ["2024", "20240101", "1.10", "yes", "on", "true", "~", "2024-01-01", "set #2", "#2", "a: b", "x:", "[a]", "{a}",
     "- a", "@home", "*a", "&a", "!a", "1e3", "010", "a\nb", '"a" b', "[", "\udcff", "9" * 5000],
)  # fmt: skip
def test_the_text_of_an_override_is_the_value_of_a_field_of_text(text: str) -> None:
    assert read(f"path={text}").path == text
    assert read(f"name={text}").name == text


def test_quotes_and_lists_of_yaml_still_work_and_null_is_null_where_a_field_takes_it() -> None:
    assert read("path=null").path is None
    assert read("path=").path is None
    assert read("path='set #2'").path == "set #2"
    assert read('path="2024"').path == "2024"
    assert read("folders=[2024, 'a b', 1.10, yes]").folders == ("2024", "a b", "1.10", "yes")
    assert read("folders.0=2024", "folders=[a, b]", "folders.1=010").folders == ("a", "010")
    assert read("name=2024", "name=b").name == "b"


def test_an_option_of_the_command_line_is_the_value_as_it_is() -> None:
    for text in ("null", "'a'", " a ", "", "set #2", "[a]"):
        assert read(Verbatim(f"path={text}")).path == text


@pytest.mark.parametrize("text", ["3 # three", "[1, # one\n 2]", "#3", "3 #"])
def test_an_override_that_yaml_would_cut_is_refused_where_no_text_is_needed(text: str) -> None:
    with pytest.raises(ConfigError, match=r"override 'seed=.*seed: got "):
        read(f"seed={text}")


@pytest.mark.parametrize(
    ("text", "value"), [("008", 8), ("010", 10), ("064", 64), ("1_000", 1000), ("+5", 5), ("0", 0), ("-0", 0)]
)
def test_integers_are_decimal_in_overrides_and_in_files(text: str, value: int, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"seed: {text}\n")
    if value:
        assert read(f"seed={text}").seed == value
        assert check(Words, read_yaml(tmp_path / "config.yaml"), "file.yaml").seed == value
    assert int(parse_yaml(text, "text")) == value


@pytest.mark.parametrize(
    "text", ["1:30", "0x1F", "0b11", "0o17", "1e3", "~", "1:30:00", "yes", "0x" + "f" * 5000]
)
def test_what_is_no_decimal_integer_is_refused_by_key(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"limit: {text}\n")
    for load in (
        lambda: read(f"limit={text}"),
        lambda: check(Words, read_yaml(tmp_path / "config.yaml"), "config.yaml"),
    ):
        with pytest.raises(ConfigError, match="limit: got ") as caught:
            load()
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("on", True), ("no", False), ("off", False), ("true", True)]
)
def test_words_of_yaml_1_1_are_booleans_for_a_boolean_and_text_elsewhere(text: str, value: bool) -> None:
    tree = parse_yaml(f"flip: {text}\nfolders: [x]", "text")
    assert check(Words, tree, "file.yaml").flip is value
    assert read(f"flip={text}").flip is value
    if text != "true":
        assert check(Words, parse_yaml(f"name: {text}", "text"), "file.yaml").name == text


def test_keys_are_text_and_dates_are_too() -> None:
    assert parse_yaml("{on: 1, 32: 2, 2024-01-01: 2024-01-01}", "text") == {
        "on": 1, "32": 2, "2024-01-01": "2024-01-01"
    }  # fmt: skip


def test_paths_are_read_as_a_shell_reads_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.chdir(tmp_path)
    for text, path in (
        ("~", "/home/me"),
        ("~/x", "/home/me/x"),
        ("$DATA/x", "/data/x"),
        ("${DATA}x", "/datax"),
        ("a~/b", "a~/b"),
        ("cost$", "cost$"),
    ):
        assert expand_path(text) == expand_path(Path(text)) == Path(path)
    for text in ("~nosuchuser/x", "$NOT_SET/x", "a/${NOT_SET}"):
        with pytest.raises(ConfigError, match=r"got path .*there is no"):
            expand_path(text)
    Path("~nosuchuser").mkdir()
    assert expand_path("~nosuchuser") == Path("~nosuchuser")


BAD: dict[str, Any] = {
    "items": "training.hooks=[" + "1," * 10_000 + "]",
    "figures": "figures=[" + "zz," * 5_000 + "]",
    "mappings": "evaluation.attacks=[" + "{x: 1}," * 5_000 + "]",
    "keys": "data={" + ",".join(f"k{number}: 1" for number in range(2_000)) + "}",
    "hexadecimal": "seed=0x" + "f" * 5_000,
    "digits": "seed=" + "9" * 5_000,
    "nested": "data.limit=" + "[" * 1_500,
    "nested mappings": "data.limit=" + "{a: " * 1_500,
    "deep key": "a." * 1_500 + "b=1",
    "long key": "x" * 100_000 + "=1",
    "long value": "data.name=" + "x" * 100_000,
    "crop": "data.augment.crop=1000000000",
    "cutout": "data.augment.cutout=1000000000",
}


@pytest.mark.parametrize("override", BAD.values(), ids=BAD)
def test_a_bad_config_of_any_size_is_refused_soon_and_in_few_words(override: str) -> None:
    with pytest.raises(RobustNASError) as caught:
        load_config("quickstart", [override])
    message = str(caught.value)
    assert len(message) <= MAX_MESSAGE
    assert message.count("\n") <= 20
    assert override[:20] in message


def test_of_many_problems_the_first_20_are_listed_and_the_others_counted() -> None:
    with pytest.raises(ConfigError) as caught:
        check(Words, {"folders": [3] * 20_000}, "file.yaml")
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[2].split(":")[0].strip() for line in lines[:20]] == [
        f"folders.{number}" for number in range(20)
    ]
    assert lines[20:] == ["... and 19980 more problems"]


def test_an_error_of_ours_is_never_longer_than_a_screen_can_take() -> None:
    assert len(str(RobustNASError("x" * 10**6))) == MAX_MESSAGE


def test_a_long_list_is_read_by_the_c_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the pure Python parser 30,000 items are more than ten times the time; the count of its calls is 0."""
    import yaml

    monkeypatch.setattr(yaml.SafeLoader, "fetch_more_tokens", None)
    assert parse_yaml("[" + "1," * 30_000 + "]", "text") == [1] * 30_000


def test_a_recipe_of_json_is_read_as_before() -> None:
    tree = {"a": [1, -2.5, 1e-05, 1e300, 'é\n"\\/', None, True], "b": {"c": "010"}}
    assert override_value(f"x={json.dumps(tree)}") == {
        **tree,
        "a": [1, -2.5, "1e-05", "1e+300", *tree["a"][4:]],
    }
