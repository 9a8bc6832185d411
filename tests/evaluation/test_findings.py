"""What must be noticed: networks that only look robust, suites that are too weak; and an honest one that must pass."""

import pytest
import torch
from evaluation_bad_networks import (
    Counting,
    Detached,
    Negated,
    Noisy,
    Probabilities,
    Quantised,
    SometimesNaN,
    WithoutGrad,
    Zeroed,
)
from evaluation_networks import EPS
from small_cascade import AS_IT_IS, SMALL, by_name, evaluated, statuses

import robust_nas
from robust_nas import ThreatModel
from robust_nas.evaluation import Verdict
from robust_nas.evaluation.checks.eps_curve import EpsCurve, point
from robust_nas.evaluation.traces import late_gain

# In the order of the report.
FREE = (
    "logits, not probabilities",
    "finite logits",
    "perturbation re-measured",
    "model untouched",
    "parameter-free attack",
    "robustness above chance",
    "loss plateau",
    "silent success",
)
PAID = (
    "deterministic forward",
    "answers for each image alone",
    "zero gradients",
    "gradients predict the margin",
    "iterative at least as strong as FGSM",
    "white box at least as strong as noise",
    "active test",
    "doubling steps and restarts changes nothing",
    "accuracy falls with eps",
    "at most chance where all images can be alike",
    "0 % without a bound",
    "a chosen class without a bound",
    "white box at least as strong as Square",
)


# The honest one, below the eps that it was trained for, where no image is a matter of luck

WELL_INSIDE = 0.08


@pytest.fixture(scope="module")
def honest(robust, dataset):
    return robust_nas.evaluate(robust, dataset.test, ThreatModel(eps=WELL_INSIDE), "cascade", images=128)


def test_an_honestly_trained_network_is_reliable_under_the_cascade(honest):
    assert statuses(honest) == dict.fromkeys((*FREE, *PAID), "PASS")
    assert honest.verdict == Verdict(status="RELIABLE", reasons=())
    assert honest.clean.accuracy > 0.95
    assert 0.7 < honest.robust.accuracy < 0.99
    assert honest.findings_passes <= honest.passes
    assert {row.model_form for row in honest.rows} == {"folded"}


def test_every_finding_says_what_it_saw_and_what_was_allowed(honest):
    for finding in honest.findings:
        assert finding.text
        assert finding.allowed
        assert finding.value is not None
    found = by_name(honest)
    assert found["perturbation re-measured"].value == pytest.approx(WELL_INSIDE, abs=1e-6)
    assert found["active test"].value > 0.9
    assert found["robustness above chance"].value == honest.robust.accuracy


def test_the_curve_over_eps_starts_clean_and_ends_at_nothing(honest):
    curve = honest.eps_curve
    assert [point["eps"] for point in curve] == [0, WELL_INSIDE / 2, WELL_INSIDE, 2 * WELL_INSIDE, 0.5, 1.0]
    accuracies = [point["accuracy"] for point in curve]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 0.95
    assert accuracies[-1] == 0
    assert all(0 <= p["low"] <= p["accuracy"] <= p["high"] <= 1 for p in curve)


def test_an_honest_network_is_reliable_in_l2_too(robust, dataset):
    found = evaluated(robust, dataset, eps=0.5, norm="l2")
    assert found.verdict == Verdict(status="RELIABLE", reasons=())
    assert [point["eps"] for point in found.eps_curve] == [0, 0.25, 0.5, 1.0, 4.0, 8.0]  # 64 pixels


# The known bad ones

BAD = {  # the wrapper, the attacks, and the findings that must fail
    "softmax": (Probabilities, SMALL, {"logits, not probabilities"}),
    "quantiser": (
        Quantised,
        SMALL,
        {
            "zero gradients",
            "loss plateau",
            "active test",
            "white box at least as strong as Square",
            *PAID[9:11],
        },
    ),
    "noise": (Noisy, SMALL, {"deterministic forward"}),
    "detached": (
        Detached,
        SMALL,
        {
            "zero gradients",
            "loss plateau",
            "active test",
            "white box at least as strong as Square",
            *PAID[9:11],
        },
    ),
    "zero-backward": (Zeroed, AS_IT_IS, {"zero gradients", "loss plateau", "active test"}),
    "no-grad-inside": (
        WithoutGrad,
        AS_IT_IS,
        {"zero gradients", "loss plateau", "gradients predict the margin"},
    ),
    "wrong-way": (
        Negated,
        AS_IT_IS,
        {"loss plateau", "active test", "white box at least as strong as Square"},
    ),
    "statistics": (Counting, SMALL, {"model untouched"}),
    "statistics-unsaved": (lambda net: Counting(net, persistent=False), SMALL, {"model untouched"}),
    "nan": (SometimesNaN, SMALL, {"finite logits"}),
}


