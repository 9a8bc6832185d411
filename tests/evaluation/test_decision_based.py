"""Attacks by answers alone in an evaluation: the finding on decisions, curves over queries, their suite."""

import pytest
import torch
from evaluation_bad_networks import Negated, Quantised, Zeroed
from evaluation_networks import EPS
from small_cascade import AS_IT_IS, by_name, evaluated, statuses

from robust_nas.attacks import HopSkipJump, Noise, Square, ThreatModel
from robust_nas.attacks.query_log import QueryTrace
from robust_nas.evaluation import Cost, evaluate, query_curve
from robust_nas.evaluation.checks.decision_based import TITLE, DecisionBased
from robust_nas.evaluation.query_curves import query_summary

DECISION = {"name": "hop-skip-jump", "queries": 300}
SQUARE = "white box at least as strong as Square"


def checked(model, dataset, eps=EPS, **more):
    """The check's own finding after PGD and APGD on the model as it is, in an evaluation without other checks."""
    from robust_nas.data import random_indices
    from robust_nas.evaluation.attack_rows import run_attacks
    from robust_nas.evaluation.journal import Journal
    from robust_nas.evaluation.options import EvaluationOptions
    from robust_nas.evaluation.protocol import with_rule
    from robust_nas.evaluation.start import start

    tree = {
        "threat_model": {"eps": eps},
        "attacks": [{"attack": a} for a in AS_IT_IS[:2]],
        "findings": "full",
    }
    predictor, options = with_rule(model, EvaluationOptions.model_validate(tree))
    order = random_indices(len(dataset.test.labels), 40, 0)
    journal, quiet = Journal(), lambda name, fraction: None
    state, _, attacks = start(
        predictor,
        dataset.test,
        options,
        order,
        seed=0,
        device=torch.device("cpu"),
        journal=journal,
        report=quiet,
    )
    run_attacks(attacks, state, order, journal, quiet)
    check, cost = DecisionBased(**more), Cost()
    assert check.applies(state)
    indices = state.select(check.selection)[: check.most]
    (finding,) = check.run(state, indices, cost)
    assert 0 < cost.passes <= check.cost(state) * len(indices)
    return finding


@pytest.mark.parametrize("make", [Negated, Quantised, Zeroed])
def test_a_masked_gradient_is_caught_by_decisions(robust, dataset, make):
    finding = checked(make(robust), dataset, eps=2 * EPS)
    assert (finding.name, finding.status) == (TITLE, "FAIL")
    assert finding.value > 1
    assert "sees decisions alone" in finding.text


def test_an_honest_network_passes_and_the_control_shows_the_power(robust, dataset):
    finding = checked(robust, dataset)
    assert (finding.name, finding.status, finding.value) == (TITLE, "PASS", 0)
    assert "images that the white box broke" in finding.text
    assert "says little" not in finding.text
    weak = checked(robust, dataset, queries=3)
    assert weak.status == "WARN"  # it did not even start
    assert "so that this says little: take more queries, or the suite black-box" in weak.text


def test_it_is_run_at_full_depth_or_where_such_an_attack_is_listed(robust, dataset):
    few = {"images": 12, "findings": "budget"}
    assert TITLE not in statuses(evaluated(robust, dataset, *AS_IT_IS[:1], **few))
    listed = evaluated(Negated(robust), dataset, AS_IT_IS[1], DECISION, eps=2 * EPS, **few)
    assert statuses(listed)[TITLE] == "FAIL"
    assert by_name(listed)[TITLE].value == listed.rows[1].broken > 0
    assert [f.name for f in listed.findings].count(TITLE) == 1
    assert SQUARE in statuses(listed)  # which looks at scores, and has not been listed
    both = evaluated(robust, dataset, AS_IT_IS[1], {"name": "square", "queries": 30}, DECISION, **few)
    seen = statuses(both)
    assert seen[TITLE] == seen[SQUARE] == "PASS"
    first = evaluated(robust, dataset, DECISION, AS_IT_IS[1], **few)
    assert statuses(first)[TITLE] == "NOT RUN"


