"""Multilayer perceptrons as architectures: exact round trips, counts in closed form, every rule."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from space_counts import Shape, torch_count
from spaces_strategies import mlp_architectures

from robust_nas.config import to_dict
from robust_nas.errors import ArchitectureError
from robust_nas.spaces import Cost, MLPArchitecture, architecture_from_text, count, parts

SMALL = MLPArchitecture(name="small", depth=3, width=7)


@settings(max_examples=30)
@given(mlp_architectures(), st.tuples(*[st.integers(1, 33)] * 3), st.integers(1, 5))
def test_any_mlp_on_any_input_counts_as_torch_counts(
    architecture: MLPArchitecture, shape: Shape, classes: int
) -> None:
    assert count(architecture, shape, classes) == torch_count(architecture, shape, classes)


def test_every_hidden_layer_is_a_stage_and_there_is_no_stem() -> None:
    found = parts(SMALL, (1, 4, 5), 3)
    assert [(part.name, part.cost) for part in found] == [
        ("stage 1", Cost(7 * 21, 7 * 20)),
        ("stage 2", Cost(7 * 8, 7 * 7)),
        ("stage 3", Cost(7 * 8, 7 * 7)),
        ("head", Cost(3 * 8, 3 * 7)),
    ]


@given(mlp_architectures())
def test_yaml_and_json_read_back_the_equal_value_with_the_equal_hash(architecture: MLPArchitecture) -> None:
    for text in (architecture.to_yaml(), json.dumps(to_dict(architecture))):
        again = architecture_from_text(text, "text")
        assert again == architecture
        assert hash(again) == hash(architecture)
        assert again.to_yaml() == architecture.to_yaml()


@pytest.mark.parametrize(
    ("key", "value", "fragment"),
    [
        ("depth", 0, "depth: got 0"),
        ("depth", 1001, "depth: got 1001; at most 1000 is allowed"),
        ("width", 1 << 21, "width: got 2097152"),
        ("width", None, "width: missing"),
        ("initialisation", "he-fan-out", "got 'he-fan-out'; allowed: he-fan-in, lecun, ntk"),
        ("activation", "tanh", "activation: got 'tanh'"),
        ("widths", [3], "unknown key 'widths'; did you mean 'width'?"),
        ("type", "perceptron", "got type 'perceptron'; allowed: cell, residual, mlp"),
    ],
)
def test_a_malformed_mlp_is_told_the_rule_it_breaks(key: str, value: Any, fragment: str) -> None:
    tree = {name: old for name, old in to_dict(SMALL).items() if name != key}
    if value is not None:
        tree[key] = value
    with pytest.raises(ArchitectureError) as caught:
        architecture_from_text(json.dumps(tree), "broken.json")
    assert fragment in str(caught.value)
