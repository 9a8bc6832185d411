"""The operations of searches with a planted answer: what they give is no function of the image that could be learnt."""

import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.mark.parametrize("name", ["Noise", "OtherNoise", "ThirdNoise"])
def test_a_scrambled_map_carries_nothing(name):
    path = Path(__file__).parents[3] / "scripts" / "planted_operations.py"
    spec = importlib.util.spec_from_file_location("planted_operations", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, 8, 8, generator=generator, requires_grad=True)
    found = getattr(script, name).candidate(4, 1)(x)
    assert not found.requires_grad
    assert torch.equal(found, getattr(script, name).candidate(4, 1)(x))
    assert float(found.var()) == pytest.approx(0.25, rel=0.03)
    assert float(found.mean()) == pytest.approx(0, abs=0.02)
    both = torch.stack([found.flatten(), x.detach().flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.03
    assert torch.equal(getattr(script, name).candidate(4, 2)(x), found[:, :, ::2, ::2])
