"""NNI's multi-trial strategies by ask and tell are those of NNI's own loop, and its Proxyless is its formula."""

import numpy as np
import pytest
import torch

pytest.importorskip("nni")
pytest.importorskip("pytorch_lightning")

from cases import small_space

from robust_nas.integrations import nni as bridge
from robust_nas.integrations.nni_proposals import AskTell, Random, RegularizedEvolution
from robust_nas.spaces import load_space

SIZES = (3, 2, 4, 1, 5)


def value(code):
    return float(np.dot(code, (1.0, -2.0, 0.5, 0.0, 0.25)))


class AtOnce(AskTell):
    """In the place of ask and tell: every model is measured when it is submitted, until there are enough."""

    def submit_models(self, *models):
        for model in models:
            self._submitted.append(self._code(model))
            self._end(model, value(self._code(model)))

    def budget_available(self):
        return len(self._submitted) < 40


STRATEGIES = {
    "random": lambda: Random(seed=5),
    "evolution": lambda: RegularizedEvolution(population_size=8, sample_size=3, mutation_prob=0.3, seed=5),
    "crossover": lambda: RegularizedEvolution(population_size=8, sample_size=3, crossover=True, seed=5),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_asked_one_by_one_a_strategy_proposes_what_it_submits_in_nnis_own_run(name):
    theirs = AtOnce(STRATEGIES[name](), SIZES)
    theirs.strategy.run()
    ours, found = AskTell(STRATEGIES[name](), SIZES), []
    while len(found) < 40:
        (code,) = ours.ask(1, lambda code: True)
        ours.tell([value(code)])
        found.append(code)
    assert found == theirs._submitted
    assert len(set(found)) == 40


def test_what_is_not_accepted_is_passed_over_and_a_strategy_that_gives_up_asks_for_less():
    engine = AskTell(Random(seed=0), (2, 2))
    assert sorted(engine.ask(9, lambda code: code[0] == 1)) == [(1, 0), (1, 1)]
    engine.tell([1.0, None])
    assert engine.ask(9, lambda code: True) == []


def test_enas_refuses_nodes_that_keep_two_sources_which_is_why_it_is_not_here():
    from nni.nas.strategy import ENAS

    model = bridge.to_model_space(load_space("darts"), cells=3, channels=2)
    with pytest.raises(TypeError, match="only supports categorical"):
        ENAS().mutate_model(model)


def test_proxyless_computes_the_sampled_operations_and_moves_alphas_by_all_of_them():
    """d L / d alpha_i = sum_j g_j p_j (1[i = j] - p_i),  g_j = <dL/dy, o_j(x)> of the edge's operations."""
    space = small_space(1, ["max_pool_3x3", "skip_connect", "sep_conv_3x3"])
    model = bridge.to_model_space(space, cells=3, channels=2, in_channels=1, supernet=True)
    supernet = bridge.mutated(model, "proxyless").double().train()
    torch.manual_seed(2)
    sample = bridge.resample(supernet)
    edge = supernet.cells[0].nodes[0].edges[sample["accurate.0"][0]]  # the one that the node adds
    x, seen = torch.rand(4, 1, 8, 8, dtype=torch.float64), {}
    called = [
        edge[name].register_forward_hook(lambda *_, name=name: seen.setdefault(name))
        for name in space.operations
    ]
    hook = edge.register_forward_hook(lambda _, given, out: seen.update(input=given[0], output=out))
    logits = supernet(x)
    assert [name for name in space.operations if name in seen] == [sample[edge.label]]
    for handle in (*called, hook):
        handle.remove()
    alpha = bridge.architecture_parameters(supernet)[edge.label]
    found, slope = torch.autograd.grad(logits.square().sum(), (alpha, seen["output"]))
    gates = torch.stack([(slope * edge[name](seen["input"])).sum() for name in space.operations])
    p = alpha.softmax(0)
    torch.testing.assert_close(found, p * (gates - (p * gates).sum()), rtol=1e-9, atol=1e-12)
