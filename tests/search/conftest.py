"""What the tests of searches share: a short fitness, and networks without kinks."""

import pytest
import torch.nn.functional as F

from robust_nas.search.one_shot import fitness


@pytest.fixture(autouse=True, scope="module")
def _short_fitness(request):
    """The attack that measures a supernet at the end takes 2 steps, but in its own tests."""
    with pytest.MonkeyPatch.context() as patched:
        if request.module.__name__ != "test_fitness":
            patched.setattr(fitness, "STEPS", 2)
        yield


@pytest.fixture
def smooth(monkeypatch):
    """Every ReLU a SiLU: at a kink a finite difference measures the jump, not the derivative."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.silu(x))
