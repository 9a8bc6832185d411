"""What a loss shows of the network before and after a training, and what it warns of."""

import csv
import json

import pytest
import yaml
from cases import CONFIG

import robust_nas
from robust_nas.config import apply_overrides, check
from robust_nas.errors import ConfigError, FigureWarning
from robust_nas.figures import saliency
from robust_nas.run_folder import RESULT
from robust_nas.training import JSIGR
from robust_nas.workflows.config import RunConfig
from robust_nas.workflows.context import load_context

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
J_SIGR = ["training.loss={name: j-sigr, grid: 4, saliency_share: 0.3}", "training.epochs=2"]


def config(*changes):
    return check(RunConfig, apply_overrides(CONFIG, changes), "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return robust_nas.train(config(*J_SIGR), TINY, tmp_path_factory.mktemp("trained") / "model")


def test_saliency_before_and_after_is_kept_and_drawn_with_its_agreement(trained):
    shown = json.loads((trained / "explanation.json").read_text())["saliency"]
    assert shown["before"]["images"] == shown["after"]["images"]
    assert shown["before"]["perturbation"] != shown["after"]["perturbation"]
    with (trained / "figures" / "saliency.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 4 * 4
    assert [float(rows[16 * image]["agreement_after"]) for image in range(6)] == shown["after"]["agreement"]
    assert float(rows[5]["perturbation_before"]) == shown["before"]["perturbation"][0][1][1]
    result = json.loads((trained / RESULT).read_text())
    assert {"explanation.json", "figures/saliency.png"} <= set(result["artifacts"])


def test_what_is_shown_after_the_training_is_of_the_model_that_is_kept(trained):
    model = robust_nas.load_model(trained)
    validation = load_context(config(*J_SIGR)).validation
    found = JSIGR(grid=4).explanation(model, validation.float()[:6], validation.labels[:6])
    shown = json.loads((trained / "explanation.json").read_text())["saliency"]["after"]
    assert found["saliency"]["agreement"] == pytest.approx(shown["agreement"], abs=0.05)
    assert found["saliency"]["labels"] == shown["labels"]


def test_a_picture_that_fails_is_drawn_by_a_resume(trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(saliency, "plot_saliency", lambda *given, **named: 1 / 0)
        with pytest.warns(FigureWarning, match="figure 'saliency' is not drawn: ZeroDivisionError"):
            robust_nas.train(config(*J_SIGR), TINY, tmp_path / "model")
    assert json.loads((tmp_path / "model" / RESULT).read_text())["not_drawn"] == ["saliency"]
    robust_nas.train(config(*J_SIGR), TINY, tmp_path / "model", mode="resume")
    for name in ("explanation.json", "figures/saliency.csv"):
        assert (tmp_path / "model" / name).read_bytes() == (trained / name).read_bytes()


def test_a_loss_that_warns_is_recorded_and_printed(trained, tmp_path, call):
    (warning,) = json.loads((trained / RESULT).read_text())["warnings"]
    assert warning.startswith(
        "training.loss: j-sigr: defences by input gradients or saliency alone are mostly"
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(apply_overrides(CONFIG, J_SIGR)))
    out = tmp_path / "out"
    outcome = call("train", recipe, "--architecture", "wrn-10-1", "--out", out, "-q", "training.loss.grid=9")
    assert f"warning: {warning}" in outcome.err
    assert outcome.code == 2
    assert "j-sigr needs images of at least 9 x 9 pixels with these options, digits has 8 x 8" in outcome.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "training.loss={name: j-sigr, projections: 11}",
            "loss: j-sigr needs at least 11 classes with these",
        ),
        (
            "training.loss={name: pgd-at, attack: {name: pgd, loss: dlr-targeted, targets: 12}}",
            "training.loss.attack: pgd-10-dlr-targeted needs at least 13 classes, the model has 10",
        ),
        (
            "training.validation_attack={name: pgd, loss: ce-targeted, targets: 10}",
            "training.validation_attack: pgd-10-ce-targeted needs at least 11 classes, the model has 10",
        ),
    ],
)
def test_what_the_classes_do_not_allow_is_refused_before_anything_starts(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        robust_nas.train(config(change), TINY, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_other_losses_show_nothing(tmp_path):
    folder = robust_nas.train(config(), TINY, tmp_path / "model")
    assert not (folder / "explanation.json").exists()
    assert not (folder / "figures" / "saliency.csv").exists()
