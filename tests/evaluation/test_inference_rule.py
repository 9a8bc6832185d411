"""Inference rules: predictors that are random, and predictors that may reject."""

import pytest
import torch
from evaluation_bad_networks import Noisy
from evaluation_networks import EPS, Images, generator, timeless
from torch import nn

from robust_nas import Predictor
from robust_nas.attacks.engine import seeded_globally
from robust_nas.errors import AttackError, ConfigError
from robust_nas.evaluation import EvaluationOptions, follow_protocol, judge
from robust_nas.evaluation.planted import Planted, plant

DECLARED = {"samples": 8, "eot": 4}


def evaluated(model, data, deployed, *, seed=0, eps=EPS, images=16, findings="none", attacks=None, **keys):
    tree = {
        "threat_model": {"eps": eps},
        "attacks": [{"attack": attack} for attack in attacks or [{"name": "pgd", "steps": 5}]],
        "images": images,
        "findings": findings,
        "deployed": deployed,
    }
    return follow_protocol(model, data, EvaluationOptions.model_validate({**tree, **keys}), seed=seed)


# Random predictors


class Dropping(nn.Module):
    """Dropout that stays on, by a function of its own draws from torch's global generators."""

    def __init__(self, network, p=0.3):
        super().__init__()
        self.network, self.p = network, p

    def forward(self, x):
        return self.network(nn.functional.dropout(x, self.p, training=True))


class Coin(nn.Module):
    """Says class 0 with probability p in each pass, class 1 otherwise, whatever the image."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        zero = (torch.rand(len(x)) < self.p).float()
        return 20 * torch.stack([zero, 1 - zero], 1) + 0 * x.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("wrap", [lambda net: Noisy(net, 0.1), Dropping], ids=["noise", "dropout"])
def test_declared_by_the_options_or_by_the_predictor_it_is_the_same(robust, dataset, wrap):
    state = torch.get_rng_state()
    by_options = evaluated(wrap(robust), dataset.test, DECLARED)
    by_model = evaluated(Predictor(wrap(robust), samples=8), dataset.test, {"eot": 4})
    assert torch.equal(state, torch.get_rng_state())
    assert timeless(by_options.to_dict()) == timeless(by_model.to_dict())
    tree = by_model.to_dict()
    assert (tree["deployed"]["samples"], tree["deployed"]["eot"]) == (8, 4)
    (row,) = by_model.rows
    assert row.parameters["eot"] == 4
    assert "random" in row.model_form
    # Per image: a clean pass, 5 gradients and the last iterate with 4 draws each; 5 verdicts of 8 passes.
    assert row.forwards == row.attacked * (4 * (1 + 5 + 1) + 5 * 8)
    assert row.backwards == row.attacked * 4 * 5


def test_another_seed_draws_otherwise_and_the_same_one_the_same(robust, dataset):
    trees = [timeless(evaluated(Noisy(robust), dataset.test, DECLARED, seed=s).to_dict()) for s in (1, 1, 2)]
    assert trees[0] == trees[1]
    assert trees[0]["robust"] != trees[2]["robust"] or trees[0]["clean"] != trees[2]["clean"]


def test_the_answer_is_the_mean_softmax_over_the_samples():
    predictor = Predictor(Coin(0.5), samples=400)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        probabilities = predictor(torch.rand(50, 1, 2, 2)).softmax(1)
    assert (probabilities.sum(1) - 1).abs().max() < 1e-5
    # The softmax of the mean logits would be just as close to a half; each pass alone says 0 or 1.
    assert (probabilities[:, 0] - 0.5).abs().max() < 0.15
    assert probabilities[:, 0].std() > 0.01


def test_the_majority_of_fresh_draws_decides():
    images, labels = torch.rand(400, 1, 2, 2), torch.zeros(400, dtype=torch.int64)
    p = 0.7
    judged = judge(Predictor(Coin(p), samples=1), images, labels, draws=3, seed=5)
    assert judged.draws.shape == (3, 400)
    assert torch.equal(judged.right, judged.draws.sum(0) >= 2)
    majority = p**3 + 3 * p**2 * (1 - p)
    assert judged.right.float().mean() == pytest.approx(majority, abs=0.07)
    assert judged.draws.float().mean() == pytest.approx(p, abs=0.05)
    again = judge(Predictor(Coin(p), samples=1), images, labels, draws=3, seed=5)
    assert torch.equal(judged.draws, again.draws)
    assert judged.forwards == 400 * 3


def test_a_tie_is_wrong():
    judged = judge(
        Predictor(Coin(0.5), samples=1),
        torch.rand(200, 1, 2, 2),
        torch.zeros(200, dtype=torch.int64),
        draws=2,
        seed=1,
    )
    assert torch.equal(judged.right, judged.draws.all(0))


def test_accuracies_of_all_draws_are_told(robust, dataset):
    found = evaluated(Noisy(robust), dataset.test, {**DECLARED, "draws": 7}, images=32)
    tree = found.to_dict()
    assert len(tree["clean"]["draws"]) == len(tree["robust"]["draws"]) == 7
    assert tree["clean"]["rejected"] is None
    # An example that has lost its majority once is wrong for good; a draw is at most as right as it was clean.
    assert all(r <= c for r, c in zip(tree["robust"]["draws"], tree["clean"]["draws"], strict=True))
    assert evaluated(robust, dataset.test, {}).to_dict()["clean"]["draws"] == []


def test_the_curve_over_passes_per_gradient_is_drawn(robust, dataset):
    found = evaluated(Noisy(robust, 0.1), dataset.test, DECLARED, findings="full", images=12)
    by_name = {finding.name: finding for finding in found.findings}
    curve = by_name["EOT sample curve"]
    assert curve.images == 12
    for count in ("1: ", "4: ", "16: "):
        assert count in curve.text
    assert by_name["deterministic forward"].status == "PASS"
    assert "as declared" in by_name["deterministic forward"].text
    # Draws that fooled the search are no success that it passed by: the verdict has draws of its own.
    assert by_name["silent success"].status == "PASS"
    # Where the noise hides what is planted, that is a gap in the evidence and no proof against the model.
    assert by_name["active test"].status != "FAIL"


class Static(nn.Module):
    """Features that have nothing to do with the image."""

    def forward(self, x):
        return torch.randn(len(x), 8)


def test_nothing_is_planted_in_features_that_are_noise():
    problem = Planted(nn.Sequential(Static(), nn.Linear(8, 3)))
    with seeded_globally(0, torch.device("cpu")):
        valid, _ = plant(problem, torch.rand(200, 1, 4, 4), 0.1, "linf", torch.Generator().manual_seed(0))
    assert valid.float().mean() < 0.5  # a planted point is known again by chance alone


class Gated(nn.Module):
    """Passes of which one in ten has a useful gradient: a few passes per gradient see nothing."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x if torch.rand(()) < 0.1 else x.detach())


