"""A config that names another method keeps the options that fit, and gets that method's defaults for the rest."""

import pytest
import yaml
from cases import CONFIG

from robust_nas.choices import changed, merged
from robust_nas.config import apply_overrides
from robust_nas.errors import ConfigError
from robust_nas.workflows.config import RunConfig, load_config

LOSS = {"name": "iat", "attack": {"name": "pgd", "steps": 3, "restarts": 2}, "layers": 1, "alpha": 2.0}
TREE = {**CONFIG, "training": {**CONFIG["training"], "loss": LOSS}}


def loss(*overrides, tree=TREE):
    return changed(RunConfig, tree, overrides)["training"]["loss"]


def test_options_that_the_new_method_has_too_are_kept_whatever_the_order():
    assert loss("training.loss.name=mart") == {"name": "mart", "attack": LOSS["attack"]}
    kept = {"name": "adv-bnn", "attack": LOSS["attack"], "alpha": 2.0}
    assert loss("training.loss.name=adv-bnn") == kept
    both = loss("training.loss.prior_sigma=0.5", "training.loss.name=adv-bnn")
    assert both == {**kept, "prior_sigma": 0.5}


def test_a_method_within_is_changed_alone():
    attack = loss("training.loss.attack.name=n-fgsm")["attack"]
    assert attack == {"name": "n-fgsm"}
    both = loss("training.loss.name=mart", "training.loss.attack.name=second-order")
    assert both == {"name": "mart", "attack": {"name": "second-order", "steps": 3, "restarts": 2}}


def test_values_that_the_new_method_refuses_give_way_to_its_defaults():
    tree = {
        **TREE,
        "search": {"name": "dsara", "precision": "bf16", "epochs": 3, "weights": {"momentum": 0.5}},
    }
    found = changed(RunConfig, tree, ["search.name=advrush"])["search"]
    assert found == {
        "name": "advrush",
        "weights": {"momentum": 0.5},
    }  # 3 epochs are fewer than its first stage
    found = changed(RunConfig, tree, ["search.name=advrush", "search.stage1_epochs=1"])["search"]
    assert found == {"name": "advrush", "epochs": 3, "weights": {"momentum": 0.5}, "stage1_epochs": 1}
    assert loss("training.loss.name=second-order") == {"name": "second-order"}  # its attack is another kind


def test_what_the_user_gives_with_the_new_name_stays_also_where_it_is_wrong(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TREE))
    assert load_config(path, ["training.loss.name=natural"]).training.loss.label == "natural"
    with pytest.raises(ConfigError, match="unknown key 'layers'"):
        load_config(path, ["training.loss.name=mart", "training.loss.layers=1"])
    with pytest.raises(ConfigError, match="did you mean 'trades'"):
        load_config(path, ["training.loss.name=tradess"])


def test_a_key_that_neither_method_has_stays_an_error(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**TREE, "training": {**TREE["training"], "loss": {**LOSS, "alhpa": 2}}}))
    with pytest.raises(ConfigError, match="unknown key 'alhpa'"):
        load_config(path, ["training.loss.name=mart"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.loss.name=iat"],
        ["training.loss={name: mart}"],
        ["training.epochs=7", "evaluation.attacks=null"],
        ["name=other", "data.name=digits"],
        ["training.hooks=[swa]", "training.hooks.0=awp"],
        ["training.loss.name=null"],
    ],
)
def test_other_overrides_mean_what_they_always_did(overrides):
    assert changed(RunConfig, TREE, overrides) == apply_overrides(TREE, overrides)


@pytest.mark.parametrize("override", ["training.loss", "=3", "training.hooks.9.name=swa", "training..name=x"])
def test_a_wrong_override_is_refused_as_always(override):
    def answer(change):
        try:
            return change()
        except ConfigError as error:
            return str(error)

    new = answer(lambda: changed(RunConfig, TREE, [override]))
    assert new == answer(lambda: apply_overrides(TREE, [override]))


def test_a_method_in_short_form_can_be_renamed():
    tree = {**TREE, "training": {**TREE["training"], "loss": "trades"}}
    assert loss("training.loss.name=mart", tree=tree) == {"name": "mart"}


def test_a_file_over_a_base_keeps_what_fits_and_lists_replace():
    hooks = {"training": {"hooks": ["awp", "swa"]}}
    base = merged(RunConfig, TREE, hooks)
    found = merged(RunConfig, base, {"training": {"loss": "mart", "hooks": ["swa"]}, "seed": 4})
    assert found["training"]["loss"] == {"name": "mart", "attack": LOSS["attack"]}
    assert (found["training"]["hooks"], found["seed"]) == (["swa"], 4)
    assert base["training"]["hooks"] == ["awp", "swa"]
    wrong = merged(RunConfig, TREE, {"training": {"loss": {"name": "mart", "layers": 2}}})
    assert wrong["training"]["loss"]["layers"] == 2
