"""What a record must look like: the words of a shape, strict JSON, and the digest that a run ended with."""

import json
import math

import pytest

from robust_nas.config import Options
from robust_nas.errors import RunError
from robust_nas.records import misfit, read_environment, read_json, read_record
from robust_nas.run_folder import Run

SHAPE = {
    "a": float,
    "b?": [int],
    "c": ({"d": str}, None),
    "e": frozenset({"x", "y"}),
    "f": [{str: bool}, ...],
}
RIGHT = {"a": 1, "c": None, "e": "x", "f": [{"k": True}], "more": [1]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"b": [], "c": {"d": ""}}, None),
        ({"a": True}, "a: got True; a finite number is needed"),
        ({"a": math.inf}, "a: got inf; a finite number is needed"),
        ({"a": "1"}, "a: got '1'; a finite number is needed"),
        ({"b": [1, 2.0]}, "b.1: got 2.0; a whole number is needed"),
        ({"b": [False]}, "b.0: got False; a whole number is needed"),
        ({"c": {}}, "c.d is missing"),
        ({"c": 3}, "c: got 3; a JSON object is needed"),
        ({"e": ["x"]}, "e: got ['x']; one of x, y is needed"),
        ({"f": []}, "f has 0 items, at least one is needed"),
        ({"f": [{"k": 1}]}, "f.0.k: got 1; true or false is needed"),
        ({"f": None}, "f: got None; a list is needed"),
    ],
)
def test_a_shape_names_the_first_value_that_does_not_fit(change, problem):
    assert misfit({**RIGHT, **change}, SHAPE) == problem


def test_lists_of_a_fixed_length():
    assert misfit([1, 2.5], [float, float]) is None
    assert misfit({"i": [1]}, {"i": [float, float]}) == "i has 1 items, 2 are needed"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '{"a": NaN}', '{"a": -Infinity}', "[" * 100_000, '{"a": 1e999}']
)
def test_only_strict_json_objects_are_read(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RunError, match=r"x\.json: "):
        read_json(tmp_path / "x.json", {"a": float})


def test_a_run_ends_with_the_digests_of_its_own_json_files(tmp_path):
    class Config(Options):
        name: str = "x"

    assert read_environment(tmp_path) == {}
    with Run(tmp_path / "run", Config()) as run:
        run.write("a.json", '{"value": 1}')
        run.write("b.yaml", "value: 1")
        run.finish({"found": 2}, ["a.json", "b.yaml"])
    folder = tmp_path / "run"
    result = json.loads((folder / "result.json").read_text())
    assert (result["found"], list(result["digests"])) == (2, ["a.json"])
    assert read_record(folder, "a.json", {"value": int}) == {"value": 1}
    (folder / "a.json").write_text('{"value": 2}')
    with pytest.raises(RunError, match=r"a\.json: was changed after its run ended"):
        read_record(folder, "a.json", {"value": int})
