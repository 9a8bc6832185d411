"""The inner attack of a one-shot search: it moves nothing, and both executions are attacked alike."""

import pytest
import torch
from dsara_steps import alpha_step, changed, draw, make, snapshot
from torch import nn

from robust_nas.attacks import FGSM, FGSMRS, NFGSM, PGD


@pytest.mark.parametrize(
    "attack", [FGSM(eps=0.1), FGSMRS(eps=0.1), NFGSM(eps=0.1), PGD(eps=0.1, steps=2, bn="batch")], ids=repr
)
def test_the_inner_attack_computes_no_parameter_gradient_and_moves_nothing(attack):
    search = make(attack=attack, execution="plain")
    search.supernet.train()
    before = snapshot(search.supernet)
    required = []
    handle = search.supernet.register_forward_pre_hook(
        lambda module, _: required.append(any(p.requires_grad for p in module.parameters()))
    )
    batch = draw(1)
    found = search.attack(batch.natural, batch.labels, torch.Generator().manual_seed(0))
    handle.remove()
    assert required
    assert not any(required)
    assert changed(before, search.supernet) == set()
    assert all(p.requires_grad and p.grad is None for p in search.supernet.parameters())
    assert found.grad_fn is None
    again = search.attack(batch.natural, batch.labels, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)


@pytest.mark.parametrize(
    "attack", [FGSM(eps=0.1), PGD(eps=0.1, steps=2), PGD(eps=0.1, steps=2, bn="batch")], ids=repr
)
def test_a_fused_supernet_is_attacked_as_the_plain_one_is_and_as_it_stands(attack):
    fused, plain = (make(attack=attack, execution=execution) for execution in ("fused", "plain"))
    v, w = draw(1), draw(2)
    for _ in range(2):  # the copy that attacks run on follows both steps
        found = [
            search.attack(v.natural, v.labels, torch.Generator().manual_seed(0)) for search in (fused, plain)
        ]
        torch.testing.assert_close(*found)
        for search in (fused, plain):
            alpha_step(search, 2, v, w)
        found = [
            search.attack(v.natural, v.labels, torch.Generator().manual_seed(0)) for search in (fused, plain)
        ]
        torch.testing.assert_close(*found)
        for search in (fused, plain):
            search.weight_step(w)
    assert all(p.requires_grad and p.grad is None for p in fused.supernet.parameters())


@pytest.mark.parametrize("fold", [False, True])
def test_a_copy_that_gives_other_logits_is_not_attacked(monkeypatch, fold):
    right, wrong = (make(attack=FGSM(eps=0.1, fold=fold), execution="fused") for _ in range(2))
    stale = right.supernet.folded()
    assert isinstance(stale, nn.Module)
    with torch.no_grad():
        stale.parts.classifier[0].neg_()
    monkeypatch.setattr(type(wrong.supernet), "folded", lambda _: stale)
    v = draw(1)
    expected = right.strategy.attack.model_copy(update={"fold": False}).craft(
        right.supernet, v.natural, v.labels, torch.Generator().manual_seed(0)
    )
    found = wrong.attack(v.natural, v.labels, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected)
