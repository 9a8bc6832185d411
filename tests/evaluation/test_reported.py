"""What a reader is given with the figure: precision, chance, next step, and a sentence for a paper."""

import pytest
import torch
from evaluation_networks import Images
from torch import nn

import robust_nas
from robust_nas import ThreatModel, __version__
from robust_nas.attacks import FGSM
from robust_nas.evaluation import Finding, Score, Step, Verdict, paper_sentence
from robust_nas.statistics.proportions import images_needed, wilson


class Constant(nn.Module):
    """Answers class 0, with a weak gradient."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        logits = x.flatten(1).sum(1, keepdim=True).expand(-1, self.classes) * 1e-3
        return logits + torch.eye(self.classes)[0]


def evaluated(counts, classes):
    """The evaluation of a constant answer on so many images of each class."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    pixels = torch.rand(len(labels), 1, 3, 3, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, labels)
    suite = [Step(attack=FGSM(eps=0.01))]
    return robust_nas.evaluate(Constant(classes), images, ThreatModel(eps=0.01), suite)


def above_chance(found):
    return next(finding for finding in found.findings if finding.name == "robustness above chance")


@pytest.mark.parametrize(
    ("counts", "classes", "chance"),
    [
        ((11, 9, 4), 3, "above 0.458: largest class 11 of 24"),
        ((2, 2, 2, 2, 2), 5, "above 0.2: largest class 2 of 10"),
        ((2, 2), 9, "above 0.5: largest class 2 of 4"),
    ],
)
def test_chance_says_what_it_is_of(counts, classes, chance):
    assert above_chance(evaluated(counts, classes)).allowed == chance


def test_what_is_not_above_chance_says_what_to_do():
    finding = above_chance(evaluated((11, 9, 4), 3))
    assert finding.status == "WARN"
    assert (
        "of 11 of 24 reaches down to 0.279, chance is 0.458, the share of the largest class (11 of"
        in finding.text
    )
    assert finding.next_step.startswith("train the model against attacks")
    assert Verdict.of((finding,)).next_step == finding.next_step


@pytest.mark.parametrize(
    ("status", "step"),
    [
        ("FAIL", "do not report the robust accuracy; repair what 'noise' says"),
        ("WARN", "evaluate again with a stronger suite"),
        ("NOT RUN", "evaluate again with evaluation.findings=full"),
    ],
)
def test_the_next_step_answers_the_first_reason(status, step):
    first = Finding(name="noise", status=status, text="seen")
    second = Finding(name="other", status=status, text="seen", next_step="something else")
    verdict = Verdict.of((Finding(name="good", status="PASS", text="fine"), first, second))
    assert verdict.next_step.startswith(step)
    assert Verdict.of((second, first)).next_step == "something else"
    assert Verdict.of(()).next_step.startswith("evaluate with evaluation.findings=budget")
    assert Verdict.of((Finding(name="good", status="PASS", text="fine"),)).next_step == ""


def test_the_precision_of_a_score_is_its_interval_and_what_would_narrow_it():
    low, high = wilson(43, 64)
    assert Score(correct=43, images=64).precision() == {
        "width": high - low,
        "target": 0.06,
        "images": images_needed(43 / 64, 0.06),
    }
    assert 900 < images_needed(43 / 64, 0.06) < 1000


@pytest.fixture(scope="module")
def tree():
    return evaluated((11, 9, 4), 3).to_dict()


def test_the_sentence_holds_everything_that_the_figure_needs(tree):
    sentence = paper_sentence(tree, model="net", images="24 images of mine")
    for fragment in (
        "The model net was evaluated on 24 images of mine under linf perturbations of at most 0.01 (pixels in 0..1)",
        "attacks fgsm (suite of its own, seed 0)",
        f"robust_nas {__version__}",
        "clean accuracy 45.8 % (27.9 to 64.9 %, 24 images), robust accuracy 45.8 % (27.9 to 64.9 %, 24 images)",
    ):
        assert fragment in sentence
    own = paper_sentence({**tree, "suite": "/somewhere/mine.yaml"}, model="net", images="24")
    assert "(suite mine.yaml, seed 0)" in own  # no place of a machine
    warned = {**tree, "warnings": [{"text": "seen before", "advice": "do not"}], "notes": ["in bits"]}
    assert paper_sentence(warned, model="net", images="24").endswith(" Note: seen before. Note: in bits.")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("RELIABLE", "verdict on this evidence is RELIABLE."),
        ("INCONCLUSIVE", "is INCONCLUSIVE (finite logits)."),
        (
            "UNRELIABLE",
            "is UNRELIABLE (finite logits), so that the robust accuracy is no evidence of robustness.",
        ),
    ],
)
def test_the_sentence_never_leaves_out_the_verdict(tree, status, said):
    finding = next(one for one in tree["findings"] if one["name"] == "finite logits")
    reasons = [] if status == "RELIABLE" else [f"finite logits: {finding['text']}"]
    changed = {**tree, "verdict": {"status": status, "reasons": reasons, "next_step": ""}}
    assert said in paper_sentence(changed, model="net", images="24 images")


def test_a_random_or_abstaining_rule_is_part_of_the_sentence(tree):
    rule = {"samples": 4, "eot": 2, "draws": 1, "abstains": True}
    sentence = paper_sentence({**tree, "deployed": rule}, model="net", images="24 images")
    assert "net (answers with the mean of 4 random passes; may reject an input" in sentence
