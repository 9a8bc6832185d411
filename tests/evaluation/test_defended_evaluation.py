"""Evaluations of defended models: rows and their kinds, the adaptive finding, the section `defence`, and resuming."""

import json
from typing import Literal

import pytest
import torch
from defences_for_tests import Certifying, Noise, Shattered, Zeroed
from evaluation_networks import EPS, Images, timeless
from small_cascade import SMALL, by_name, evaluated

from robust_nas.attacks import APGD, PGD, Predictor, Unaware
from robust_nas.defences import Blur, Defended, FeatureSqueezing
from robust_nas.errors import AttackError
from robust_nas.evaluation import CHECKS, Cost, EvaluationOptions, Journal, certified, follow_protocol
from robust_nas.evaluation.detection import roc
from robust_nas.evaluation.side_by_side import SideBySide
from robust_nas.evaluation.state import EvaluationState
from robust_nas.statistics.proportions import discordant

TITLE = "adaptive at least as strong as unaware"
PGD10 = {"name": "pgd", "steps": 10}
JOINT = {"name": "joint", "steps": 6, "rounds": 2}
KEYS = {"findings": "none", "images": 24}


def detector(network, dataset, **options):
    defence = FeatureSqueezing(squeezers=("bit-2",), **options)
    images = Images(dataset.train.pixels[-200:].float() / 255, dataset.train.labels[-200:])
    return defence.wrap(network, defence.calibrate(network, images.pixels, images.labels))


def listed(found):
    """The rows of the list and of what is added to it; which images the comparison alone broke differs by machine."""
    return [row for row in found.rows if not row.label.endswith(", alone")]


def rows(found):
    return [(row.label, row.kind) for row in listed(found)]


# Rows


def test_an_undefended_model_has_neither_rows_nor_keys_of_a_defence(alone, robust, dataset):
    tree = evaluated(robust, dataset, PGD10, images=12).to_dict()
    assert "defence" not in tree
    assert all("kind" not in row for row in tree["attacks"])
    assert tree["findings"] == []


def test_a_defended_model_gets_an_unaware_row_of_the_strongest_iterative_attack(robust, dataset):
    found = evaluated(Blur().wrap(robust), dataset, *SMALL, **KEYS)
    assert rows(found) == [
        ("pgd-10", "adaptive"), ("apgd-ce", "adaptive"), ("apgd-t", "adaptive"), ("unaware-apgd-ce", "unaware"),
    ]  # fmt: skip
    last = listed(found)[-1]
    assert last.attack.attack.steps == 20
    assert last.attacked == last.common.correct + last.broken


def test_a_detector_gets_a_joint_row_too_and_what_is_listed_is_not_added(robust, dataset):
    model = detector(robust, dataset)
    few = {**KEYS, "images": 4}
    assert [label for label, _ in rows(evaluated(model, dataset, PGD10, **few))] == [
        "pgd-10", "unaware-pgd-10", "joint-5x40",
    ]  # fmt: skip
    own = {"name": "unaware", "attack": {"name": "pgd", "steps": 12}}
    longer = {"name": "joint", "steps": 45}
    found = evaluated(model, dataset, PGD10, longer, own, **few)
    assert rows(found) == [("pgd-10", "adaptive"), ("joint-5x45", "adaptive"), ("unaware-pgd-12", "unaware")]
    table = {row["kind"]: row["attack"] for row in found.defence["rows"]}
    assert table == {"undefended": "pgd-12", "unaware": "unaware-pgd-12", "adaptive": "joint-5x45"}


def test_what_is_listed_and_shorter_does_not_take_the_place_of_the_usual_ones(robust, dataset):
    weak = {"name": "unaware", "attack": {"name": "fgsm"}}
    found = evaluated(
        detector(robust, dataset), dataset, PGD10, {**JOINT, "rounds": 1}, weak, **{**KEYS, "images": 4}
    )
    assert [label for label, _ in rows(found)] == [
        "pgd-10",
        "joint-1x6",
        "unaware-fgsm",
        "unaware-pgd-10",
        "joint-5x40",
    ]
    table = {row["kind"]: row["attack"] for row in found.defence["rows"]}
    assert table == {"undefended": "pgd-10", "unaware": "unaware-pgd-10", "adaptive": "joint-5x40"}


def test_what_is_added_has_the_share_of_the_attack_that_it_follows(robust, dataset):
    tree = {
        "threat_model": {"eps": EPS},
        "attacks": [{"attack": PGD10, "images": 16}, {"attack": {"name": "noise"}}],
        **KEYS,
    }
    found = follow_protocol(Blur().wrap(robust), dataset.test, EvaluationOptions.model_validate(tree))
    assert [row.images for row in found.rows] == [16, 24, 16]


