"""Suites as data: those that ship, and a user's own file."""

import pytest
import yaml

from robust_nas.attacks import APGD, PGD, AutoAttack, Square, ThreatModel
from robust_nas.errors import ConfigError
from robust_nas.evaluation import EvaluationOptions, suite_names
from robust_nas.evaluation.options import SUITES, load_suite

LABELS = {
    "quick": ["pgd-20"],
    "cascade": ["pgd-10", "apgd-ce-x2", "apgd-t"],
    "autoattack": ["autoattack"],
    "rand": ["autoattack-rand"],
    "transfer": ["pgd-20", "transfer-pgd-50-margin"],
    "black-box": ["square-5000", "hop-skip-jump-5000"],
    "l1": ["apgd-ce-x2", "apgd-t"],
}
NORMS = [(name, norm) for name in LABELS for norm in (("l1",) if name == "l1" else ("linf", "l2"))]


def test_the_suites_that_ship():
    assert suite_names() == sorted(LABELS)


@pytest.mark.parametrize(("name", "norm"), NORMS)
def test_a_shipped_suite_loads_under_its_norms(name, norm):
    plan = EvaluationOptions(
        threat_model=ThreatModel(eps="8/255", norm=norm), suite=name, surrogates=("/a", "/b")
    )
    assert [step.attack.label for step in plan.steps if step.suits(10)] == LABELS[name]
    for step in plan.steps:
        assert (step.attack.eps, step.attack.norm) == (8 / 255, norm)
        assert step.images is None
    if name == "transfer":
        assert plan.steps[1].attack.surrogates == ("/a", "/b")
        assert plan.steps[1].attack.attack == PGD(eps=8 / 255, norm=norm, steps=50, loss="margin")


def test_every_shipped_file_says_what_it_is_for():
    for name in suite_names():
        assert (SUITES / f"{name}.yaml").read_text().startswith("# ")


def test_the_cascade_is_what_it_says():
    def attacks(classes):
        return [step.attack for step in load_suite("cascade", ThreatModel(eps=0.1)) if step.suits(classes)]

    start = [PGD(eps=0.1, steps=10), APGD(eps=0.1, steps=100, restarts=2)]
    assert attacks(10) == attacks(6) == [*start, APGD(eps=0.1, loss="dlr-targeted", targets=5)]
    assert attacks(5) == attacks(4) == [*start, APGD(eps=0.1, loss="dlr-targeted")]
    assert attacks(3) == attacks(2) == [*start, APGD(eps=0.1, loss="margin", restarts=3)]
    assert all(attack.least_classes <= classes for classes in range(2, 12) for attack in attacks(classes))


def test_the_official_suites_are_the_packages_own():
    standard, rand = (load_suite(name, ThreatModel(eps=0.1))[0].attack for name in ("autoattack", "rand"))
    assert standard == AutoAttack(eps=0.1)
    assert standard.names == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert rand.names == ("apgd-ce", "apgd-dlr")


def test_none_named_is_the_cascade():
    plan = EvaluationOptions(threat_model=ThreatModel(eps=0.1))
    assert plan.suite == "cascade"
    assert plan.attacks is None


def test_the_deployed_rule_of_a_random_model_gives_its_passes_to_our_attacks():
    plan = EvaluationOptions(threat_model=ThreatModel(eps=0.1), deployed={"samples": 8, "eot": 5})
    assert {step.attack.eot for step in plan.steps} == {5}
    official = EvaluationOptions(
        threat_model=ThreatModel(eps=0.1), suite="rand", deployed={"samples": 8, "eot": 5}
    )
    assert official.steps[0].attack == AutoAttack(eps=0.1, version="rand")


def test_a_users_own_suite(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "attacks:\n"
        "- attack: {name: pgd, steps: 3, step_size: 1/255}\n"
        "- attack: {name: square, queries: 50}\n"
        "  images: 64\n"
    )
    plan = EvaluationOptions(threat_model=ThreatModel(eps=0.1), suite=str(path))
    first, second = plan.steps
    assert first.attack == PGD(eps=0.1, steps=3, step_size=1 / 255)
    assert (second.attack, second.images) == (Square(eps=0.1, queries=50), 64)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (
            "attacks:\n- attack: {name: pdg}",
            ["attacks.0.attack: got name 'pdg'; allowed: fgsm, fgsm-rs, n-fgsm, pgd"],
        ),
        ("attacks:\n- attack: {name: pgd, steps: -1}", ["attacks.0.attack.steps: got -1"]),
        ("attacks:\n- attack: {name: pgd, step: 3}", ["unknown key 'step'", "did you mean 'steps'?"]),
        ("attacks:\n- attack: {name: pgd}\n- {image: 3}", ["attacks.1", "unknown key 'image'"]),
        ("attacks:\n- pgd", ["attacks.0", "'pgd'"]),
        ("attacks: []", ["attacks: got []"]),
        ("attacks: {name: pgd}", ["attacks: got {'name': 'pgd'}"]),
        ("attack:\n- attack: {name: pgd}", ["unknown key 'attack'; did you mean 'attacks'?"]),
        ("attacks:\n- attack: {name: transfer}", ["attacks.0.attack.surrogates: missing"]),
        ("- pgd", ["a mapping of keys to values is needed"]),
        ("attacks: [", ["not valid YAML"]),
        ("", ["mapping"]),
    ],
)
def test_a_mistake_in_a_users_suite_names_file_and_key(tmp_path, text, fragments):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        EvaluationOptions(threat_model=ThreatModel(eps=0.1), suite=str(path))
    for fragment in [str(path), *fragments]:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("attack", "fragment"),
    [
        ({"name": "pgd", "eps": 0.2}, "attack 'pgd-10' has eps 0.2, the threat model 0.1"),
        ({"name": "pgd", "norm": "l2"}, "attack 'pgd-10' has norm 'l2', the threat model 'linf'"),
        ({"name": "carlini-wagner"}, "got 'linf'"),
    ],
)
def test_an_attack_of_another_threat_model_has_no_place_in_a_suite(tmp_path, attack, fragment):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"attacks": [{"attack": attack}]}))
    with pytest.raises(ConfigError) as caught:
        EvaluationOptions(threat_model=ThreatModel(eps=0.1), suite=str(path))
    assert fragment in str(caught.value)