@pytest.mark.parametrize(("make", "attacks", "failing"), BAD.values(), ids=BAD)
def test_a_known_bad_model_is_caught(robust, dataset, make, attacks, failing):
    findings = "full" if failing & set(PAID[7:]) else "budget"
    found = evaluated(make(robust), dataset, *attacks, findings=findings)
    seen = statuses(found)
    assert {name: seen[name] for name in failing} == dict.fromkeys(failing, "FAIL")
    assert found.verdict.status == "UNRELIABLE"
    assert all(any(reason.startswith(f"{name}: ") for reason in found.verdict.reasons) for name in failing)


def test_noise_alone_breaks_what_a_misled_attack_did_not(robust, dataset):
    # Enough images that noise breaks some of them, whichever network the processor's rounding has trained.
    found = evaluated(Negated(robust), dataset, *AS_IT_IS, findings="budget", eps=1.5 * EPS, images=128)
    assert statuses(found)["white box at least as strong as noise"] in ("WARN", "FAIL")


def test_an_undefended_network_has_no_robustness_to_claim(undefended, dataset):
    found = evaluated(undefended, dataset, eps=0.3)
    assert found.clean.accuracy > 0.9
    assert found.robust.accuracy < 0.1
    finding = by_name(found)["robustness above chance"]
    assert finding.status == "WARN"
    assert finding.value == found.robust.accuracy
    assert found.verdict.status != "RELIABLE"


@pytest.mark.parametrize("make", [Zeroed, WithoutGrad, Negated])
def test_a_hidden_gradient_is_reported_also_where_the_folded_copy_has_a_better_one(robust, dataset, make):
    found = evaluated(make(robust), dataset, findings="budget")
    assert {row.model_form for row in found.rows} == {"folded"}
    assert found.robust == evaluated(robust, dataset, findings="none").robust
    assert by_name(found)["active test"].value == 0
    assert found.verdict.status == "UNRELIABLE"


