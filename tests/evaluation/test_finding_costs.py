"""What findings may cost, what it means that one was not run, and how they decide the verdict."""

import pytest
import torch
from evaluation_bad_networks import (
    Negated,
    Noisy,
    Quantised,
    SometimesNaN,
)
from evaluation_networks import Images, generator
from small_cascade import AS_IT_IS, SMALL, by_name, evaluated, statuses
from torch import nn

from robust_nas.evaluation import EvaluationOptions, Finding, Verdict, follow_protocol
from robust_nas.evaluation.thresholds import LEAST_IMAGES


@pytest.mark.parametrize("make", [nn.Sequential, Quantised, Negated, Noisy, SometimesNaN])
@pytest.mark.parametrize(
    "attacks",
    [SMALL, AS_IT_IS[:1], ({"name": "apgd", "steps": 60},), ({"name": "fgsm"},)],
    ids=["small", "pgd", "apgd", "fgsm"],
)
def test_findings_take_no_more_passes_than_the_attacks(robust, dataset, make, attacks):
    found = evaluated(make(robust), dataset, *attacks, images=20, findings="budget")
    assert 0 < found.findings_passes <= found.passes


def test_square_stays_within_its_passes_also_where_it_succeeds(robust, dataset):
    attack = {"name": "apgd", "steps": 100, "restarts": 5, "fold": False}
    found = evaluated(Negated(robust), dataset, attack, images=20, findings="budget")
    assert statuses(found)["white box at least as strong as Square"] in ("WARN", "FAIL")
    assert found.findings_passes <= found.passes


def test_the_caller_may_be_in_inference_mode(robust, dataset):
    expected = evaluated(robust, dataset, images=12)
    with torch.inference_mode():
        found = evaluated(robust, dataset, images=12)
    assert found.findings == expected.findings


def test_square_is_not_run_on_images_that_it_cannot_tile():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    pixels = torch.rand(12, 1, 4, 4, generator=generator(1))
    data = Images(pixels, model(pixels).argmax(1))
    tree = {"threat_model": {"eps": 0.01, "norm": "l2"}, "attacks": [{"attack": SMALL[1]}]}
    found = follow_protocol(model, data, EvaluationOptions.model_validate(tree))
    finding = by_name(found)["white box at least as strong as Square"]
    assert finding.status == "NOT RUN"
    assert "not defined for images of 4 x 4 pixels" in finding.text


def test_a_finding_that_was_too_dear_leaves_the_verdict_open(robust, dataset):
    found = evaluated(robust, dataset, *SMALL, images=48, findings="budget")
    finding = by_name(found)["white box at least as strong as Square"]
    assert finding.status == "NOT RUN"
    assert finding.value is None
    assert "set evaluation.findings=full" in finding.text
    assert set(statuses(found).values()) == {"PASS", "NOT RUN"}
    assert found.verdict.status == "INCONCLUSIVE"
    assert any(reason.startswith(finding.name) for reason in found.verdict.reasons)


def test_no_findings_no_verdict(robust, dataset):
    found = evaluated(robust, dataset, {"name": "fgsm"}, images=8, findings="none")
    assert found.findings == ()
    assert (found.findings_passes, found.eps_curve) == (0, ())
    assert found.verdict == Verdict(status="INCONCLUSIVE", reasons=("no finding was asked for",))


def test_where_nothing_survives_there_is_nothing_to_break(undefended, dataset):
    found = evaluated(undefended, dataset, eps=0.5, images=16)
    assert found.robust.correct == 0
    finding = by_name(found)["white box at least as strong as Square"]
    assert (finding.status, finding.images) == ("PASS", 0)
    assert found.verdict.status == "INCONCLUSIVE"  # no robustness above chance


def test_a_few_images_are_all_looked_at(robust, dataset):
    found = evaluated(robust, dataset, images=LEAST_IMAGES - 3)
    assert by_name(found)["deterministic forward"].images == LEAST_IMAGES - 3
    assert found.clean.correct == LEAST_IMAGES - 3
    assert (
        found.chance == 0.6
    )  # the interval of 5 of 5 reaches down to it: attacks on clean answers say nothing
    for finding in found.findings:
        if finding.status == "NOT RUN":
            assert "5 of 5 images right do not show a clean accuracy above chance (0.6)" in finding.text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("PASS", "PASS"), "RELIABLE"),
        (("PASS", "NOT RUN"), "INCONCLUSIVE"),
        (("WARN", "NOT RUN"), "INCONCLUSIVE"),
        (("NOT RUN", "FAIL", "WARN"), "UNRELIABLE"),
    ],
)
def test_the_worst_finding_decides(given, expected):
    findings = tuple(Finding(name=f"n{i}", status=s, text="seen") for i, s in enumerate(given))
    verdict = Verdict.of(findings)
    assert verdict.status == expected
    assert bool(verdict.reasons) == (expected != "RELIABLE")


def test_a_network_without_a_linear_layer_has_its_logits_for_features(dataset):
    """Global pooling over ten channels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    labels = model(dataset.test.pixels.float() / 255).argmax(1)
    found = follow_protocol(
        model,
        Images(dataset.test.pixels, labels),
        EvaluationOptions.model_validate(
            {
                "threat_model": {"eps": 0.01},
                "attacks": [{"attack": SMALL[1]}],
                "images": 24,
                "findings": "full",
            }
        ),
    )
    assert by_name(found)["active test"].status == "PASS"
