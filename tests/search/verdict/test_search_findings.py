"""The verdict on a search: each finding on made-up evidence, and the word that they lead to."""

import dataclasses
import json

import numpy as np
import pytest
from verdict_cases import (
    BETTER,
    HEALTHY,
    SPACE,
    controls,
    evidence,
    one_search,
    records,
    with_operation,
)

from robust_nas.search import DSARA, RandomSearch, judge
from robust_nas.search.verdict import SEARCH_FINDINGS, SearchFinding, SearchVerdict

PLANTED = one_search()


def status_of(verdict):
    return {one.name: one.status for one in verdict.findings}


def finding(verdict, title):
    return next(one for one in verdict.findings if one.name == title)


def test_a_search_that_decides_and_is_better_than_its_controls_is_conclusive():
    verdict = judge(evidence(PLANTED))
    assert verdict.status == "CONCLUSIVE", verdict.reasons
    assert (verdict.reasons, verdict.next_step) == ((), "")
    left = {name: status for name, status in status_of(verdict).items() if status != "PASS"}
    assert left == {"rank correlation with short trainings": "NOT RUN"}


def test_every_finding_is_made_of_a_one_shot_search_and_can_be_written():
    verdict = judge(evidence(PLANTED))
    assert [one.name for one in verdict.findings] == [
        SEARCH_FINDINGS.get(name).title for name in SEARCH_FINDINGS.names()
    ]
    tree = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert tree["status"] == "CONCLUSIVE"
    assert {one["name"] for one in tree["findings"] if one["required"]} == {
        "agreement between seeds",
        "margin over the next operation",
        "control at equal MACs",
    }


def test_what_is_no_pass_says_what_to_do():
    noise = evidence(one_search(drift=0.0)[:1], fitness=None, controls=None, gamma=0.99)
    found = [one for one in judge(noise).findings if one.status != "PASS"]
    assert len(found) >= 6
    assert [one.name for one in found if not one.next_step] == []


def test_the_same_evidence_has_the_same_verdict():
    assert judge(evidence(PLANTED)).to_dict() == judge(evidence(PLANTED)).to_dict()


def test_noise_is_inconclusive_with_the_reasons():
    verdict = judge(evidence(one_search(drift=0.0)))
    assert verdict.status == "INCONCLUSIVE"
    assert [reason.partition(":")[0] for reason in verdict.reasons] == [
        "agreement between seeds",
        "margin over the next operation",
    ]


def test_no_better_than_random_is_said_in_those_words():
    verdict = judge(evidence(PLANTED, controls=controls(0.01, -0.02, 0.04)))
    assert verdict.status == "INCONCLUSIVE"
    (reason,) = verdict.reasons
    assert reason.startswith("decided, but not better than random at equal MACs")
    assert "the controls are better" not in reason


def test_controls_that_are_better_than_the_search_are_said():
    verdict = judge(evidence(PLANTED, controls=controls(-0.05, -0.08, -0.02)))
    assert verdict.status == "INCONCLUSIVE"
    assert "the controls are better" in verdict.reasons[0]


def test_noise_that_is_no_better_than_random_did_not_decide():
    verdict = judge(evidence(one_search(drift=0.0), controls=controls(0.0, -0.03, 0.03)))
    assert not any(reason.startswith("decided") for reason in verdict.reasons)
    assert any("not better than random at equal MACs" in reason for reason in verdict.reasons)


def test_without_controls_the_command_that_adds_them_is_the_next_step():
    verdict = judge(evidence(PLANTED, controls=None))
    assert verdict.status == "INCONCLUSIVE"
    assert verdict.next_step == "robust-nas search --resume found search.controls=3"


def test_controls_of_an_unreliable_evaluation_decide_nothing():
    found = judge(evidence(PLANTED, controls=controls(0.04, 0.01, 0.07, "UNRELIABLE")))
    assert found.status == "INCONCLUSIVE"
    assert "UNRELIABLE" in found.reasons[0]


