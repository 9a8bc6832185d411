"""The digits, and the two networks that the tests of the findings look at; trained once."""

import pytest
from evaluation_networks import EPS, digits, trained

from robust_nas.attacks import PGD


@pytest.fixture(scope="session")
def dataset():
    return digits()


@pytest.fixture(scope="session")
def robust(dataset):
    """Trained honestly: PGD-3 adversarial training, and nothing that hides anything."""
    return trained(dataset.train, attack=PGD(eps=EPS, steps=3, keep="last"), epochs=12)


@pytest.fixture(scope="session")
def undefended(dataset):
    return trained(dataset.train, epochs=3)
