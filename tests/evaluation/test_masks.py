"""No mask comes out RELIABLE where its true accuracy is far lower; no honest network comes out UNRELIABLE."""

from typing import ClassVar, Literal

import pytest
import torch
from evaluation_masks import EPS, HONEST, MASKS, Core, honest, patterned
from small_cascade import SMALL, by_name, evaluated, statuses
from torch import nn

from robust_nas import ThreatModel
from robust_nas.attacks import FGSM
from robust_nas.evaluation import EvaluationOptions, SanityCheck, Step, follow_protocol
from robust_nas.evaluation.checks.predicted_change import Agreement, PredictedChange, correlation
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.verdict import FINDINGS_VERSION, status_of, version_of

SEEDS = (0, 1)
PREDICTED = "gradients predict the margin"


class Test:
    """What `evaluated` takes images from."""

    __test__ = False

    def __init__(self, images):
        self.test = images


@pytest.mark.parametrize("seed", SEEDS)
def test_the_core_of_the_masks_is_right_until_it_is_attacked(seed):
    found = evaluated(Core(seed), Test(patterned(seed)[0]), eps=EPS, images=64, findings="none")
    assert found.clean.accuracy == 1
    assert found.robust.accuracy == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_is_not_reliable(mask, seed):
    found = evaluated(mask(seed).eval(), Test(patterned(seed)[0]), eps=EPS, images=48, findings="budget")
    assert found.clean.accuracy > 0.9
    if found.robust.accuracy > 0.2:  # its true accuracy is 0
        assert found.verdict.status == "UNRELIABLE"
    else:
        assert found.verdict.status != "RELIABLE"


@pytest.mark.parametrize(("kind", "seed"), [(kind, number % 2) for number, kind in enumerate(HONEST)])
def test_an_honest_network_is_not_unreliable(dataset, kind, seed):
    model, eps = honest(kind, seed)
    assert evaluated(model, dataset, eps=eps, images=48, findings="budget").verdict.status != "UNRELIABLE"


def test_masked_gradients_are_seen_where_they_mislead():
    images = Test(patterned()[0])
    nearby, nan = (
        by_name(evaluated(MASKS[number]().eval(), images, eps=EPS, images=32)) for number in (0, 2)
    )
    assert nearby[PREDICTED].status == nearby["active test"].status == "FAIL"
    assert nearby[PREDICTED].value == pytest.approx(0, abs=0.1)
    assert nan["zero gradients"].status == "FAIL"
    assert "% of the pixels have a gradient that is NaN" in nan["zero gradients"].text


def test_a_blind_attack_does_not_reach_a_chosen_class():
    rounded = by_name(evaluated(MASKS[1]().eval(), Test(patterned()[0]), eps=EPS, images=32))
    assert rounded["a chosen class without a bound"].status == "FAIL"


def test_the_correlation_is_that_of_numpy_and_0_where_nothing_varies():
    draws = torch.Generator().manual_seed(0)
    real, predicted = torch.randn(2, 20, 4, dtype=torch.float64, generator=draws)
    real[:, 1] = 3.0  # nothing changes
    real[0, 2] = torch.nan
    real[:, 3] = predicted[:, 3] = 1e-9 * predicted[:, 3]
    found = correlation(real, predicted, torch.full((4,), 1e-6, dtype=torch.float64))
    expected = torch.corrcoef(torch.stack([real[:, 0], predicted[:, 0]]))[0, 1]
    torch.testing.assert_close(found[0], expected)
    assert found[1:3].tolist() == [0, 0]
    assert found[3].isnan()  # rounding


@pytest.mark.parametrize(
    ("close", "far", "status"),
    [
        ([0.9] * 20, [0.7] * 20, "PASS"),
        ([0.7] * 20, [0.7] * 20, "WARN"),
        ([0.9] * 20, [0.3] * 20, "WARN"),
        ([0.4] * 20, [0.7] * 20, "FAIL"),
        ([0.9] * 20, [0.1] * 20, "FAIL"),
        ([1.0] * 14 + [0.45] * 6, [0.9] * 20, "FAIL"),  # right on the mean, and not on three of ten images
        ([1.0] * 17 + [0.3] * 3, [0.9] * 20, "WARN"),
        ([1.0] * 18 + [0.0] * 2, [0.9] * 20, "PASS"),  # two images are no proof
        ([torch.nan] * 20, [torch.nan] * 20, "WARN"),
    ],
)
def test_what_correlations_lead_to(close, far, status):
    each = Agreement("the images", torch.tensor(close), torch.tensor(far), torch.ones(len(close)))
    assert PredictedChange().judge([each] * 3, len(close)).status == status


@pytest.mark.parametrize(("way", "status"), [(0.95, "PASS"), (0.85, "WARN"), (0.6, "FAIL")])
def test_an_attack_whose_own_step_falls_short_is_seen_where_random_steps_agree(way, status):
    each = Agreement("the images", torch.full((20,), 0.9), torch.full((20,), 0.8), torch.full((20,), way))
    assert PredictedChange().judge([each] * 3, 20).status == status


class BatchStatistics(nn.Module):
    """Normalises by the statistics of the batch, also in eval mode."""

    def __init__(self, network):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)
        self.network = network

    def forward(self, x):
        return self.network(self.norm(x))


