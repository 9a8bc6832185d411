"""The contract that every sanity check keeps, and checks of other packages and of the user's own file."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from evaluation_networks import Images, generator, timeless
from extending import example
from plugins import install
from torch import nn

import robust_nas
from robust_nas import ResidualArchitecture, ThreatModel, build_network
from robust_nas.attacks import PGD, Predictor
from robust_nas.config import check
from robust_nas.data import random_indices
from robust_nas.defences import Blur, FeatureSqueezing
from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.evaluation import CHECKS, Cost, EvaluationOptions, SanityCheck, Step, follow_protocol
from robust_nas.evaluation.attack_rows import run_attacks
from robust_nas.evaluation.checks import with_standard
from robust_nas.evaluation.comparison import compared
from robust_nas.evaluation.journal import Journal
from robust_nas.evaluation.protocol import with_rule
from robust_nas.evaluation.start import start
from robust_nas.nets.model import ModelDescription, inference_state, save_model
from robust_nas.user_code import own_config

EPS = 0.1
STATUSES = {"PASS", "WARN", "FAIL", "NOT RUN"}


class Noisy(nn.Module):
    """A linear model with noise."""

    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        return self.inner(x + 0.01 * torch.randn_like(x))


def linear():
    layer = nn.Linear(36, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator(3)))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    return nn.Sequential(nn.Flatten(), layer)


def data(count=24):
    pixels = torch.rand(count, 1, 6, 6, generator=generator(1)) * 0.6 + 0.2
    return Images(pixels, linear()(pixels).argmax(1))


def options(**keys):
    attacks = keys.pop("attacks", [{"name": "pgd", "steps": 3}, {"name": "apgd", "steps": 5}])
    tree = {"threat_model": {"eps": 0.01}, "attacks": [{"attack": attack} for attack in attacks], **keys}
    return check(EvaluationOptions, tree, "test")


def attacked(model, plan):
    """The state of an evaluation after its attacks."""
    images = data()
    order = random_indices(len(images.labels), None, 0)
    predictor, plan = with_rule(model, plan)
    journal, quiet = Journal(), lambda name, fraction: None
    state, _, attacks = start(
        predictor, images, plan, order, seed=0, device=torch.device("cpu"), journal=journal, report=quiet
    )
    run_attacks(attacks, state, order, journal, quiet)
    state.side_by_side = compared(state, journal, quiet)
    return state


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory):
    """The folder of a model that attacks can be transferred from."""
    tiny, names = ResidualArchitecture(name="tiny", stem=4, depths=(1,), widths=(4,)), ("a", "b", "c", "d")
    network = build_network(tiny, input_shape=(1, 6, 6), classes=4)
    folder = tmp_path_factory.mktemp("surrogate")
    about = ModelDescription(input_shape=(1, 6, 6), class_names=names, mean=(0.0,), std=(1.0,))
    save_model(folder, tiny, inference_state(network), about)
    return str(folder)


@pytest.fixture(scope="module")
def states(surrogate):
    """A model as it is under attacks with a trace; a random one; one with query attacks in the list; one with a doubt.

    That has surrogates too. Then one with findings at full depth, one with a defence, and a detector.
    """
    queries = [{"name": "pgd", "steps": 3}, {"name": "square", "queries": 5}]
    queries.append({"name": "hop-skip-jump", "queries": 5})
    doubtful = attacked(linear().eval(), options(surrogates=[surrogate]))
    doubtful.flags["its gradients are zero"] = None
    detector = FeatureSqueezing(squeezers=("bit-2",)).wrap(linear().eval(), {"threshold": 0.5, "channels": 1})
    return {
        "plain": attacked(linear().eval(), options()),
        "random": attacked(Predictor(Noisy(), samples=2), options(deployed={"eot": 2})),
        "queries": attacked(linear().eval(), options(attacks=queries)),
        "doubtful": doubtful,
        "full": attacked(linear().eval(), options(findings="full")),
        "defended": attacked(Blur(sigma=0.5).wrap(linear().eval()), options()),
        "detector": attacked(detector, options()),
    }


every_check = pytest.mark.parametrize("name", CHECKS.built_in)


def made(name):
    return CHECKS.make(name)


@every_check
def test_says_what_it_is(name):
    one = made(name)
    assert one.name == name
    assert one.title
    assert one.allowed
    assert 0 < one.share <= 1
    assert one.most >= 1
    assert type(one).__doc__
    assert CHECKS.get(name).run is not SanityCheck.run


def runs(one, states, most=8):
    """Return the models on which the check runs, each with indices of its images; there has to be one."""
    found = [
        (state, state.select(one.selection)[: min(one.most, most)])
        for state in states.values()
        if one.applies(state) and one.undefined(state) is None
    ]
    found = [(state, indices) for state, indices in found if len(indices)]
    assert found, f"{one.name} runs on none of the models"
    return found


@every_check
def test_finds_what_it_announces_and_costs_no_more(name, states):
    one = made(name)
    for state, indices in runs(one, states):
        weights = {key: value.clone() for key, value in state.predictor.state_dict().items()}
        cost = Cost()
        found = one.run(state, indices, cost)
        assert found
        for finding in found:
            assert finding.status in STATUSES
            assert finding.text
            assert finding.allowed
            assert finding.images <= max(len(indices), sum(row.attacked for row in state.rows))
        # A doubt of an attack may bring a name of its own.
        assert found[0].name in {one.title, *filter(None, state.flags.values())}
        assert (cost.passes == 0) == one.free
        assert cost.passes <= one.cost(state) * len(indices)
        after = state.predictor.state_dict()
        assert all(torch.equal(weights[key], after[key]) for key in weights)


@every_check
def test_the_same_findings_from_the_same_state(name, states):
    one = made(name)
    state, indices = runs(one, states, most=4)[0]
    first, second = (one.run(state, indices, Cost()) for _ in range(2))
    assert first == second


def test_a_targeted_attack_is_not_taken_for_the_strongest_whatever_its_loss_is_called(states):
    class Aimed(PGD):
        targeted: ClassVar[bool] = True

    plain, aimed = PGD(eps=0.01, steps=3), Aimed(eps=0.01, steps=3)
    assert replace(states["plain"], attacks=(plain, aimed)).strongest is plain
    named = [PGD(eps=0.01, steps=3, loss=loss) for loss in ("ce-targeted", "dlr-targeted")]
    assert replace(states["plain"], attacks=(aimed, *named)).strongest is None


def test_paid_checks_have_titles_of_their_own():
    titles = [one.title for one in with_standard(()) if not one.free]
    assert len(titles) == len(set(titles))


def test_every_file_of_a_check_is_in_the_registry():
    folder = Path(sys.modules["robust_nas.evaluation.checks"].__file__).parent
    files = {file.stem for file in folder.glob("*.py")} - {"__init__", "check", "survivors", "with_control"}
    assert files == {place.partition(":")[0] for place in CHECKS.built_in.values()}


def test_checks_and_attacks_are_read_without_torch_and_scipy():
    code = (
        "import sys; from robust_nas.evaluation import CHECKS; from robust_nas.attacks import ATTACKS\n"
        "[registry.get(name) for registry in (CHECKS, ATTACKS) for name in registry.names()]\n"
        "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_matches_labels_or_classes_of_attacks():
    # What a check or the protocol needs to know of an attack is an attribute of it.
    folder = Path(robust_nas.__file__).parent / "evaluation"
    attacks = "FGSM|PGD|APGD|Square|Noise|Transfer|AutoAttack|GradientAttack|Attack"
    for file in folder.rglob("*.py"):
        text = file.read_text()
        assert not re.search(rf"isinstance\([^)]*\b({attacks})\b", text), file
        assert ".label.startswith" not in text, file


# Checks of one's own

OWN = example("dark_survivors.py")


@pytest.fixture
def own_file(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    return tmp_path / "mine.py"


def test_a_check_from_a_file_runs_and_counts_for_the_verdict(own_file):
    model, images = linear().eval(), data()
    plain = follow_protocol(model, images, options(findings="full"))
    with own_config(own_file.parent):
        lenient, strict = (
            options(findings="full", checks=[{"name": "mine.py:DarkSurvivors", "most_dark": most}])
            for most in (1.0, 0.0)
        )
    found = follow_protocol(model, images, lenient)
    assert found.findings[:-1] == plain.findings
    assert (found.findings[-1].name, found.findings[-1].status) == ("no dark survivors", "PASS")
    assert found.findings_passes == plain.findings_passes + found.findings[-1].images
    tree = follow_protocol(model, images, strict).to_dict()
    assert tree["findings"][-1]["status"] == "FAIL"
    assert tree["verdict"]["status"] == "UNRELIABLE"
    assert any(reason.startswith("no dark survivors: ") for reason in tree["verdict"]["reasons"])
    assert strict.model_dump(mode="json")["checks"][0]["name"] == f"{own_file}:DarkSurvivors"


def test_a_check_from_an_entry_point_runs_through_the_public_call(own_file, monkeypatch):
    install(monkeypatch, own_file.parent, CHECKS, "dark", "mine:DarkSurvivors")
    steps = [Step(attack=PGD(eps=0.01, steps=2))]
    found = robust_nas.evaluate(linear().eval(), data(), ThreatModel(eps=0.01), steps, checks=("dark",))
    assert found.findings[-1].name == "no dark survivors"
    assert found.options.checks[0].name == "dark"
    with pytest.raises(ConfigError, match=r"allowed: logits, .*eot-curve, dark"):
        options(checks=["drak"])
    with pytest.raises(ConfigError, match=r"checks\.0.*did you mean 'most_dark'\? allowed: name, most_dark"):
        options(checks=[{"name": "dark", "most_drak": 1}])


def test_a_file_that_nobody_allowed_is_refused(own_file):
    with pytest.raises(CodeRefusedError, match="--allow-code"):
        options(checks=[f"{own_file}:DarkSurvivors"])


def test_a_standard_check_with_other_options_takes_its_own_place():
    plan = options(findings="full", checks=[{"name": "square", "queries": 7}])
    found = follow_protocol(linear().eval(), data(), plan)
    plain = follow_protocol(linear().eval(), data(), options(findings="full"))
    assert [finding.name for finding in found.findings] == [finding.name for finding in plain.findings]
    (square,) = (
        finding for finding in found.findings if finding.name == "white box at least as strong as Square"
    )
    assert "Square with 7 queries" in square.text or "square-7" in square.text


def test_a_list_without_checks_is_not_written_down():
    # So that an evaluation is known by the same record as before there was such a list.
    assert "checks" not in options().model_dump(mode="json")
    assert options(checks=[]) == options()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (OWN.replace('"no dark survivors"', '"active test"'), "have the title 'active test'"),
        (OWN.replace('title: ClassVar[str] = "no dark survivors"', ""), "has no title"),
        ("DarkSurvivors = dict", r"a subclass of .*\.SanityCheck is needed, got class dict"),
    ],
)
def test_checks_that_cannot_be_told_apart_or_are_none_are_refused(tmp_path, source, message):
    (tmp_path / "mine.py").write_text(source)
    with own_config(tmp_path), pytest.raises(ConfigError, match=message):
        options(checks=["mine.py:DarkSurvivors"])


def test_the_same_check_twice_is_refused():
    with pytest.raises(ConfigError, match="'noise' is listed twice"):
        options(checks=["noise", {"name": "noise", "draws": 3}])


def test_no_findings_no_checks_of_one_s_own(own_file):
    with own_config(own_file.parent):
        plan = options(findings="none", checks=["mine.py:DarkSurvivors"])
    assert follow_protocol(linear().eval(), data(), plan).findings == ()


def test_resumed_it_is_not_run_again(own_file):
    with own_config(own_file.parent):
        plan = options(checks=["mine.py:DarkSurvivors"], findings="full")
    journal = Journal()
    first = follow_protocol(linear().eval(), data(), plan, journal=journal)
    again = follow_protocol(
        linear().eval(),
        data(),
        plan,
        journal=Journal(journal.records, lambda *_: pytest.fail("run again")),
    )
    assert timeless(first.to_dict()) == timeless(again.to_dict())