def test_an_unaware_attack_on_a_model_without_a_defence_is_refused_before_any_pass(dataset):
    class Model(torch.nn.Module):
        def forward(self, x):
            pytest.fail("asked")

    with pytest.raises(AttackError, match="has no defence"):
        evaluated(Model(), dataset, {"name": "unaware"}, images=8)


# The finding


@pytest.fixture
def alone(monkeypatch):
    """The finding without the others, which cost more."""
    only = [CHECKS.make("adaptive")]
    monkeypatch.setattr("robust_nas.evaluation.protocol.with_standard", lambda extra: only)


@pytest.mark.parametrize("defence", [Zeroed(), Shattered()])
def test_a_defence_that_hides_its_gradient_fails_and_is_unreliable(alone, undefended, dataset, defence):
    found = evaluated(defence.wrap(undefended), dataset, *SMALL[:2], images=32)
    finding = by_name(found)[TITLE]
    assert finding.status == "FAIL", finding
    assert finding.value >= 6
    assert found.verdict.status == "UNRELIABLE"
    unaware, adaptive = (found.defence["rows"][place]["robust"]["correct"] for place in (1, 2))
    assert unaware < adaptive
    assert found.robust.correct <= unaware  # the worst case is over both


@pytest.mark.parametrize("network", ["robust", "undefended"])
def test_honest_defences_pass(alone, request, dataset, network):
    model = request.getfixturevalue(network)
    for defended in (Blur().wrap(model), detector(model, dataset), Noise().wrap(model)):
        attacks = (
            ({"name": "apgd", "steps": 8}, JOINT) if defended.abstains else ({"name": "pgd", "steps": 5},)
        )
        found = evaluated(defended, dataset, *attacks, images=24, deployed={"eot": 4, "draws": 3})
        assert by_name(found)[TITLE].status == "PASS", by_name(found)[TITLE]


@pytest.mark.parametrize(
    ("ours", "theirs", "status"),
    [(0, 6, "FAIL"), (0, 5, "WARN"), (1, 2, "PASS"), (20, 0, "PASS"), (10, 14, "WARN"), (0, 0, "PASS")],
)
def test_the_status_follows_mcnemar_s_exact_test(ours, theirs, status):
    n = 60
    index = torch.arange(n)
    attack = APGD(eps=0.1)
    found = SideBySide(
        inner=attack,
        unaware=Unaware(eps=0.1, attack=attack),
        adaptive=attack,
        left=torch.zeros(n, dtype=torch.bool),
        clean=torch.ones(n, dtype=torch.bool),
        adaptive_right=index >= ours,
        unaware_right=(index < n - theirs),
        twin_clean=index >= 0,
        twin_right=index >= 0,
        scores=None,
        certified=None,
        passes=0,
        seconds=0.0,
    )

    class State:
        side_by_side = found
        predictor = Predictor(torch.nn.Identity())

    (finding,) = CHECKS.make("adaptive").run(State(), index, Cost())
    assert (finding.status, finding.value, finding.images) == (status, theirs - ours, n)


@pytest.mark.parametrize(
    ("rate", "fpr", "status"), [(0.02, 0.05, "PASS"), (0.3, 0.05, "WARN"), (0.9, 0.9, "WARN")]
)
def test_a_detector_that_rejects_clean_images_is_warned_of(rate, fpr, status):
    logits = torch.tensor([0.0, 1.0, 0.0]).repeat(100, 1)
    logits[: round(100 * rate), 2] = 2
    defence = FeatureSqueezing(squeezers=("bit-2",), fpr=fpr)

    class State:
        predictor = Predictor.of(defence.wrap(torch.nn.Identity(), {"threshold": 1.0, "channels": 1}))
        clean_logits, classes, labels = logits, 2, torch.ones(100)

    check = CHECKS.make("false-alarms")
    assert check.applies(State())
    (finding,) = check.run(State(), torch.arange(100), Cost())
    assert (finding.status, finding.value) == (status, pytest.approx(rate))


