"""CSTAR-style training: ADMM finds the truncated SVD, its network is judged projected, a stopped one ends the same."""

import copy
import math

import pytest
import torch
from compression_networks import SHAPE, images, residual
from torch import nn

import robust_nas
from robust_nas.attacks import NFGSM, PGD
from robust_nas.compression.cstar import ADMM, CSTAR, MAX_PULL, factorise, rho_schedule
from robust_nas.compression.ranks import cost
from robust_nas.compression.tucker import project
from robust_nas.data import Augment, Images
from robust_nas.errors import CompressionError
from robust_nas.run_folder import Run
from robust_nas.training import PGDAT, Cosine, Training, loop
from robust_nas.workflows.compress_measures import accuracies

OPTIONS = CSTAR(epochs=4, freeze=0.5, rank_multiple=1)
RHOS = [0.1]


class One(nn.Module):
    """A single 1x1 convolution."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False).double()
        with torch.no_grad():
            self.layer.weight.copy_(weight[:, :, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.parametrize("rhos", [[1.0], [min(1.1**epoch, 10.0) for epoch in range(400)]])
def test_admm_on_a_quadratic_loss_converges_to_the_truncated_svd(rhos):
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(
        torch.randn(6, 5, generator=generator, dtype=torch.float64), full_matrices=False
    )
    target = (u * torch.tensor([3.0, 2.0, 0.6, 0.3, 0.1], dtype=torch.float64)) @ vh
    network = One(target)
    options = CSTAR(epochs=400, freeze=0.0, rank_multiple=1, min_rank=0.01, skip_ends=False)
    admm = ADMM(network, (5, 2, 2), 30 / 22, options, rhos)  # 22 weights: rank 2
    assert admm.ranks == {"layer": (2,)}
    weight = network.layer.weight
    for epoch in range(400):
        # The step in W, exactly: argmin ||W - A||^2 / 2 + rho / 2 ||W - Z + U||^2.
        with torch.no_grad():
            pull = admm.z["layer"] - admm.u["layer"]
            weight.copy_((target[:, :, None, None] + admm.rho * pull) / (1 + admm.rho))
        logged = admm.end_epoch(epoch)
    best = project(target[:, :, None, None], (2,))
    torch.testing.assert_close(weight.detach(), best, atol=1e-5, rtol=0)
    assert logged["primal_residual"] < 1e-3


def test_the_penalty_is_the_augmented_lagrangian_of_the_layers_with_ranks():
    network = residual()
    admm = ADMM(network, SHAPE, 2.0, OPTIONS, RHOS)
    for name in admm.u:
        admm.u[name].normal_(generator=torch.Generator().manual_seed(1))
    expected = sum(
        float((network.get_submodule(n).weight.detach() - admm.z[n] + admm.u[n]).square().sum())
        for n in admm.ranks
    )
    assert float(admm.penalty().detach()) == pytest.approx(0.1 / 2 * expected)
    assert cost(admm.layers, admm.ranks) <= sum(layer.params for layer in admm.layers) / 2


def test_inside_applied_the_network_is_of_low_rank_and_outside_it_is_as_it_was():
    network = residual()
    admm = ADMM(network, SHAPE, 3.0, OPTIONS, RHOS)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    x = images()
    with admm.applied():
        low = network(x)
        factors, forms = factorise(network, admm.ranks)
        torch.testing.assert_close(factors(x), low)
    assert not torch.allclose(low, network(x))
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert {form.form for form in forms} <= {"tucker-2", "low-rank"}


def test_ranks_are_frozen():
    network = residual()
    admm = ADMM(network, SHAPE, 3.0, OPTIONS, RHOS)
    assert OPTIONS.frozen_from == 2
    seen = []
    for epoch in range(4):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(epoch)
            for parameter in network.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        seen.append(dict(admm.end_epoch(epoch)["ranks"]))
    assert seen[1] == seen[2] == seen[3]


def small() -> tuple[nn.Module, Images, Images, Training]:
    digits = robust_nas.load_dataset(robust_nas.DataOptions(name="digits"))
    architecture = robust_nas.ResidualArchitecture(name="small", stem=4, depths=(1, 1), widths=(6, 6))
    network = robust_nas.build_network(architecture, input_shape=(1, 8, 8), seed=1)
    attack = PGD(eps=0.1, steps=2, keep="last")
    recipe = Training(
        epochs=4,
        batch_size=32,
        loss=PGDAT(attack=attack),
        learning_rate=0.05,
        validation_attack=PGD(eps=0.1, steps=2),
        validate_from=OPTIONS.frozen_from,
    )
    some = torch.arange(120)
    return network, digits.train.subset(some), digits.test.subset(some[:60]), recipe


def test_a_training_bound_by_admm_stopped_anywhere_resumes_to_the_same_bits(tmp_path, monkeypatch):
    network, train, validation, recipe = small()

    def go(folder, mode="new"):
        own = copy.deepcopy(network)
        constraint = ADMM(own, (1, 8, 8), 2.0, OPTIONS, RHOS)
        with Run(folder, recipe, mode) as run:
            outcome = loop.train(
                run,
                own,
                train,
                validation,
                recipe,
                Augment(crop=1),
                seed=3,
                checkpoint_seconds=0,
                hooks=[constraint],
            )
            return outcome, constraint, run.records()

    whole, constraint, records = go(tmp_path / "whole")
    assert whole.epoch >= 2
    factors, _ = factorise(network, constraint.ranks)  # builds; the state below is exact in factors
    assert factors is not network
    step = loop._Training._one_step
    for stop in (2, 6, 11):
        calls = []

        def dies(self, indices, stop=stop, calls=calls):
            calls.append(0)
            if len(calls) == stop:
                raise KeyboardInterrupt
            step(self, indices)

        with monkeypatch.context() as patched:
            patched.setattr(loop._Training, "_one_step", dies)
            with pytest.raises(KeyboardInterrupt):
                go(tmp_path / f"stop{stop}")
        again, other, lines = go(tmp_path / f"stop{stop}", "resume")
        assert lines == records
        assert other.ranks == constraint.ranks
        assert all(torch.equal(tensor, again.state[name]) for name, tensor in whole.state.items())
        assert all(torch.equal(other.u[name], constraint.u[name]) for name in constraint.u)


def test_what_is_kept_is_exactly_of_the_final_ranks(tmp_path):
    network, train, validation, recipe = small()
    constraint = ADMM(network, (1, 8, 8), 2.0, OPTIONS, RHOS)
    with Run(tmp_path / "run", recipe) as run:
        outcome = loop.train(run, network, train, validation, recipe, Augment(), seed=0, hooks=[constraint])
    for name, ranks in constraint.ranks.items():
        weight = outcome.state[f"{name}.weight"]
        torch.testing.assert_close(project(weight, ranks), weight, atol=1e-5, rtol=1e-4)
    network.load_state_dict(outcome.state)
    factors, _ = factorise(network.eval(), constraint.ranks)
    x = validation.float()
    torch.testing.assert_close(factors(x), network(x), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("every", [1, 2])
def test_rho_draws_the_weights_by_e_to_the_pull_between_two_updates_whatever_the_rate(every):
    options = CSTAR(pull=0.7, rho_growth=1.5, update_every=every)
    rates = [0.02, 0.015, 0.004, 0.001]
    rhos = rho_schedule(options, rates, steps=50, momentum=0.0)
    for update in range(4 // every):
        distance = 1.0
        for epoch in range(update * every, (update + 1) * every):
            for _ in range(50):
                distance -= rates[epoch] * rhos[epoch] * distance
        pull = min(0.7 * 1.5**update, MAX_PULL)
        assert distance == pytest.approx(math.exp(-pull), rel=0.1)
    assert rho_schedule(options, rates, steps=50, momentum=0.9) == pytest.approx([r / 10 for r in rhos])
    long = rho_schedule(options, [0.01] * 40, steps=50, momentum=0.0)
    assert max(long) == pytest.approx(MAX_PULL / (0.01 * 50 * every))


def test_the_multipliers_stay_what_they_are_when_rho_changes():
    network = residual()
    admm = ADMM(network, SHAPE, 3.0, OPTIONS, [0.1, 0.2, 0.4])
    with torch.no_grad():
        for weight in admm.weights.values():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    before = {name: weight - admm.z[name] for name, weight in admm.weights.items()}
    assert admm.end_epoch(0)["rho"] == 0.1
    assert admm.rho == 0.2
    for name in admm.ranks:
        moved = admm.weights[name] - admm.z[name]  # U was 0 before
        torch.testing.assert_close(admm.u[name], moved / 2)
        assert before[name].norm() > 0
    admm.end_epoch(1)
    admm.end_epoch(2)
    assert admm.rho == 0.4


def test_the_first_convolution_and_the_classifier_stay_unless_asked_for():
    network = residual()
    assert not {"stem", "classifier"} & set(ADMM(network, SHAPE, 4.0, OPTIONS, RHOS).ranks)
    asked = OPTIONS.model_copy(update={"skip_ends": False})
    assert "stem" in ADMM(network, SHAPE, 8.0, asked, RHOS).ranks


@pytest.mark.slow
def test_on_digits_it_is_more_robust_than_cutting_the_trained_weights_to_the_same_ranks(tmp_path):
    """Both are fine-tuned for as long; one as long as both stages is in docs/benchmarks/compressed-robustness.md."""
    digits = robust_nas.load_dataset(robust_nas.DataOptions(name="digits"))
    architecture = robust_nas.ResidualArchitecture(name="small", stem=8, depths=(1, 1), widths=(12, 16))
    attack = NFGSM(eps=0.12, noise=1.0, keep="last")
    options = CSTAR(epochs=8, finetune_epochs=4)

    def fit(network, tag, epochs, rate, seed, constraint=None):
        recipe = Training(
            epochs=epochs,
            batch_size=64,
            loss=PGDAT(attack=attack),
            learning_rate=rate,
            validation_attack=PGD(eps=0.1, steps=3),
            schedule=Cosine(final=0.1 if constraint else 0.0),
            validate_from=epochs - 1,
        )
        with Run(tmp_path / f"{tag}{seed}", recipe) as run:
            outcome = loop.train(
                run,
                network,
                train,
                validation,
                recipe,
                Augment(),
                seed=seed,
                hooks=[constraint] if constraint else [],
            )
        network.load_state_dict(outcome.state)
        return network.eval()

    for seed in (0, 1):
        order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(seed))
        train, validation = digits.train.subset(order[:600]), digits.train.subset(order[600:800])
        network = robust_nas.build_network(architecture, input_shape=(1, 8, 8), seed=seed)
        fit(network, "base", 8, 0.1, seed)
        own = copy.deepcopy(network)
        rates = [
            0.1 * Cosine(final=0.1).factor_at(epoch + 0.5, options.epochs) for epoch in range(options.epochs)
        ]
        constraint = ADMM(own, (1, 8, 8), 3.0, options, rho_schedule(options, rates, 9, 0.9))
        fit(own, "admm", options.epochs, 0.1, seed, constraint)
        found = {}
        for tag, start in (("cstar", own), ("truncate", network)):
            factors = fit(factorise(start, constraint.ranks)[0], tag, options.finetune_epochs, 0.05, seed)
            found[tag] = accuracies(factors, factors, digits.test, PGD(eps=0.1, steps=5), 0)[1]
        assert found["cstar"] > found["truncate"]


def test_impossible_requests_are_told():
    with pytest.raises(CompressionError, match="ratio: got 900"):
        ADMM(residual(), SHAPE, 900.0, OPTIONS, RHOS)
    network = residual()
    with torch.no_grad():
        network.stages[0][0].conv1.weight[0] = torch.inf
    with pytest.raises(CompressionError, match="NaN or infinite"):
        ADMM(network, SHAPE, 2.0, OPTIONS, RHOS)
    admm = ADMM(residual(), SHAPE, 2.0, OPTIONS, RHOS)
    state = admm.state()
    with pytest.raises(ValueError, match="other layers"):
        admm.restore({**state, "z": {}})
