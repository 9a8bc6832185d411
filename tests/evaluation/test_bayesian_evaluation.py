"""Random models and Bayesian networks: gradient noise, a frozen draw, the EOT curve, and the posterior mean."""

import json

import pytest
import torch
from bayesian_networks import MeanField, NoisyGradient, OnlyNoise
from evaluation_bad_networks import Noisy
from evaluation_networks import EPS, timeless
from small_cascade import by_name, evaluated
from torch import nn

from robust_nas import ResidualArchitecture, build_network
from robust_nas.attacks import FGSM, Predictor, Unaware
from robust_nas.errors import AttackError
from robust_nas.evaluation import CHECKS, EvaluationOptions, Journal, follow_protocol
from robust_nas.evaluation.checks.eot_curve import MEAN
from robust_nas.evaluation.checks.gradient_noise import signal_to_noise
from robust_nas.evaluation.frozen import frozen
from robust_nas.spaces import MeanFieldArchitecture

NOISE, FROZEN = "gradient above its noise", "succeeds on one frozen draw"
CURVE, ADAPTIVE = "EOT sample curve", "adaptive at least as strong as unaware"
PGD10 = {"name": "pgd", "steps": 10}
DEPLOYED = {"eot": 4, "draws": 1}


@pytest.fixture(autouse=True, scope="module")
def _of_random_models():
    """The findings on randomness without the others, which cost more."""
    only = [CHECKS.make(name) for name in ("adaptive", "gradient-noise", "frozen-draw", "eot-curve")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("robust_nas.evaluation.protocol.with_standard", lambda extra: only)
        yield


def found_of(model, dataset, *, samples=2, **keys):
    keys = {"images": 24, "deployed": DEPLOYED, **keys}
    return evaluated(Predictor(model, samples=samples), dataset, PGD10, **keys)


@pytest.fixture(scope="module")
def honest(robust, dataset):
    return found_of(MeanField(robust), dataset)


# Planted oracles


def test_an_honest_mean_field_network_is_not_flagged(honest):
    findings = by_name(honest)
    assert [findings[name].status for name in (NOISE, FROZEN, MEAN, ADAPTIVE)] == ["PASS"] * 4, findings
    assert findings[NOISE].value > 2
    assert honest.verdict.status != "UNRELIABLE"


def test_a_lead_over_the_mean_under_weak_eot_alone_is_masking_and_the_verdict_says_so(undefended, dataset):
    masked = found_of(NoisyGradient(undefended, 3), dataset, images=48, deployed={"eot": 1, "draws": 1})
    findings = by_name(masked)
    assert [findings[name].status for name in (NOISE, FROZEN, CURVE, MEAN, ADAPTIVE)] == [
        "WARN", "FAIL", "FAIL", "FAIL", "FAIL",
    ]  # fmt: skip
    assert findings[MEAN].value > 0.2
    assert masked.verdict.status == "UNRELIABLE"
    assert any("beats its mean only under weak EOT (1)" in reason for reason in masked.verdict.reasons)


def test_noise_that_no_number_of_passes_sees_through_is_seen_by_the_attack_on_the_mean(undefended, dataset):
    found = found_of(OnlyNoise(undefended, 3), dataset)
    findings = by_name(found)
    assert [findings[name].status for name in (NOISE, FROZEN, ADAPTIVE)] == ["WARN", "FAIL", "FAIL"]
    assert findings[NOISE].value < 0.5
    assert "one made on the posterior mean is not" in findings[ADAPTIVE].text
    rows = {row.kind: row for row in found.rows}
    assert rows["adaptive"].broken <= 4 < rows["unaware"].broken  # it counts in the worst case
    assert found.robust.accuracy < 0.3
    assert found.verdict.status == "UNRELIABLE"


# The parts


def test_signal_to_noise_is_that_of_normal_draws_and_of_their_limits():
    torch.manual_seed(0)
    mean = (
        torch.tensor([3.0, 0.0]).view(1, 2, 1) * torch.ones(1, 2, 100) / 10
    )  # |mean| 3 and 0, std 10 of 100 pixels
    ratios = signal_to_noise(mean + torch.randn(4000, 2, 100))
    assert ratios[0] == pytest.approx(0.3, abs=0.02)
    assert ratios[1] < 0.05  # the mean of the draws alone would have 1 / sqrt(draws)
    same = signal_to_noise(torch.stack([torch.ones(2, 3), torch.ones(2, 3)]))
    assert torch.equal(same, torch.full((2,), torch.inf, dtype=torch.float64))
    assert signal_to_noise(torch.zeros(2, 1, 3)).isnan().all()


def test_a_frozen_draw_repeats_and_is_one_of_the_model_s_draws(robust, dataset):
    x = dataset.test.pixels[:4].float() / 255
    model = Predictor(Noisy(robust, 0.2), samples=3)
    state = torch.get_rng_state()
    draw = frozen(model, 5)
    assert torch.equal(draw(x), draw(x))
    assert not torch.equal(draw(x), frozen(model, 6)(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert not draw.random
    torch.manual_seed(5)
    assert torch.equal(draw(x), model.module(x))


class OwnGenerator(nn.Module):
    """Noise that no global seed decides."""

    def __init__(self, network):
        super().__init__()
        self.network, self.generator = network, torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.network(x + 0.1 * torch.randn(x.shape, generator=self.generator))


def test_a_draw_that_cannot_be_frozen_is_not_run_and_says_why(robust, dataset):
    finding = by_name(found_of(OwnGenerator(robust), dataset, images=8))[FROZEN]
    assert finding.status == "NOT RUN"
    assert "torch's global generators" in finding.text


@pytest.mark.parametrize(
    ("at_1", "at_4", "at_16", "mean", "status"),
    [
        (20, 20, 20, 8, "PASS"),  # ahead to the end
        (20, 20, 8, 8, "FAIL"),  # ahead with the passes of the evaluation, not with more
        (20, 8, 8, 8, "WARN"),  # ahead with one pass alone
        (8, 8, 8, 8, "PASS"),
        (8, 8, 8, 20, "PASS"),  # behind its mean
        (12, 12, 8, 8, "PASS"),  # a lead within chance
        (24, 24, 16, 8, "WARN"),  # ahead to the end, and still falling
    ],
)
def test_a_lead_is_judged_on_the_same_images(at_1, at_4, at_16, mean, status):
    clean = torch.ones(24, dtype=torch.bool)
    first = {count: torch.arange(24) < many for count, many in ((1, at_1), (4, at_4), (16, at_16))}
    found = CHECKS.make("eot-curve")._lead(first, clean, torch.arange(24) < mean, 4)
    assert found.status == status, found.text
    assert found.name == MEAN
    assert found.value == pytest.approx((at_4 - mean) / 24)


def test_a_lead_on_too_few_images_that_the_mean_gets_right_is_not_judged():
    few = torch.arange(20) < 7
    found = CHECKS.make("eot-curve")._lead({1: few | True, 4: ~few}, few, ~few, 4)
    assert (found.status, found.value, found.images) == ("NOT RUN", None, 7)
    assert "at least 8 are needed" in found.text


# The record


def test_the_section_holds_mean_transferred_and_random_on_the_same_images(honest, robust, dataset):
    section = honest.posterior_mean
    rows = {row["kind"]: row for row in section["rows"]}
    assert list(rows) == ["posterior mean", "transferred", "random"]
    assert {row["clean"]["images"] for row in rows.values()} == {section["images"]} == {24}
    assert (rows["posterior mean"]["attack"], rows["transferred"]["attack"]) == ("pgd-10", "unaware-pgd-10")
    alone = evaluated(robust, dataset, PGD10, images=24, findings="none")
    assert rows["posterior mean"]["clean"]["correct"] == alone.clean.correct
    assert abs(rows["posterior mean"]["robust"]["correct"] - alone.robust.correct) <= 1  # another start
    assert set(section["paired"]) == {"only_random", "only_mean", "p"}
    assert [(row.label, row.kind) for row in honest.rows] == [
        ("pgd-10", "adaptive"), ("unaware-pgd-10", "unaware"),
    ]  # fmt: skip
    assert honest.defence is None


def test_the_record_holds_the_curve_with_the_line_of_the_mean(honest):
    tree = honest.to_dict()
    json.dumps(tree, allow_nan=False)
    assert [(point["model"], point["eot"]) for point in tree["eot_curve"]] == [
        ("random", 1), ("random", 4), ("random", 16), ("posterior mean", None),
    ]  # fmt: skip
    assert tree["eps_curve"] == []
    assert "defence" not in tree
    assert all(point["low"] <= point["accuracy"] <= point["high"] for point in tree["eot_curve"])


def test_a_network_of_the_family_brings_its_rule_and_its_mean(dataset):
    tiny = ResidualArchitecture(name="tiny", stem=4, depths=(1,), widths=(4,))
    architecture = MeanFieldArchitecture(name="tiny-mean-field", member=tiny, samples=2)
    network = build_network(architecture, input_shape=(1, 8, 8), classes=10)
    tree = {"threat_model": {"eps": EPS}, "attacks": [{"attack": {"name": "pgd", "steps": 1}}], "images": 8}
    tree |= {"findings": "none", "deployed": {"eot": 2, "draws": 1}}
    found = follow_protocol(network, dataset.test, EvaluationOptions.model_validate(tree))
    assert found.options.deployed.samples == 2
    assert [row["kind"] for row in found.posterior_mean["rows"]] == [
        "posterior mean",
        "transferred",
        "random",
    ]
    assert [row.label for row in found.rows] == ["pgd-1", "unaware-pgd-1"]


def test_a_random_network_without_a_mean_has_the_curve_alone(robust, dataset):
    tree = found_of(Noisy(robust, 0.05), dataset, images=8).to_dict()
    assert "posterior_mean" not in tree
    assert [point["eot"] for point in tree["eot_curve"]] == [1, 4, 16]
    assert MEAN not in {finding["name"] for finding in tree["findings"]}
    assert all("kind" not in row for row in tree["attacks"])
    plain = evaluated(robust, dataset, PGD10, images=8).to_dict()
    assert not {"eot_curve", "posterior_mean", "defence"} & set(plain)
    assert plain["findings"] == []


def test_killed_anywhere_it_continues_to_the_same_record(robust, dataset):
    tree = {"threat_model": {"eps": EPS}, "attacks": [{"attack": {"name": "pgd", "steps": 2}}], "images": 12}
    tree |= {"batch_size": 8, "findings": "full", "deployed": {"eot": 2, "draws": 1}}
    options, model = EvaluationOptions.model_validate(tree), Predictor(MeanField(robust), samples=2)
    journal = Journal()
    first = follow_protocol(model, dataset.test, options, journal=journal).to_dict()
    names = list(journal.records)
    assert sum(name.startswith("side by side") for name in names) == 2
    for name in (names[2], names[-4], names[-1]):
        part = {key: record for key, record in journal.records.items() if key != name}
        again = follow_protocol(model, dataset.test, options, journal=Journal(part)).to_dict()
        assert same(again, first)
    kept = Journal(dict(journal.records), lambda name, record: pytest.fail(f"{name} made again"))
    assert same(follow_protocol(model, dataset.test, options, journal=kept).to_dict(), first)


def same(tree, other):
    trees = [
        timeless({**each, "posterior_mean": {**each["posterior_mean"], "seconds": 0}})
        for each in (tree, other)
    ]
    return trees[0] == trees[1]


def test_the_unaware_attack_is_made_on_the_mean_network(robust, dataset):
    x, y = dataset.test.pixels[:32].float() / 255, dataset.test.labels[:32]
    inner = FGSM(eps=EPS)
    result = Unaware(eps=EPS, attack=inner).run(Predictor(MeanField(robust, 0.0), samples=2), x, y)
    plain = inner.run(robust, x, y)
    broken = robust(plain.images).argmax(1) != y
    assert broken.any()
    assert torch.equal(result.images[broken], plain.images[broken])
    with pytest.raises(AttackError, match="has no defence"):
        Unaware(eps=EPS, attack=inner).refuse_model(robust)
