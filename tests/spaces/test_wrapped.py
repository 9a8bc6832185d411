"""Ensembles and mean-field networks as architectures: names, what they delegate, and what is refused."""

import pytest

from robust_nas.errors import ArchitectureError
from robust_nas.operations.cost import batch_norm, norms_left_out
from robust_nas.spaces import (
    EnsembleArchitecture,
    MeanFieldArchitecture,
    architecture_from_text,
    count,
    load_architecture,
)
from robust_nas.spaces.naming import canonical_name

WRN = load_architecture("wrn-10-1")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ensemble-5.wrn-10-1", {"particles": 5, "draws": None}),
        ("ensemble-5-draws-3.wrn-10-1", {"particles": 5, "draws": 3}),
        ("ensemble-2.wrn-10-1.silu", {"particles": 2}),
        ("ensemble-2.arnas", {"particles": 2}),
        ("mean-field.wrn-10-1", {"samples": 16, "initial_sigma": 0.08}),
        ("mean-field-samples-8.wrn-10-1", {"samples": 8}),
        ("mean-field-samples-8-sigma-0.1.wrn-10-1", {"samples": 8, "initial_sigma": 0.1}),
        ("mean-field-sigma-1e-05.wrn-10-1", {"initial_sigma": 1e-5}),
    ],
)
def test_a_name_means_an_architecture_and_is_its_canonical_name(name, options):
    found = load_architecture(name)
    assert {key: getattr(found, key) for key in options} == options
    assert found.name == name
    if "arnas" not in name:  # a cell network's size is in its canonical name
        assert canonical_name(found) == name
    renamed = found.with_options(name="other", member={**found.member.model_dump(), "name": "other"})
    assert renamed.nameless() == found.nameless()


def test_costs_are_those_of_all_particles_and_of_one_answer():
    one = count(WRN, (1, 8, 8), 10)
    assert count(load_architecture("ensemble-5.wrn-10-1"), (1, 8, 8), 10) == one.times(5)
    drawn = count(load_architecture("ensemble-5-draws-3.wrn-10-1"), (1, 8, 8), 10)
    assert drawn == (5 * one.params, 3 * one.macs)
    with norms_left_out():
        assert batch_norm(8, affine=True).params == 0
        bare = count(WRN, (1, 8, 8), 10)
    assert batch_norm(8, affine=True).params == 16
    assert bare.params < one.params
    assert count(load_architecture("mean-field.wrn-10-1"), (1, 8, 8), 10) == (
        one.params + bare.params,
        16 * one.macs,
    )


def test_sizes_are_the_member_s_and_no_stage_is_claimed():
    found = load_architecture("ensemble-5.wrn-10-1")
    assert (found.total_depth, found.total_width) == (WRN.total_depth, WRN.total_width)
    assert found.stage_sizes is None
    assert found.factors() == {"particles": 5, "passes": 5, **WRN.factors()}
    assert found.describe() == f"5 particles, each of {WRN.describe()}"
    assert not found.shared_activations()


@pytest.mark.parametrize("outer", ["ensemble-2", "mean-field"])
@pytest.mark.parametrize("inner", ["ensemble-2", "mean-field"])
def test_an_ensemble_of_ensembles_is_refused(outer, inner):
    with pytest.raises(
        ArchitectureError, match=r"member: got family .* a member is one network.*cell, residual"
    ):
        load_architecture(f"{outer}.{inner}.wrn-10-1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ensemble-0.wrn-10-1", r"particles: got 0"),
        ("ensemble-1001.wrn-10-1", r"particles: got 1001"),
        ("ensemble-2-draws-0.wrn-10-1", r"draws: got 0"),
        ("mean-field-samples-0.wrn-10-1", r"samples: got 0"),
        ("ensemble-2.wrn-11-1", r"depth 11 is not 6n \+ 4"),
        ("ensemble-2.absent", r"'ensemble-2.absent' is neither a shipped name.*ensemble-N.MEMBER"),
    ],
)
def test_numbers_and_members_that_no_network_has_are_refused(name, said):
    with pytest.raises(ArchitectureError, match=said):
        load_architecture(name)


def test_a_file_describes_one():
    text = "{type: ensemble, name: mine, particles: 2, member: {type: mlp, name: m, depth: 1, width: 4}}"
    found = architecture_from_text(text, "text")
    assert isinstance(found, EnsembleArchitecture)
    assert found.member.width == 4
    with pytest.raises(ArchitectureError, match=r"member: 'type' is missing"):
        architecture_from_text("{type: ensemble, name: mine, particles: 2, member: {name: m}}", "text")
    assert MeanFieldArchitecture(name="x", member=WRN).inference_samples == 16