def test_one_seed_is_asked_for_another():
    verdict = judge(evidence(PLANTED[:1]))
    assert verdict.status == "INCONCLUSIVE"
    assert finding(verdict, "agreement between seeds").status == "NOT RUN"
    assert "--seeds 2" in verdict.next_step


@pytest.mark.parametrize("accuracies", [{"clean": 0.12, "robust": 0.1}, {"clean": 0.8, "robust": 0.13}])
def test_a_supernet_that_did_not_learn_fails(accuracies):
    verdict = judge(evidence(PLANTED, fitness={**HEALTHY, "supernet": accuracies}))
    assert verdict.status == "FAILED"
    assert "the supernet did not learn" in verdict.reasons[0]


def test_an_accuracy_that_is_no_number_is_not_above_chance():
    verdict = judge(evidence(PLANTED, fitness={**HEALTHY, "supernet": {"clean": 0.9, "robust": None}}))
    assert verdict.status == "FAILED"


def test_another_seeds_supernet_that_did_not_learn_is_a_doubt():
    whole = evidence(PLANTED)
    other = dataclasses.replace(
        whole.seeds[1],
        result={"loss_adversarial": 9.0, "fitness": {**HEALTHY, "supernet": {"clean": 0.1, "robust": 0.1}}},
    )
    verdict = judge(dataclasses.replace(whole, seeds=[whole.seeds[0], other]))
    assert finding(verdict, "supernet above chance").status == "WARN"
    assert "seed 1" in finding(verdict, "supernet above chance").text
    assert verdict.status == "CONCLUSIVE"


def test_a_search_that_collapsed_to_skips_fails_although_its_seeds_agree():
    verdict = judge(evidence(with_operation(PLANTED, "skip_connect")))
    assert verdict.status == "FAILED"
    assert "skip connections" in verdict.reasons[0]
    assert finding(verdict, "agreement between seeds").status == "PASS"


def test_one_operation_everywhere_is_a_doubt():
    verdict = judge(evidence(with_operation(PLANTED, "dil_conv_3x3")))
    assert finding(verdict, "collapse").status == "WARN"
    assert "dil_conv_3x3" in finding(verdict, "collapse").text


def test_operations_without_parameters_are_a_doubt():
    half = with_operation(PLANTED, "max_pool_3x3")
    half[..., ::2, :] = half[..., ::2, [1, 0, *range(2, 7)]]
    found = finding(judge(evidence(half)), "collapse")
    assert found.status == "WARN"
    assert "has parameters" in found.text


def test_gamma_at_an_end_is_a_doubt_with_its_remedy():
    found = finding(judge(evidence(PLANTED, gamma=0.97)), "balance of the gradients")
    assert found.status == "WARN"
    assert "natural" in found.text
    assert "normalise" in found.next_step


def test_a_search_without_gamma_has_no_finding_on_it():
    assert "balance of the gradients" not in status_of(judge(evidence(PLANTED, gamma=None)))


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda step: 2.3 + 0.01 * (step % 2), "did not fall"),
        (lambda step: 2.3 - 0.02 * step, "in the last quarter"),
        (lambda step: 2.3 - 0.02 * min(step, 12) + 0.01 * (step % 2), "is lost"),
    ],
)
def test_losses_that_do_not_fit_a_decision_are_a_doubt(loss, words):
    found = finding(judge(evidence(PLANTED, loss_adversarial=loss)), "losses of both halves")
    assert found.status == "WARN"
    assert words in found.text


def test_even_weights_are_a_doubt():
    even = dict.fromkeys(SPACE.kinds, 1.93)
    found = finding(judge(evidence(PLANTED, entropy=even)), "entropy of the edge weights")
    assert found.status == "WARN"
    assert found.value == pytest.approx(1.93 / np.log(7))


def test_a_derived_network_at_chance_is_a_gap():
    fitness = {**HEALTHY, "derived": {"clean": 0.1, "robust": 0.1}}
    assert finding(judge(evidence(PLANTED, fitness=fitness)), "discretisation gap").status == "WARN"


