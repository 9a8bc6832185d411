"""The shipped recipes, the run config, and that nothing of it needs torch."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_nas.attacks import ATTACKS, PGD
from robust_nas.config import check, config_hash, parse_yaml, read_yaml, to_dict, to_yaml
from robust_nas.errors import ConfigError
from robust_nas.integrations.nni_strategy import NNI
from robust_nas.search import DSARA
from robust_nas.workflows.config import (
    FOLDER,
    RunConfig,
    doubts,
    load_config,
    model_config,
    printed,
    recipe_names,
)

RECIPES = recipe_names()


def test_the_recipes_of_the_readme_ship() -> None:
    assert {"quickstart", "fashion", "dsara-cifar10"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_loads_and_its_print_reads_back_equal(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.name == name
    for text in (to_yaml(config), printed(config)):
        path = tmp_path / "printed.yaml"
        path.write_text(text)
        assert load_config(path) == config
        assert config_hash(load_config(path)) == config_hash(config)
    assert RunConfig(**to_dict(config)) == config


@pytest.mark.parametrize("name", RECIPES)
def test_the_threat_model_of_a_printed_config_decides_for_every_attack(name: str, tmp_path: Path) -> None:
    path = tmp_path / "printed.yaml"
    path.write_text(printed(load_config(name)))
    changed = load_config(path, ["threat_model.eps=0.015"])
    inner = changed.search.attack  # type: ignore[attr-defined] # a one-shot strategy's
    attacks = [inner, changed.training.validation_attack, *(step.attack for step in changed.evaluation.steps)]
    assert {attack.eps for attack in attacks} == {0.015}
    own = load_config(path, ["threat_model.eps=0.015", "training.validation_attack.eps=0.01"])
    assert parse_yaml(printed(own), "")["training"]["validation_attack"]["eps"] == 0.01


def test_a_run_config_prints_itself_completely() -> None:
    config = load_config("quickstart")
    changed = load_config("quickstart", ["search.attack.eps=0.2"])
    assert repr(config) != repr(changed)
    assert "eps=0.2" in repr(changed)


def test_overrides_reach_every_room() -> None:
    config = load_config(
        "quickstart",
        [
            "search.epochs=3",
            "search.attack={name: pgd, eps: 8/255, steps: 2}",
            "space.changes.layout.filters=[1, 2, 4]",
            "evaluation.suite=quick",
            "evaluation.threat_model.eps=8/255",
            "evaluation.deployed.samples=4",
            "network.cells=8",
        ],
    )
    assert config.search.epochs == 3
    assert config.search.attack.eps == 8 / 255
    assert config.space.load().layout.filters == (1, 2, 4)
    (step,) = config.evaluation.steps
    assert (step.attack.label, step.attack.eps, step.attack.eot) == ("pgd-20", 8 / 255, 16)  # type: ignore[union-attr]
    assert config.network.cells == 8


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("search.epoch=3", ["override 'search.epoch=3'", "search.epoch", "did you mean 'epochs'?"]),
        ("search.epochs=-3", ["search.epochs", "got -3", "at least 1 is needed"]),
        ("search.attack.eps=big", ["search.attack.eps", "got 'big'", "8/255"]),
        (
            "search.name=ray",
            ["search: got name 'ray'", "allowed: dsara, darts, advrush, pc-darts, gdas, nni"],
        ),
        ("search={name: nni, stage1_epochs: 2}", ["unknown key 'stage1_epochs'", "allowed: name, cells"]),
        (
            "search={name: nni, strategy: enas}",
            ["search.strategy: got 'enas'", "allowed: darts, gumbel-darts, proxyless"],
        ),
        ("search={name: nni, precision: bf16}", ["search.precision: got 'bf16'", "allowed: float32"]),
        ("search={name: nni, cells: 3}", ["search.cells: got 3, which leaves no robust cell"]),
        ("search.attack.name=cw", ["search.attack", "got name 'cw'", "fgsm", "pgd"]),
        ("data.name=cifar11", ["data.name", "got name 'cifar11'", "cifar10"]),
        ("device=gpu", ["device", "got 'gpu'"]),
        ("name=../elsewhere", ["name", "got '../elsewhere'"]),
        ("schema_version=2", ["schema_version", "got 2", "1"]),
        ("search.stage1_epochs=99", ["stage1_epochs is 99", "; set it to "]),
        ("search.cells=1", ["search.cells", "got 1", "at least 2"]),
        ("network.cells=1000000000", ["network.cells", "got 1000000000", "at most"]),
        ("network.channels=10000000", ["network.channels", "got 10000000", "allowed"]),
        ("space.name=dartz", ["'dartz'", "darts, dsara"]),
        ("space.changes.nodes=0", ["nodes", "got 0"]),
        ("space.changes.layout.filters=[1]", ["filters has 1 entries"]),
        ("threads=0", ["threads", "got 0"]),
        ("evaluation.attacks=[]", ["evaluation.attacks", "got []"]),
        (
            "evaluation.suite=cascad",
            ["'cascad'", "autoattack, black-box, cascade, l1, quick, rand, transfer"],
        ),
        ("evaluation.suite=transfer", ["suite transfer", "attacks.1.attack.surrogates", "missing"]),
        (
            "evaluation={suite: cascade, attacks: [{attack: {name: fgsm}}]}",
            ["suite is 'cascade'", "set one of them to null"],
        ),
        ("evaluation.threat_model.box=[0, 255]", ["evaluation.threat_model.box", "got [0, 255]", "0..1"]),
        ("training=null", ["training", "got None"]),
    ],
)
def test_a_mistake_names_the_key_the_value_and_what_is_allowed(override: str, fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("quickstart", [override])
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_another_strategy_keeps_the_keys_that_it_has_too() -> None:
    ours = load_config("quickstart").search
    theirs = load_config("quickstart", ["search.epochs=2"], strategy="nni:gumbel-darts").search
    assert isinstance(theirs, NNI)
    assert (theirs.name, theirs.strategy, theirs.epochs) == ("nni", "gumbel-darts", 2)
    for key in ("batch_size", "cells", "channels", "augment", "attack", "weights"):
        assert getattr(theirs, key) == getattr(ours, key)
    assert theirs.alphas.learning_rate == 0.02
    assert load_config("quickstart", strategy="dsara") == load_config("quickstart")
    bf16 = ["search={name: dsara, precision: bf16}"]
    assert load_config("quickstart", bf16).search.precision == "bf16"


def test_a_config_that_names_no_strategy_searches_by_dsara() -> None:
    attack = PGD(eps=0.1, steps=7, keep="last")  # the usual one, under the config's threat model
    assert load_config("quickstart", ["search={epochs: 30}"]).search == DSARA(epochs=30, attack=attack)


def test_attacks_take_the_place_of_a_suite_and_a_suite_theirs() -> None:
    listed = load_config("quickstart", ["evaluation.attacks=[{attack: {name: fgsm}}]"])
    assert (listed.evaluation.suite, [step.attack.label for step in listed.evaluation.steps]) == (
        None,
        ["fgsm"],
    )
    with pytest.raises(ConfigError, match="set one of them to null"):
        load_config("quickstart", ["evaluation.suite=quick", "evaluation.attacks=[{attack: {name: fgsm}}]"])
    assert (
        load_config("quickstart", ["evaluation.suite=null"]).evaluation.steps
        == load_config("quickstart").evaluation.steps
    )


def test_an_attack_with_an_eps_far_from_the_evaluation_s_is_doubted() -> None:
    assert doubts(load_config("quickstart")) == []
    far = load_config("quickstart", ["search.attack.eps=0.3", "training.loss.attack.eps=0.04"])
    assert doubts(far) == [
        "search.attack attacks with eps 0.3, the evaluation with 0.1; set search.attack.eps=0.1 unless that is meant",
        "training.loss.attack attacks with eps 0.04, the evaluation with 0.1; "
        "set training.loss.attack.eps=0.1 unless that is meant",
    ]


def test_an_attack_in_another_norm_than_the_evaluation_s_is_doubted() -> None:
    config = load_config("quickstart", ["training.validation_attack.norm=l2"])
    assert doubts(config) == [
        "training.validation_attack attacks in l2 with eps 0.1, the evaluation in linf with 0.1; "
        "set training.validation_attack.norm=linf unless that is meant"
    ]


@pytest.mark.parametrize(
    "key",
    [
        "search.attack",
        "training.loss.attack",
        "training.validation_attack",
        "evaluation.threat_model",
        "threat_model",
    ],
)
def test_an_eps_in_grey_levels_is_refused_in_every_section(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: eps is 8 in linf.*did you mean 8/255\?"):
        load_config("quickstart", [f"{key}.eps=8"])
    load_config(
        "quickstart", ["training.validation_attack={name: pgd, norm: l2, eps: 8}"]
    )  # images may be so far apart
    load_config("quickstart", ["search.attack.eps=1"])


@pytest.mark.parametrize("name", ATTACKS.built_in)
def test_an_attack_made_in_python_refuses_an_eps_in_grey_levels(name: str) -> None:
    needed = {
        "transfer": {"surrogates": ("a",)},
        "ai-gan": {"generator": "a", "digest": "0"},
        "ladder": {"folder": "a"},
        "saved": {"file": "a", "checksum": "0"},
    }
    more: dict[str, Any] = needed.get(name, {})
    with pytest.raises(ConfigError, match=r"eps is 8 in linf|norm: "):  # some are for l2 alone
        ATTACKS.make(name, eps=8, norm="linf", **more)


def test_the_recipes_that_run_offline_are_evaluated_by_the_cascade() -> None:
    for name in ("quickstart", "fashion"):
        config = load_config(name)
        assert config.evaluation.suite == "cascade"
        assert [step.attack.label for step in config.evaluation.steps if step.suits(10)] == [
            "pgd-10",
            "apgd-ce-x2",
            "apgd-t",
        ]


@pytest.mark.parametrize("name", ["quickstrat", "", "x" * 5000, "~nosuchuser/x", "a\0b", "/"])
def test_an_unknown_recipe_is_answered_with_the_names(name: str) -> None:
    with pytest.raises(ConfigError, match=r"recipes: .*quickstart"):
        load_config(name)


def test_the_config_of_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no model folder"):
        model_config(tmp_path)
    (tmp_path / "config.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match="holds no config of a training"):
        model_config(tmp_path)


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.just(10**400),
    st.floats(),
    st.text(max_size=6),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=4) | st.integers(), st.integers(), max_size=2),
)


def places(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [prefix] * bool(prefix) + [
        place for key, value in items for place in places(value, (*prefix, key))
    ]


@settings(max_examples=150)
@given(st.data())
def test_a_recipe_with_any_value_put_anywhere_loads_or_is_refused_with_our_error(data: st.DataObject) -> None:
    tree = copy.deepcopy(to_dict(load_config("quickstart")))
    *way, last = data.draw(st.sampled_from(places(tree)))
    node: Any = tree
    for key in way:
        node = node[key]
    if isinstance(node, dict) and data.draw(st.booleans()):
        node[data.draw(st.text(max_size=5) | st.integers(0, 3))] = data.draw(junk)
    else:
        node[last] = data.draw(junk)
    try:
        config = check(RunConfig, tree, "junk.yaml")
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - some are accepted
    else:
        assert check(RunConfig, parse_yaml(to_yaml(config), "printed"), "printed") == config


NO_TORCH = """
import sys
from robust_nas import load_config
from robust_nas.errors import ConfigError
load_config("dsara-cifar10", ["data.path=/data"])
try:
    load_config("quickstart", ["search.epoch=3"])
except ConfigError as error:
    assert error.exit_code == 2
    assert "torch" not in sys.modules and "matplotlib" not in sys.modules
    sys.exit(error.exit_code)
"""


def test_a_config_is_checked_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")


def test_every_recipe_is_complete_enough_to_be_read_by_people() -> None:
    for name in RECIPES:
        tree = read_yaml(FOLDER / f"{name}.yaml")
        assert {"schema_version", "name", "data", "search", "training", "evaluation"} <= set(tree)
