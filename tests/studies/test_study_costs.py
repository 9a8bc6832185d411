"""What a study costs: passes of recipes and attacks as they say of themselves, and one threat model for all of them."""

import pytest
from small_study import TREE, small_study

from robust_nas.attacks import PGD, Square
from robust_nas.config import check, to_dict
from robust_nas.errors import ConfigError
from robust_nas.studies.config import StudyConfig
from robust_nas.studies.cost import Rates, attack_passes, training_macs

RATES = Rates(macs=(100,), training=(0.0,), attack=(1.0,))  # a second a pass of an attack


def recipe(loss: object) -> StudyConfig:
    return small_study(training={**TREE["training"], "loss": loss})


@pytest.mark.parametrize(
    ("loss", "passes"),
    [
        ({"name": "natural"}, 3),
        ({"name": "pgd-at", "attack": {"name": "fgsm-rs"}}, 5),
        ({"name": "pgd-at", "attack": {"name": "pgd", "steps": 10}}, 23),
        ({"name": "pgd-at", "attack": {"name": "pgd", "steps": 4, "restarts": 2}}, 19),
        ({"name": "trades", "attack": {"name": "pgd", "steps": 10, "loss": "kl"}}, 27),
    ],
)
def test_a_training_step_takes_its_published_passes(loss: object, passes: int) -> None:
    training = recipe(loss).training
    assert training_macs(10, training, images=64) == 10 * passes * 64 * training.epochs


def test_an_evaluation_takes_the_passes_that_its_attacks_declare() -> None:
    attacks = [{"attack": {"name": "pgd", "steps": 10}}, {"attack": {"name": "square"}, "images": 5}]
    config = small_study(evaluation={**TREE["evaluation"], "attacks": attacks})
    assert attack_passes(Square(eps=0.1)) == 5001
    validated = config.training.epochs * 20 * attack_passes(config.training.validation_attack)
    expected = 60 * attack_passes(PGD(eps=0.1, steps=10)) + 5 * 5001 + validated
    assert RATES.seconds(100, config.training, config.evaluation, 200, 60) == expected


def test_one_threat_model_is_inherited_by_every_attack_of_the_config() -> None:
    evaluation = {key: value for key, value in TREE["evaluation"].items() if key != "threat_model"}
    training = {
        **TREE["training"],
        "loss": {"name": "pgd-at", "attack": {"name": "fgsm-rs"}},
        "validation_attack": {"name": "pgd", "steps": 2},
    }
    short = {
        **TREE,
        "evaluation": evaluation,
        "training": training,
        "threat_model": {"norm": "linf", "eps": 0.1},
    }
    config = check(StudyConfig, short, "short")
    assert to_dict(config) == to_dict(small_study())
    assert config.metrics.attack.radius == config.training.validation_attack.radius == 0.1
    with pytest.raises(ConfigError, match=r"metrics\.attack\.eps: got 0\.2; the threat model has 0\.1"):
        small_study(metrics={"attack": {"eps": 0.2}})