def test_random_noise_that_was_not_declared_stays_reproducible_and_out_of_the_generators(robust, dataset):
    state = torch.get_rng_state()
    first, second = (evaluated(Noisy(robust), dataset, images=24) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert [row.broken_indices for row in first.rows] == [row.broken_indices for row in second.rows]
    assert first.findings == second.findings
    assert "declare it" in by_name(first)["deterministic forward"].text


# Suites that are too weak, on a network that is honest


def test_attacks_of_fixed_steps_alone_are_at_most_inconclusive(robust, dataset):
    found = robust_nas.evaluate(
        robust, dataset.test, ThreatModel(eps=EPS), "quick", images=48, findings="budget"
    )
    assert statuses(found)["parameter-free attack"] == "WARN"
    assert found.verdict.status == "INCONCLUSIVE"
    assert any("cascade" in reason for reason in found.verdict.reasons)


def test_a_tiny_step_is_weaker_than_fgsm_and_than_itself_with_more_effort(robust, dataset):
    found = evaluated(robust, dataset, {"name": "pgd", "steps": 1, "step_size": 0.03, "random_start": False})
    seen = statuses(found)
    assert seen["iterative at least as strong as FGSM"] == "FAIL"
    assert seen["doubling steps and restarts changes nothing"] in ("WARN", "FAIL")
    assert seen["loss plateau"] == "FAIL"  # all of the gain came in the last step, which is the only one
    assert found.verdict.status == "UNRELIABLE"


def test_a_loss_that_still_rises_is_seen(robust, dataset):
    slow = {"name": "pgd", "steps": 8, "step_size": 0.01, "random_start": False}
    finding = by_name(evaluated(robust, dataset, slow, findings="budget"))["loss plateau"]
    assert finding.status == "WARN"
    assert 0.1 < finding.value < 0.5
    assert "still rising at the last of 8 steps" in finding.text


def test_the_late_gain_of_a_loss_is_that_of_its_best_so_far():
    loss = torch.tensor([[0.0, 2.0, 0.0], [4.0, 1.0, 1.0], [3.0, 0.0, 1.0], [8.0, 1.0, 1.0]])
    gain = late_gain(loss)
    assert gain[0] == 0.5
    assert gain[1].isnan()  # never above its start
    assert gain[2] == 0


def test_an_attack_that_passes_by_what_it_found_is_seen(robust, dataset):
    coarse = {"name": "pgd", "steps": 10, "step_size": 1.5 * EPS, "keep": "last"}
    last = evaluated(robust, dataset, coarse, images=128, findings="budget")
    finding = by_name(last)["silent success"]
    assert finding.status in ("WARN", "FAIL")
    assert finding.value > 0
    assert "keep: best" in finding.text
    best = evaluated(robust, dataset, {**coarse, "keep": "best"}, images=128, findings="budget")
    assert by_name(best)["silent success"].status == "PASS"
    assert best.robust.correct == last.robust.correct - finding.value


def test_square_and_noise_as_attacks_of_the_list_are_held_against_those_before_them(robust, dataset):
    square = {"name": "square", "queries": 300}
    misled = evaluated(Negated(robust), dataset, AS_IT_IS[1], square)
    assert statuses(misled)["white box at least as strong as Square"] == "FAIL"
    assert by_name(misled)["white box at least as strong as Square"].value == misled.rows[1].broken > 0
    fine = evaluated(robust, dataset, *SMALL, square, images=24)
    # Once: the check with queries of its own does not apply.
    assert [f.status for f in fine.findings if "Square" in f.name] == ["PASS"]
    first = evaluated(robust, dataset, square, *SMALL, images=24, findings="budget")
    assert first.rows[0].broken > 0  # which says nothing about gradients
    assert statuses(first)["white box at least as strong as Square"] == "NOT RUN"


def test_the_official_square_is_held_against_those_before_it_too(undefended, dataset):
    official = {"name": "autoattack", "attacks": ["apgd-ce", "square"]}
    found = evaluated(Negated(undefended), dataset, official, images=6, findings="budget", eps=0.3)
    assert [row.label for row in found.rows] == ["apgd-ce", "square"]
    assert statuses(found)["white box at least as strong as Square"] == "FAIL"


def test_the_warnings_of_autoattack_are_findings(robust, dataset):
    attack = {"name": "autoattack", "attacks": ["apgd-ce"]}
    found = evaluated(Probabilities(robust), dataset, attack, images=8, findings="budget")
    warned = [f for f in found.findings if f.name == "AutoAttack's own check"]
    assert [f.status for f in warned] == ["WARN"]
    assert "probability distribution" in warned[0].text
    quiet = evaluated(robust, dataset, attack, images=8, findings="budget")
    assert "AutoAttack's own check" not in statuses(quiet)
    assert statuses(quiet)["parameter-free attack"] == "PASS"


@pytest.fixture(scope="module")
def surrogate(dataset, tmp_path_factory):
    """The folder of a small residual network that was trained on the digits as they are."""
    from robust_nas.config import apply_overrides, check, to_dict
    from robust_nas.workflows.config import RunConfig, load_config

    overrides = ["training.epochs=4", "training.loss={name: natural}", "training.validate_every=9"]
    tree = apply_overrides(to_dict(load_config("quickstart")), [*overrides, "training.validate_from=1"])
    tiny = robust_nas.ResidualArchitecture(name="tiny", stem=8, depths=(1, 1), widths=(8, 16))
    return robust_nas.train(check(RunConfig, tree, "test"), tiny, tmp_path_factory.mktemp("model") / "model")


def test_transfer_is_tried_where_there_are_surrogates(undefended, robust, dataset, surrogate):
    name = "white box at least as strong as transfer"
    misled = evaluated(
        Negated(undefended), dataset, AS_IT_IS[1], eps=0.3, surrogates=[str(surrogate)], images=16
    )
    assert statuses(misled)[name] == "FAIL"
    fine = evaluated(robust, dataset, surrogates=[str(surrogate)], images=16)
    assert statuses(fine)[name] == "PASS"


def test_the_suite_transfer_makes_its_attacks_on_the_surrogates(robust, dataset, surrogate):
    found = robust_nas.evaluate(
        robust, dataset.test, ThreatModel(eps=EPS), "transfer", images=16, surrogates=(str(surrogate),)
    )
    assert [row.label for row in found.rows] == ["pgd-20", "transfer-pgd-50-margin"]
    assert found.rows[1].parameters["surrogates"] == [str(surrogate)]
    assert "white box at least as strong as transfer" not in statuses(found)


# The curve over eps


def points(*rights, images=100):
    return [point(eps / 10, right, images, "pgd") for eps, right in enumerate(rights)]


@pytest.mark.parametrize(
    ("rights", "expected"),
    [
        ((90, 50, 10, 0), ("PASS", "PASS", "PASS")),
        ((90, 51, 54, 0), ("WARN", "FAIL", "PASS")),
        ((90, 40, 46, 0), ("FAIL", "FAIL", "PASS")),
        ((90, 50, 12, 0), ("PASS", "WARN", "PASS")),  # its interval reaches down to chance
        ((90, 50, 10, 3), ("PASS", "PASS", "WARN")),
        ((90, 50, 10, 6), ("PASS", "PASS", "FAIL")),
    ],
)
def test_a_curve_that_rises_or_does_not_end_at_nothing(rights, expected):
    found = EpsCurve().judge(points(*rights), chance=0.1)
    assert tuple(finding.status for finding in found) == expected
    assert [finding.name for finding in found] == list(PAID[8:11])
