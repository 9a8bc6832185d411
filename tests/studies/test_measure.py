"""What a study measures: closed forms on linear networks, identities of the gains, invariants of any network."""

import itertools
import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from robust_nas.attacks import PGD
from robust_nas.data import Images
from robust_nas.nets import build_network
from robust_nas.spaces import load_architecture
from robust_nas.studies.config import Metrics
from robust_nas.studies.run.measure import (
    average_sensitivity,
    gains,
    lip_max,
    lipschitz_ratios,
    measure,
    perturbed,
)

ATTACK = PGD(eps=0.1, steps=5)


class Linear(nn.Module):
    """Two linear stages and a linear head without bias: `f(x) = C B A x`."""

    def __init__(self, pixels: int, classes: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = ((7, pixels), (5, 7), (classes, 5))
        self.matrices = [torch.randn(shape, generator=generator) for shape in shapes]

    @property
    def whole(self) -> Tensor:
        a, b, c = self.matrices
        return c @ b @ a

    def staged(self, x: Tensor) -> list[Tensor]:
        outputs = []
        h = x.flatten(1)
        for matrix in self.matrices:
            h = h @ matrix.T
            outputs.append(h)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.staged(x)[-1]


def some_images(count: int = 6, side: int = 3, seed: int = 1) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(80, 170, (count, 1, side, side), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.randint(0, 3, (count,), generator=generator))


def operator_norm(matrix: Tensor) -> float:
    """The norm from Linf to L1, by trying every vertex of the ball."""
    vertices = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=matrix.shape[1])))
    return float((vertices @ matrix.T).abs().sum(1).max())


def test_on_a_linear_network_lip_max_is_the_operator_norm_in_linf() -> None:
    network = Linear(9, 3)
    images = some_images(64).float()[:1].expand(64, -1, -1, -1).contiguous()  # 64 starts from one image
    found = lip_max(network, images, ATTACK, 10, torch.Generator().manual_seed(0)).max()
    assert float(found) == pytest.approx(operator_norm(network.whole), rel=1e-4)


def test_on_a_linear_network_with_one_row_every_start_reaches_the_dual_norm() -> None:
    network = Linear(9, 1)
    images = some_images().float()
    linf = lip_max(network, images, ATTACK, 2, torch.Generator().manual_seed(0))
    l2 = lip_max(network, images, PGD(eps=0.1, norm="l2"), 2, torch.Generator().manual_seed(0))
    assert linf.tolist() == pytest.approx([float(network.whole.abs().sum())] * 6, rel=1e-4)
    assert l2.tolist() == pytest.approx([float(network.whole.norm())] * 6, rel=1e-4)


def test_no_attack_exceeds_the_operator_norm() -> None:
    network, data = Linear(9, 3), some_images()
    x, moved = data.float(), perturbed(network, data, ATTACK, seed=0)
    ratios = lipschitz_ratios(x, moved, network(x), network(moved), "linf")
    assert float(ratios.max()) <= operator_norm(network.whole) * (1 + 1e-4)
    assert float(ratios.min()) > 0


def test_the_sensitivity_of_a_linear_network_is_its_row_against_random_directions() -> None:
    network = Linear(9, 3)
    data = some_images(200)
    found = average_sensitivity(
        network, data.float(), data.labels, ATTACK, 4000, torch.Generator().manual_seed(0)
    )
    u = 0.1 * (2 * torch.rand(200_000, 9, generator=torch.Generator().manual_seed(5)) - 1)
    expected = (u @ network.whole.T).abs().mean(0)[data.labels].mean()
    assert found == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize("name", ["wrn-10-1", "arnas"])
def test_stage_gains_telescope_to_the_gain_of_the_whole_network(name: str) -> None:
    architecture = load_architecture(name)
    if name == "arnas":
        architecture = architecture.resized(3, 2)  # type: ignore[union-attr] # a cell network
    network = build_network(architecture, input_shape=(1, 8, 8)).eval()
    data = some_images(8, 8)
    x, moved = data.float(), perturbed(network, data, ATTACK, seed=0)
    stages = gains(network, x, moved)
    with torch.no_grad():
        before = (moved - x).double().flatten(1).norm(dim=1)
        after = (network(moved) - network(x)).double().norm(dim=1)
    whole = float((after / before).log().mean())
    assert sum(stage["log_gain"] for stage in stages) == pytest.approx(whole, abs=1e-4)
    rms = whole - 0.5 * math.log(10 / 64)
    assert sum(stage["log_gain_rms"] for stage in stages) == pytest.approx(rms, abs=1e-4)
    assert [stage["stage"] for stage in stages][-1] == "head"


def test_an_image_that_cannot_be_moved_has_no_gain() -> None:
    network, data = Linear(9, 3), some_images()
    x = data.float()
    assert gains(network, x, x) == []
    assert lipschitz_ratios(x, x, network(x), network(x), "linf").tolist() == [0.0] * 6


def test_right_under_the_attack_and_clean_means_stable() -> None:
    network = build_network(load_architecture("wrn-10-1"), input_shape=(1, 8, 8), classes=3).eval()
    data = some_images(40, 8)
    found = measure(
        network, data, data, Metrics(attack=ATTACK, images=16, lip_max_steps=2, sensitivity_draws=4), seed=0
    )
    clean = network(data.float()).argmax(1) == data.labels
    assert bool((~(clean & found.attacked_right) | found.stable).all())
    assert found.figures["stability"] == pytest.approx(float(found.stable.double().mean()))
    assert found.figures["lip_max"] > 0
    assert found.figures["lip_adv_median"] <= found.figures["lip_adv_p95"]
    again = measure(
        network, data, data, Metrics(attack=ATTACK, images=16, lip_max_steps=2, sensitivity_draws=4), seed=0
    )
    assert again.figures == found.figures
    assert cast("list[dict[str, float]]", again.stages) == found.stages
