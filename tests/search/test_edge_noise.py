"""The noise of edge weights: the root of the sum of squared changes between epochs."""

import pytest

from robust_nas.search.edge_noise import edge_noise


def records(*weights):
    """Records of a step without weights and one with them an epoch; one edge, two operations."""
    return [
        record for pair in weights for record in ({"step": 0}, {"edge_weights": {"normal": [list(pair)]}})
    ]


def test_it_is_the_root_of_the_sum_of_squared_changes():
    found = edge_noise(records((0.5, 0.5), (0.8, 0.5), (0.4, 0.5)))
    assert found == {"normal": [[pytest.approx(0.5), 0.0]]}


@pytest.mark.parametrize("known", [[], [(0.5, 0.5)]])
def test_without_two_epochs_it_is_not_known(known):
    assert edge_noise(records(*known)) == {}