class InAList(nn.Module):
    """Keeps a layer where PyTorch does not see it: no `eval()` reaches it."""

    def __init__(self, network):
        super().__init__()
        self.layers = [nn.BatchNorm2d(1), {"inner": network}]

    def forward(self, x):
        return self.layers[1]["inner"](self.layers[0](x))


class Coin(nn.Module):
    """An image or its mirror image, by a coin."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x if torch.rand(()) < 0.5 else x.flip(3))


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [
        (BatchStatistics, "answers for each image alone"),
        (InAList, "model untouched"),
        (Coin, "deterministic forward"),
    ],
)
def test_a_model_that_does_not_judge_each_image_for_itself_is_caught(undefended, dataset, wrong, finding):
    found = evaluated(wrong(undefended).eval(), dataset, SMALL[0], eps=0.02, images=24, findings="budget")
    assert statuses(found)[finding] == "FAIL"


def test_a_confident_network_is_not_taken_for_a_masked_one(undefended, dataset):
    class Confident(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = undefended

        def forward(self, x):
            return 300 * self.network(x)  # its cross-entropy is exactly 0 in float32

    model = Confident().eval()
    sighted = evaluated(model, dataset, eps=0.02, findings="budget")
    assert sighted.robust == evaluated(undefended, dataset, eps=0.02, findings="none").robust
    seen = statuses(sighted)
    assert (seen["loss plateau"], seen["zero gradients"]) == ("PASS", "PASS")
    assert "of the margin alone" in by_name(sighted)["zero gradients"].text
    blind = evaluated(model, dataset, SMALL[0], eps=0.02, findings="budget")
    assert {statuses(blind)[name] for name in ("loss plateau", "zero gradients")} == {"WARN"}
    assert blind.verdict.status == "INCONCLUSIVE"


class OnPatches(nn.Module):
    """Applies a linear layer to every patch, as a transformer does, and another to one token."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(16, 10)

    def forward(self, x):
        patches = nn.functional.unfold(x, 4, stride=4).transpose(1, 2)  # [B, 4, 16]
        return self.patch(patches).mean(1)


def test_a_linear_layer_on_patches_is_tested_too(dataset):
    found = evaluated(OnPatches().eval(), dataset, SMALL[0], eps=0.02, images=24)
    assert statuses(found)["active test"] == "PASS"


def test_a_verdict_says_which_version_of_the_findings_it_is_of(undefended, dataset):
    verdict = evaluated(undefended, dataset, SMALL[0], images=16).to_dict()["verdict"]
    assert version_of(verdict) == FINDINGS_VERSION
    assert status_of(verdict) == verdict["status"]
    assert version_of({"status": "RELIABLE", "reasons": []}) == 1  # an earlier one has no version
    assert status_of({"status": "RELIABLE"}) == f"RELIABLE (findings v1, today v{FINDINGS_VERSION})"


class Breaking(SanityCheck):
    """Raises when it is run."""

    title: ClassVar[str] = "breaking"
    name: Literal["breaking"] = "breaking"
    free: ClassVar[bool] = False

    def cost(self, state):
        return 1

    def run(self, state, indices, cost):
        raise ValueError("cannot reshape\nsecond line")


class BreakingFreely(Breaking):
    title: ClassVar[str] = "breaking freely"
    name: Literal["breaking-freely"] = "breaking-freely"
    free: ClassVar[bool] = True


class BreakingBefore(Breaking):
    title: ClassVar[str] = "breaking before"
    name: Literal["breaking-before"] = "breaking-before"

    def cost(self, state):
        raise KeyError("cost")


def test_a_check_that_fails_is_not_run_with_its_reason_and_costs_nothing_else(undefended, dataset):
    checks = (Breaking(), BreakingFreely(), BreakingBefore())
    journal = Journal()
    options = EvaluationOptions(
        threat_model=ThreatModel(eps=EPS),
        attacks=(Step(attack=FGSM(eps=EPS)),),
        images=16,
        checks=checks,
        findings="full",
    )
    found = follow_protocol(undefended, dataset.test, options, journal=journal)
    broken = {finding.name: finding for finding in found.findings if finding.name.startswith("breaking")}
    assert [finding.status for finding in broken.values()] == ["NOT RUN"] * 3
    assert broken["breaking"].text == "the check failed: ValueError: cannot reshape"
    assert "KeyError" in broken["breaking before"].text
    assert len(found.findings) > 10
    assert found.verdict.status != "RELIABLE"
    assert not any(
        "breaking" in name for name in journal.records
    )  # it is run again by a continued evaluation


class Constant(nn.Module):
    """Learned nothing: the same answer for all images, with a sound gradient."""

    def forward(self, x):
        return torch.eye(10)[0] * 5 + x.flatten(1)[:, :10] * 1e-3


def test_a_network_that_learned_nothing_has_nothing_to_attack(dataset):
    found = evaluated(Constant().eval(), dataset, eps=0.02, images=48)
    seen = by_name(found)
    for name in ("accuracy falls with eps", "a chosen class without a bound"):
        assert seen[name].status == "NOT RUN"
        assert "nothing to attack" in seen[name].text
    assert found.verdict.status == "INCONCLUSIVE"