def test_too_few_passes_per_gradient_are_seen(undefended, dataset):
    found = evaluated(
        Gated(undefended), dataset.test, {"samples": 2, "eot": 2}, findings="full", images=32, eps=0.3
    )
    curve = next(f for f in found.findings if f.name == "EOT sample curve")
    assert curve.status in ("WARN", "FAIL")
    assert curve.value > 0
    assert "raise deployed.eot" in curve.text
    assert found.verdict.status != "RELIABLE"


def test_a_rule_that_was_declared_random_and_is_not_is_told(robust, dataset):
    found = evaluated(robust, dataset.test, DECLARED, findings="budget", images=24)
    finding = next(f for f in found.findings if f.name == "deterministic forward")
    assert (finding.status, finding.value) == ("WARN", 0)
    assert found.findings_passes <= found.passes


def test_a_declared_attack_keeps_its_own_passes(robust, dataset):
    attacks = [{"name": "pgd", "steps": 2, "eot": 3}, {"name": "pgd", "steps": 2}]
    found = evaluated(Noisy(robust), dataset.test, DECLARED, attacks=attacks)
    assert [row.parameters["eot"] for row in found.rows] == [3, 4]


@pytest.mark.parametrize(
    ("predictor", "deployed", "message"),
    [
        ({"samples": 8}, {"samples": 4}, "deployed.samples: got 4, the predictor itself says 8"),
        ({}, {"abstains": True}, "deployed.abstains: got True, the predictor itself says False"),
    ],
)
def test_two_rules_for_one_model_are_refused(robust, dataset, predictor, deployed, message):
    with pytest.raises(ConfigError, match=message):
        evaluated(Predictor(robust, **predictor), dataset.test, deployed)


def test_an_agreeing_declaration_is_fine(robust, dataset):
    found = evaluated(Predictor(robust, samples=2), dataset.test, {"samples": 2, "eot": 2}, images=4)
    assert found.options.deployed.samples == 2


def test_a_predictor_needs_a_sample(robust):
    with pytest.raises(AttackError, match="samples: got 0"):
        Predictor(robust, samples=0)


# Predictors that may reject


