"""Adversarial DARTS: both orders against plain autograd, and against DSARA without its second stage."""

import pytest
import torch
from dsara_steps import alpha_gradient, direct, draw, make, relative, unrolled
from small_search import ONE_SHOT, found, searched

from robust_nas.attacks import PGD
from robust_nas.errors import ConfigError
from robust_nas.search import DARTS, DSARA, AlphaOptimiser, WeightOptimiser
from robust_nas.training import TRADES


@pytest.mark.usefixtures("smooth")
@pytest.mark.parametrize("warm", [False, True], ids=["first-step", "with-momentum"])
def test_second_order_is_autograd_through_the_unrolled_step(warm):
    search = make(strategy=DARTS, order=2, finite_difference=1e-4, warm=warm, execution="plain")
    v, w = draw(1), draw(2)
    step = alpha_gradient(search, 1, v, w)
    loss, gradient = unrolled(search, v.adversarial, v.labels, w)
    assert relative(step.gradient, gradient) < 1e-6
    torch.testing.assert_close(step.measured["loss_adversarial"], loss)
    assert relative(direct(search, v.adversarial, v.labels)[1], gradient) > 1e-2


def test_first_order_is_plain_autograd_on_the_attacked_images():
    search = make(strategy=DARTS)
    v = draw(1)
    step = alpha_gradient(search, 1, v, draw(2))
    loss, gradient = direct(search, v.adversarial, v.labels)
    torch.testing.assert_close(step.gradient, gradient)
    torch.testing.assert_close(step.measured["loss_adversarial"], loss)
    torch.testing.assert_close(step.measured["norm_adversarial"], gradient.norm())


@pytest.mark.parametrize("order", [1, 2])
def test_it_is_dsara_without_a_second_stage(tmp_path, order):
    options = {**ONE_SHOT, "order": order, "alphas": AlphaOptimiser(learning_rate=0.1)}
    one, records = searched(tmp_path / "darts", DARTS(**options))
    two, others = searched(tmp_path / "dsara", DSARA(**options, stage1_epochs=2))
    assert found(one)[:3] == found(two)[:3]
    for record, other in zip(records, others, strict=True):
        assert record == {key: other[key] for key in record}
    assert (
        found(searched(tmp_path / "other", DARTS(**{**options, "order": 3 - order}))[0])[:3] != found(one)[:3]
    )


def test_the_second_order_is_refused_with_another_loss_of_the_weights():
    with pytest.raises(
        ConfigError, match=r"order is 2.* weights\.loss is 'trades'; allowed with it: order 1"
    ):
        DARTS(
            order=2,
            weights=WeightOptimiser(loss=TRADES(attack=PGD(eps=0.1, steps=2, loss="kl", keep="last"))),
        )
