"""MART: its formula, and its runner-up class where classes are equal."""

import math

import pytest
import torch
from training_cases import EPS, KL, generator, small_batch, small_network

from robust_nas.attacks import PGD
from robust_nas.errors import ConfigError
from robust_nas.training import MART
from robust_nas.training.losses.mart import margin_term


def test_mart_is_its_formula_example_by_example():
    loss = MART(attack=PGD(eps=EPS, steps=3, keep="last"), beta=3.0)
    images, labels = small_batch()
    attacked = loss.attack(small_network(), images, labels, generator())
    found = loss(small_network(), images, labels, generator()).loss.item()
    p, q = (small_network()(x).detach().double().softmax(1).tolist() for x in (images, attacked))
    terms = []
    for clean, moved, y in zip(p, q, labels.tolist(), strict=True):
        kl = sum(a * math.log(a / b) for a, b in zip(clean, moved, strict=True))
        wrong = max(b for k, b in enumerate(moved) if k != y)
        terms.append(-math.log(moved[y]) - math.log(1.0001 - wrong) + 3.0 * kl * (1 - clean[y]))
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_runner_up_of_mart_is_the_largest_wrong_class_whatever_is_equal():
    """Sorting, the official code's gradient depends on which of the equal classes comes last."""
    p = torch.tensor([[0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4], [0.25] * 4], dtype=torch.float64)
    p.requires_grad_()
    terms = margin_term(p, torch.tensor([0, 0, 3]))
    torch.testing.assert_close(terms.exp(), 1 / (1.0001 - torch.tensor([0.4, 0.4, 0.25]).double()))
    terms.sum().backward()
    slopes = 1 / (1.0001 - torch.tensor([[0.4], [0.4], [0.25]]).double())
    shares = torch.tensor([[0, 1, 0, 0], [0, 0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3, 0]]).double()
    torch.testing.assert_close(p.grad, slopes * shares, atol=1e-7, rtol=1e-6)


def test_mart_refuses_an_attack_on_another_loss():
    with pytest.raises(ConfigError, match=r"attack\.loss is 'kl'; MART needs 'ce'"):
        MART(attack=KL)