class Rejecting(nn.Module):
    """A network with a constant as its logit of a rejection."""

    def __init__(self, network, logit):
        super().__init__()
        self.network, self.logit = network, logit

    def forward(self, x):
        logits = self.network(x)
        return torch.cat([logits, torch.full_like(logits[:, :1], self.logit)], 1)


@pytest.mark.parametrize("by_model", [True, False])
def test_a_model_that_rejects_everything_is_right_and_says_how(robust, dataset, by_model):
    model = Rejecting(robust, 1e4)
    model, deployed = (Predictor(model, abstains=True), {}) if by_model else (model, {"abstains": True})
    found = evaluated(model, dataset.test, deployed, findings="full")
    tree = found.to_dict()
    assert (found.clean.accuracy, found.robust.accuracy, tree["clean"]["rejected"]) == (1, 1, 1)
    assert tree["classes"] == 10
    assert tree["deployed"]["abstains"]
    assert found.verdict.status == "UNRELIABLE"  # it has no gradient
    assert not any("same grey" in reason for reason in found.verdict.reasons)


def test_a_model_that_rejects_nothing_is_judged_as_without_the_class(robust, dataset):
    plain = evaluated(robust, dataset.test, {}, images=48)
    abstaining = evaluated(Rejecting(robust, -1e4), dataset.test, {"abstains": True}, images=48)
    assert abstaining.clean == plain.clean
    assert abstaining.robust == plain.robust
    assert abstaining.rejected == 0


W = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])


class Linear(nn.Module):
    """Two pixels a, b: logits a, b, and r for a rejection. Class 0 is right for a > b."""

    def __init__(self, r):
        super().__init__()
        self.r = r

    def forward(self, x):
        pixels = x.flatten(1)
        return torch.cat([pixels, torch.full_like(pixels[:, :1], self.r)], 1)


def test_the_attack_wins_only_with_a_wrong_and_accepted_input():
    # Within eps, the attack can bring b to b + eps and a to a - eps. It wins iff b + eps > max(a - eps, r).
    r, eps = 0.5, 0.1
    a = torch.rand(200, generator=generator(1)) * 0.6 + 0.2
    b = a - 0.6 * torch.rand(200, generator=generator(2)).clamp_min(0.02)
    inside = b > eps
    a, b = a[inside], b[inside]
    images = torch.stack([a, b], 1).view(-1, 1, 1, 2)
    data = Images(images, torch.zeros(len(a), dtype=torch.int64))
    lost = (b + eps > torch.maximum(a - eps, torch.tensor(r))).sum()
    found = evaluated(
        Linear(r),
        data,
        {"abstains": True},
        eps=eps,
        images=None,
        attacks=[{"name": "pgd", "steps": 20, "loss": "margin"}],
    )
    assert found.clean.accuracy == 1
    assert found.rejected == pytest.approx(float((torch.maximum(a, b) < r).float().mean()))
    assert 0 < found.rows[0].broken < len(a)
    assert found.rows[0].broken == int(lost)
    # Without the rejection more of them fall.
    plain = nn.Sequential(nn.Flatten())
    more = evaluated(plain, data, {}, eps=eps, images=None).rows[0].broken
    assert more == int((b + eps > a - eps).sum()) > int(lost)


def test_a_rejected_wrong_image_is_right_and_an_accepted_one_is_not():
    images = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.1, 0.4]]).view(3, 1, 1, 2)
    labels = torch.zeros(3, dtype=torch.int64)
    judged = judge(Predictor(Linear(0.5), abstains=True), images, labels)
    assert judged.right.tolist() == [True, False, True]
    assert judged.rejected.tolist() == [False, False, True]


def test_labels_of_the_rejection_are_out_of_range():
    data = Images(torch.rand(4, 1, 1, 2), torch.full((4,), 2))
    with pytest.raises(AttackError, match=r"label 2 .* rejection"):
        evaluated(Linear(0.5), data, {"abstains": True})


def test_autoattack_knows_no_rejection():
    data = Images(torch.rand(4, 1, 1, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(AttackError, match="knows no rejection"):
        evaluated(Linear(0.5), data, {"abstains": True}, attacks=[{"name": "autoattack"}])


def test_a_rule_may_be_random_and_abstain(robust, dataset):
    model = Rejecting(Noisy(robust, 0.1), 2.0)
    found = evaluated(model, dataset.test, {**DECLARED, "abstains": True}, images=12)
    assert found.rejected is not None
    assert len(found.clean_draws) == 5
    assert found.rows[0].parameters["eot"] == 4
    logits = Predictor(model, samples=4, abstains=True)(torch.rand(3, 1, 8, 8))
    assert logits.shape == (3, 11)
    assert (logits.exp().sum(1) - 1).abs().max() < 1e-5
