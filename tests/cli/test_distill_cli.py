"""`robust-nas distill`: its output for people and for machines, its config, and mistakes."""

import json

import pytest
import yaml
from cases import CONFIG

SHORT = ("method.per_class=1", "method.steps=1", "method.batch_size=10", "method.validation_steps=1")


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path / "tiny.yaml"


def test_it_learns_prints_and_is_shown_again(call, recipe, tmp_path):
    out = tmp_path / "made"
    done = call("distill", recipe, "--method", "kip", *SHORT, "--out", out)
    assert done.code == 0, done.err
    assert "kernel regression (relu-ntk) on 10 images, 20 validation images of digits" in done.out
    assert "after PGD alone misleads" in done.out
    assert str(out / "learned.npz") in done.out
    again = call("distill", recipe, "--method", "kip", *SHORT, "--out", out, "--resume", "--json", "-q")
    assert again.code == 0, again.err
    record = json.loads(again.out)
    assert (record["folder"], record["method"], record["support"]) == (str(out), "kip", 10)
    assert call("distill", recipe, "--method", "kip", *SHORT, "--out", out).code == 2
    assert json.loads(call("distill", out, "--resume", "--json", "-q").out) == record


def test_the_printed_config_is_a_recipe_of_its_own(call, recipe, tmp_path):
    printed = call("distill", recipe, *SHORT, "threat_model.eps=0.2", "--print-config")
    assert printed.code == 0, printed.err
    tree = yaml.safe_load(printed.out)
    assert tree["method"]["name"] == "adv-kip"
    assert tree["threat_model"]["eps"] == 0.2
    (tmp_path / "mine.yaml").write_text(printed.out)
    assert call("distill", tmp_path / "mine.yaml", "--print-config").out == printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "dd"), "--method: got 'dd'; allowed: kip, adv-kip"),
        (("method.per_class=11",), "at most 100 are taken"),
        (("method.stepz=1",), "did you mean 'steps'?"),
        (("--resume", "--overwrite"), "give one of them"),
    ],
)
def test_a_mistake_is_bad_usage(call, recipe, tmp_path, arguments, message):
    done = call("distill", recipe, *arguments, "--out", tmp_path / "made")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "made").exists()