def test_images_that_the_comparison_alone_broke_are_warned_of(robust, dataset):
    found = evaluated(Blur().wrap(robust), dataset, {"name": "square", "queries": 3}, images=48)
    finding = by_name(found)[TITLE]
    assert finding.status == "WARN"
    assert "of them right: list stronger ones" in finding.text
    adaptive = found.defence["rows"][2]["robust"]["correct"]
    assert found.robust.correct <= adaptive  # which counts in the worst case, as a row of its own
    assert found.rows[-1].label == "apgd-ce, alone"
    assert (found.rows[-1].kind, found.rows[-1].common) == ("adaptive", found.robust)
    assert found.rows[-1].broken == len(found.rows[-1].broken_indices) > 0


def test_in_l1_a_detector_is_not_reliable(alone, robust, dataset):
    found = evaluated(detector(robust, dataset), dataset, {"name": "apgd", "steps": 5}, images=12, norm="l1")
    assert by_name(found)[TITLE].status == "WARN"
    assert "no attack weighs the rejection in l1" in by_name(found)[TITLE].text


def test_surrogates_are_still_tried_on_a_defended_model(robust, dataset):
    state = type("State", (), {"surrogates": ("m",), "attacks": (Unaware(eps=EPS),)})()
    state.guided_by = EvaluationState.guided_by.__get__(state)
    assert CHECKS.make("transfer").applies(state)


class Unscored(Blur):
    """A detector without a score: it rejects what is dark."""

    abstains = True
    name: Literal["unscored"] = "unscored"

    def build(self, network, values):
        class Dark(Defended):
            def forward(self, x):
                logits = self.module(x)
                return torch.cat([logits, logits.amax(1, keepdim=True) + 0.1 - x.mean((1, 2, 3))[:, None]], 1)

        return Dark(network, self, values)


def test_a_detector_without_a_score_is_evaluated_without_a_curve(robust, dataset):
    found = evaluated(Unscored().wrap(robust), dataset, PGD10, **{**KEYS, "images": 4})
    assert found.defence["roc"] is None
    assert found.defence["false_alarms"]["images"] == 4


def test_an_attack_more_keeps_the_records_of_those_before_it(robust, dataset):
    model, entries = Blur().wrap(robust), {}

    def evaluation(*attacks, journal=None):
        tree = {"threat_model": {"eps": EPS}, "attacks": [{"attack": attack} for attack in attacks], **KEYS}
        return follow_protocol(model, dataset.test, EvaluationOptions.model_validate(tree), journal=journal)

    def kept(*attacks):
        return evaluation(*attacks, journal=Journal(dict(entries), entries.__setitem__))

    first = kept({"name": "pgd", "steps": 2})
    more = kept({"name": "pgd", "steps": 2}, PGD10)
    assert rows(first)[-1][0] == "unaware-pgd-2"
    assert [label for label, _ in rows(more)] == ["pgd-2", "pgd-10", "unaware-pgd-10"]
    one, other = (timeless(each.to_dict()) for each in (more, evaluation({"name": "pgd", "steps": 2}, PGD10)))
    for tree in (one, other):
        tree["defence"]["seconds"] = 0
    assert one == other
    assert any(name.startswith("attack 0 pgd-2") for name in entries)


def test_mcnemar_is_a_sign_test_of_the_discordant_images():
    assert discordant(0, 0) == 1
    assert discordant(0, 5) == pytest.approx(2 / 32)
    assert discordant(3, 9) == discordant(9, 3) == pytest.approx(2 * sum((1, 12, 66, 220)) / 2**12)


# The section


def test_the_rows_are_each_attack_alone_on_the_same_images(robust, dataset):
    model = detector(robust, dataset)
    found = evaluated(model, dataset, PGD10, JOINT, **KEYS)
    table = {row["kind"]: row for row in found.defence["rows"]}
    assert list(table) == ["undefended", "unaware", "adaptive"]
    assert {row["clean"]["images"] for row in table.values()} == {found.defence["images"]} == {24}
    assert table["unaware"]["robust"]["correct"] >= table["adaptive"]["robust"]["correct"]
    assert table["unaware"]["clean"] == table["adaptive"]["clean"] == found.clean.to_dict()
    alone = evaluated(robust, dataset, PGD10, **KEYS)
    assert abs(table["undefended"]["robust"]["correct"] - alone.robust.correct) <= 1  # another start
    assert found.defence["name"] == "feature-squeezing"
    assert found.defence["options"]["squeezers"] == ["bit-2"]
    assert found.defence["values"] == model.values
    alarms = found.defence["false_alarms"]
    assert alarms["rate"] == pytest.approx(found.rejected)
    assert alarms["rejected"] == round(24 * found.rejected)
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_comparison_repeats_and_resumes_to_the_same_record(robust, dataset):
    model = detector(robust, dataset)
    journal = Journal()
    tree = {
        "threat_model": {"eps": EPS},
        "attacks": [{"attack": PGD10}, {"attack": JOINT}],
        "images": 20,
        "batch_size": 8,
        "findings": "none",
    }
    options = EvaluationOptions.model_validate(tree)

    def run(journal):
        return follow_protocol(model, dataset.test, options, journal=journal).to_dict()

    first = run(journal)
    names = [name for name in journal.records if name.startswith("side by side")]
    assert len(names) == 3
    part = {name: record for name, record in journal.records.items() if name != names[1]}
    assert same(run(Journal(part)), first)
    kept = Journal(dict(journal.records), lambda name, record: pytest.fail(f"{name} made again"))
    assert run(kept) == first


