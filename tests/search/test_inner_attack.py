"""The inner attack of a one-shot search: it moves nothing, and both executions are attacked alike."""

import pytest
import torch
from dsara_steps import alpha_step, changed, draw, make, snapshot

from robust_nas.attacks import FGSM, FGSMRS, NFGSM, PGD
from robust_nas.nets import Supernet
from robust_nas.search import DSARA


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


@pytest.mark.parametrize("attack", [FGSM, PGD])
@pytest.mark.parametrize("fold", ["by default", True, None, False])
def test_the_supernet_itself_is_attacked_where_fold_is_false(attack, fold, monkeypatch):
    copies = []
    own = Supernet.folded
    monkeypatch.setattr(Supernet, "folded", lambda net: copies.append(own(net)) or copies[-1])
    options = {} if fold == "by default" else {"fold": fold}
    search = make(attack=attack(eps=0.1, keep="last", **options))
    batch = draw(1)
    for _ in range(2):
        found = search.attack(batch.natural, batch.labels, torch.Generator().manual_seed(0))
    assert len(copies) == (0 if fold is False else 1)
    attacked = search.supernet if fold is False else copies[0]
    plain = attack(eps=0.1, keep="last", fold=False)
    expected = plain(attacked, batch.natural, batch.labels, torch.Generator().manual_seed(0))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("given", "kept"), [({}, None), ({"fold": False}, False), ({"fold": True}, True)])
def test_a_single_step_that_says_nothing_of_fold_takes_the_copy_of_the_search(given, kept):
    """And a run folder, which holds every option, says the same when it is read again."""
    strategy = DSARA(attack={"name": "fgsm-rs", "eps": 0.1, **given})
    assert strategy.attack.fold is kept
    again = DSARA(**strategy.model_dump(mode="json"))
    assert again == strategy
    assert again.attack.fold is kept
