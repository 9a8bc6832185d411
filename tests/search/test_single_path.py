"""The strategy `single-path`: what its supernet is trained by, and what is refused."""

import pytest
from cases import SHORT_SUPERNET, SHORT_ZERO
from small_search import SMALL, SPACE, searched

from robust_nas.errors import ConfigError
from robust_nas.search import STRATEGIES
from robust_nas.workflows.config import load_config

PATHS = {**SHORT_SUPERNET, "reference": 10, "zero_cost": {**SHORT_ZERO, "proxies": ["params"]}}


def test_the_supernet_takes_epochs_width_and_half_of_the_eps_from_a_recipe():
    config = load_config("quickstart", strategy="single-path")
    evaluator = config.search.evaluator
    assert (evaluator.epochs, evaluator.channels) == (5, 8)
    assert (evaluator.loss.attack.eps, evaluator.score_attack.eps) == (0.05, 0.05)
    own = ["search.evaluator.channels=4", "search.evaluator.steps=700"]
    own = load_config("quickstart", own, strategy="single-path").search.evaluator
    assert (own.channels, own.steps, own.epochs) == (4, 700, None)


def test_an_epoch_has_a_path_for_every_operation_a_batch_and_a_third_is_clean(short_trainings):
    evaluator = STRATEGIES.make("single-path", epochs=3, evaluator=SHORT_SUPERNET | {"steps": 9}).evaluator
    assert (evaluator.epochs, evaluator.steps) == (None, 9)  # what is named wins
    paths = {key: value for key, value in SHORT_SUPERNET.items() if "steps" not in key}
    evaluator = STRATEGIES.make("single-path", epochs=3, evaluator=paths).evaluator
    sized = evaluator.of_epochs(SPACE, 8 + 5 * 4 + 3)  # five batches of four, and eight that score
    assert (sized.total, sized.clean_steps) == (3 * 5 * len(SPACE.operations), 10)


def test_a_result_says_whether_the_supernet_chose(tmp_path, short_trainings):
    options = {**SMALL, "evaluations": 2, "population": 2, "epochs": 1}
    paths = {key: value for key, value in PATHS.items() if "steps" not in key}
    strategy = STRATEGIES.make("single-path", **options, evaluator=paths)
    outcome, records = searched(tmp_path, strategy)
    for weight in (0.0, 1.0):
        said = strategy.result([{**one, "weight": weight} for one in records])
        assert said["supernet_fit"] is bool(weight)
    assert strategy.result(records)["supernet_fit"] is bool(records[0]["weight"])
    assert SPACE.mismatch(outcome.architecture) is None


def test_an_evaluator_without_a_supernet_and_too_few_images_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="'short-training', which does not fit here: it has no supernet"):
        STRATEGIES.make("single-path", evaluator="short-training")
    with pytest.raises(ConfigError, match="got 32 images; 768 that score and a batch of 64 are needed"):
        searched(tmp_path, STRATEGIES.make("single-path"))