@pytest.mark.parametrize(
    ("interval", "status"), [([0.1, 0.8], "PASS"), ([-0.1, 0.8], "WARN"), (None, "WARN")]
)
def test_rank_correlation_needs_an_interval_above_zero(interval, status):
    fitness = {**HEALTHY, "rank_correlation": {"networks": 10, "kendall": 0.45, "interval": interval}}
    found = finding(judge(evidence(PLANTED, fitness=fitness)), "rank correlation with short trainings")
    assert found.status == status


def test_searches_of_earlier_versions_have_gaps_and_no_errors():
    whole = evidence(PLANTED)
    old = [
        dataclasses.replace(
            one,
            records=[{k: v for k, v in r.items() if k != "edge_weights"} for r in one.records],
            result={"loss_adversarial": 1.0},
        )
        for one in whole.seeds
    ]
    verdict = judge(dataclasses.replace(whole, seeds=old))
    assert verdict.status == "INCONCLUSIVE"
    assert status_of(verdict)["margin over the next operation"] == "NOT RUN"
    assert status_of(verdict)["supernet above chance"] == "NOT RUN"
    assert verdict.edges == ()


def test_a_trajectory_that_is_too_short_is_not_tested():
    verdict = judge(evidence(PLANTED[:, :3]))
    assert finding(verdict, "margin over the next operation").status == "NOT RUN"


def test_epochs_in_which_the_alphas_stand_still_are_no_blocks():
    still = np.concatenate([np.full_like(PLANTED[:, :5], 1 / 7), PLANTED[:, :3]], axis=1)
    assert finding(judge(evidence(still)), "margin over the next operation").status == "NOT RUN"


def test_sampled_strategies_need_the_control_alone():
    whole = evidence(one_search(drift=0.0), strategy=RandomSearch(), controls=BETTER)
    seeds = [dataclasses.replace(one, records=[{"score": 0.1}], result={"score": 0.5}) for one in whole.seeds]
    verdict = judge(dataclasses.replace(whole, seeds=seeds))
    assert verdict.status == "CONCLUSIVE"
    assert set(status_of(verdict)) == {"agreement between seeds", "control at equal MACs"}
    assert finding(verdict, "agreement between seeds").status == "WARN"
    without = judge(dataclasses.replace(whole, seeds=seeds, controls=None))
    assert without.status == "INCONCLUSIVE"


def test_edges_have_weight_noise_and_margin():
    verdict = judge(evidence(PLANTED))
    assert len(verdict.edges) == 24
    chosen = evidence(PLANTED).seeds[0]
    last = chosen.records[-1]["edge_weights"]
    edge = verdict.edges[0]
    rows = last[edge["kind"]]
    place = SPACE.edges.index((edge["node"], edge["source"]))
    assert edge["weight"] == pytest.approx(rows[place][SPACE.operations.index(edge["operation"])], abs=1e-6)
    assert all(0 < one["noise"] < 0.2 for one in verdict.edges)
    assert sum(one["decided"] for one in verdict.edges) > 20
    assert sum(one["decided"] for one in judge(evidence(one_search(drift=0.0))).edges) < 8


def test_any_fail_fails():
    of = lambda **values: SearchFinding(name="x", text="t", **values)  # noqa: E731
    assert SearchVerdict.of([of(status="FAIL"), of(status="PASS", required=True)]).status == "FAILED"
    assert SearchVerdict.of([of(status="WARN"), of(status="PASS", required=True)]).status == "CONCLUSIVE"
    assert SearchVerdict.of([of(status="WARN", required=True)]).status == "INCONCLUSIVE"


def test_records_of_another_shape_are_not_read():
    whole = evidence(PLANTED)
    wrong = records(PLANTED[0][..., :3])
    seeds = [dataclasses.replace(one, records=wrong) for one in whole.seeds]
    verdict = judge(dataclasses.replace(whole, seeds=seeds))
    assert finding(verdict, "margin over the next operation").status == "NOT RUN"


def test_a_strategy_that_moves_no_alphas_by_adam_has_no_momentum():
    from robust_nas.search.verdict.trajectory import momentum_of

    assert momentum_of(evidence(PLANTED)) == DSARA().alphas.betas[0]
    assert momentum_of(evidence(PLANTED, strategy=RandomSearch())) == 0