def same(tree, other):
    trees = [timeless({**each, "defence": {**each["defence"], "seconds": 0}}) for each in (tree, other)]
    return trees[0] == trees[1]


def test_scores_tell_attacked_images_from_clean_ones_or_not(undefended, dataset):
    model = detector(undefended, dataset)
    found = evaluated(model, dataset, {"name": "apgd", "steps": 15}, {**JOINT, "steps": 15}, eps=0.1, **KEYS)
    curves = found.defence["roc"]
    assert set(curves) == {"unaware", "adaptive"}
    assert curves["adaptive"]["auc"] < curves["unaware"]["auc"]
    for curve in curves.values():
        assert curve["points"][0] == {"false_alarms": 1.0, "detected": 1.0}
        assert curve["points"][-1] == {"false_alarms": 0.0, "detected": 0.0}


def test_the_curve_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score, roc_curve

    draws = torch.Generator().manual_seed(0)
    clean = (8 * torch.rand(20, generator=draws)).round()  # with ties
    attacked = (8 * torch.rand(15, generator=draws)).round() + 1
    found = roc(clean, attacked, 4.0)
    truth = [0] * 20 + [1] * 15
    scores = torch.cat([clean, attacked]).numpy()
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    points = [(point["false_alarms"], point["detected"]) for point in reversed(found["points"])]
    assert [x for x, _ in points] == pytest.approx(false.tolist())
    assert [y for _, y in points] == pytest.approx(true.tolist())
    assert found["auc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["at_threshold"]["false_alarms"] == pytest.approx(float((clean > 4).float().mean()))
    assert roc(clean, attacked[:0], 4.0) is None
    many = roc(torch.rand(300, generator=draws), torch.rand(300, generator=draws), 0.5)
    assert len(many["points"]) == 60


# Certificates


def test_certified_accuracy_is_at_the_radius_that_covers_eps(robust, dataset):
    model = Certifying().wrap(robust)
    found = evaluated(model, dataset, PGD10, norm="l2", eps=0.35, **KEYS)
    row = found.defence["rows"][-1]
    right = found.clean.correct  # the first image abstains, images from the fourth on have radius .4 and more
    assert row["kind"] == "certified"
    assert row["attack"] is None
    assert row["clean"]["correct"] == right - 1
    assert row["robust"]["correct"] == right - 4
    section = found.defence["certified"]
    assert (section["norm"], section["radius"], section["images"]) == ("l2", 0.35, 24)
    assert section["points"][0] == {"radius": 0.0, "accuracy": pytest.approx((right - 1) / 24)}
    accuracies = [point["accuracy"] for point in section["points"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] == pytest.approx(1 / 24)
    assert found.defence["false_alarms"] is None
    assert found.defence["roc"] is None


def test_an_l2_certificate_covers_other_balls_and_no_other_does():
    assert certified.needed_radius("linf", 0.1, "l2", 64) == pytest.approx(0.8)
    assert certified.needed_radius("l1", 0.1, "l2", 64) == 0.1
    assert certified.needed_radius("l1", 0.1, "l1", 64) == 0.1
    assert certified.needed_radius("l2", 0.1, "linf", 64) is None


def test_a_certificate_of_another_norm_has_no_robust_score(robust, dataset):
    found = evaluated(Certifying(norm="l1").wrap(robust), dataset, PGD10, **KEYS)
    assert found.defence["rows"][-1]["robust"] is None
    assert found.defence["certified"]["radius"] is None


def test_the_predictor_of_a_defended_model_is_evaluated_the_same(robust, dataset):
    model = Blur().wrap(robust)
    first, second = (evaluated(each, dataset, PGD10, **KEYS) for each in (model, Predictor(model)))
    assert same(first.to_dict(), second.to_dict())
    attack = PGD(eps=EPS, steps=10)
    assert listed(first)[-1].attack.attack == attack