def test_the_suite_black_box_counts_queries_and_draws_its_curves(undefended, dataset, tmp_path):
    found = evaluate(undefended, dataset.test, ThreatModel(eps=0.15), "black-box", images=16, findings="none")
    assert [row.label for row in found.rows] == ["square-5000", "hop-skip-jump-5000"]
    assert found.rows[0].broken > 5
    for row in found.rows:
        queries = row.to_dict()["queries"]
        assert queries["total"] <= row.forwards
        assert queries["most"] <= row.attack.query_budget
        if row.attacked:
            curve = queries["curve"]
            assert curve[-1]["queries"] == queries["most"]
            success = [point["success"] for point in curve]
            assert success == sorted(success)
            assert round(success[-1] * row.attacked) == row.broken
    pgd = evaluated(undefended, dataset, AS_IT_IS[0], images=8, findings="none")
    assert "queries" not in pgd.rows[0].to_dict()
    from robust_nas.figures import FIGURES

    figure = FIGURES.make("queries")
    assert figure.has_data(found.to_dict())
    assert not figure.has_data(pgd.to_dict())
    assert all(path.exists() for path in figure.draw(found.to_dict(), tmp_path / "queries", caption="about"))


def test_an_attack_that_does_not_start_leaves_a_gap(robust, dataset):
    class Constant(torch.nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :10] + torch.arange(10, 0, -1)

    found = evaluated(
        Constant(), dataset, {"name": "hop-skip-jump", "queries": 20}, images=24, findings="budget"
    )
    finding = by_name(found)["attacks found where to start"]
    assert finding.status == "WARN"
    assert "no misclassified starting point" in finding.text


# The curve


def test_the_curve_is_the_median_and_the_share_within_eps_at_each_number_of_queries():
    asked = torch.tensor([10, 10, 10, 1])
    trace = QueryTrace(
        torch.tensor([3, 0, 1, 0, 1]), torch.tensor([1, 2, 3, 8, 9]), torch.tensor([0.0, 0.5, 0.9, 0.2, 0.1])
    )
    points = {point["queries"]: point for point in query_curve(asked, trace, eps=0.3)}
    assert points[1] == {"queries": 1, "distance": None, "success": 0.25}
    assert points[2] == {"queries": 2, "distance": None, "success": 0.25}
    assert points[3]["distance"] == pytest.approx(0.9)  # of 0, 0.5, 0.9 and none
    assert points[8] == {"queries": 8, "distance": pytest.approx(0.9), "success": 0.5}
    assert points[10] == {"queries": 10, "distance": pytest.approx(0.2), "success": 0.75}
    assert "success" not in query_curve(asked, trace)[0]
    assert (
        len(query_curve(torch.tensor([5000]), trace._replace(image=torch.zeros(5, dtype=torch.int64)))) <= 62
    )


def test_batches_are_joined_and_an_earlier_version_s_journal_has_no_curve():
    part = {
        "asked": torch.tensor([4, 1]),
        "image": torch.tensor([0]),
        "queries": torch.tensor([3]),
        "distance": torch.tensor([0.1]),
    }
    joined = query_summary([part, part], eps=0.2)
    assert (joined["total"], joined["median"], joined["most"]) == (10, 2.5, 4)
    assert joined["curve"][-1] == {"queries": 4, "distance": None, "success": 0.5}
    assert query_summary([part, None], eps=0.2) == query_summary([], eps=0.2) == {}


def test_the_budget_of_an_attack_is_its_attribute():
    assert HopSkipJump(queries=70, eot=3).query_budget == 210
    assert Square(eps=0.1, queries=70, restarts=2).query_budget == 141


class SaysZero(torch.nn.Module):
    """A model whose answer is class 0 for every image, with a gradient."""

    def forward(self, x):
        far = x.flatten(1).sum(1, keepdim=True) / 1000
        return torch.cat([far + 9, -far.expand(-1, 9)], dim=1)


def test_a_decision_based_finding_without_a_start_is_no_pass(dataset):
    finding = checked(SaysZero(), dataset, queries=20)
    assert (finding.name, finding.status) == (TITLE, "WARN")
    assert "no misclassified starting point" in finding.text


def test_findings_by_queries_say_that_l1_is_not_theirs(robust, dataset):
    found = by_name(evaluated(robust, dataset, {"name": "noise", "draws": 2}, norm="l1", eps=0.5, images=12))
    for title, attack in ((TITLE, "HopSkipJump"), (SQUARE, "Square")):
        assert found[title].status == "NOT RUN"
        assert f"{attack} is not defined in l1" in found[title].text


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 0.3])
def test_a_curve_ends_with_what_the_attack_broke(undefended, dataset, eps):
    images, labels = dataset.test.draw(60, 0).float(), dataset.test.draw(60, 0).labels
    for attack in (Square(eps=eps, queries=40), Noise(eps=eps, draws=20)):
        result = attack.run(undefended, images, labels, torch.Generator().manual_seed(0), trace=True)
        with torch.no_grad():
            broken = (undefended(result.images).argmax(1) != labels).float().mean()
        assert query_curve(result.queries, result.query_trace, eps)[-1]["success"] == pytest.approx(
            float(broken)
        )
