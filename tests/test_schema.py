"""The JSON schemas of config files take all that ships, and refuse what the configs refuse."""

import json
from importlib.metadata import EntryPoint

import pytest
from jsonschema import Draft202012Validator
from package_files import ROOT

from robust_nas.config import check, parse_yaml, read_yaml
from robust_nas.errors import ConfigError
from robust_nas.studies.schemas import KINDS, config_schema
from robust_nas.training import LOSSES
from robust_nas.workflows.config import RunConfig, load_config, printed

SHIPPED = {
    "recipe": "robust_nas/recipes",
    "study": "robust_nas/studies/presets",
    "suite": "robust_nas/evaluation/suites",
    "space": "search_spaces",
}


@pytest.fixture(scope="module")
def validators():
    return {kind: Draft202012Validator(config_schema(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def recipe(validators):
    return validators["recipe"]


def problems(validator, tree):
    return [f"{list(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(tree)]


def test_every_schema_is_one_that_json_can_hold(validators):
    for kind, validator in validators.items():
        assert json.loads(json.dumps(validator.schema, allow_nan=False))["title"].endswith(kind)
    for kind in ("space", "attack-training"):  # the others are made by the same code, and take long
        Draft202012Validator.check_schema(validators[kind].schema)


@pytest.mark.parametrize("kind", SHIPPED)
def test_all_that_ships_fits_its_schema(validators, kind):
    files = sorted((ROOT / SHIPPED[kind]).glob("*.yaml"))
    assert files
    assert {file.name: problems(validators[kind], read_yaml(file)) for file in files} == {
        file.name: [] for file in files
    }


def test_a_resolved_config_and_one_with_a_base_fit(recipe):
    for name in ("quickstart", "dsara-cifar10"):
        assert problems(recipe, parse_yaml(printed(load_config(name)), "")) == []
    own = {
        "base": "quickstart",
        "training": {"loss": "trades", "hooks": ["swa", {"name": "mine.py:Hook", "x": 1}]},
    }
    assert problems(recipe, own) == []


@pytest.mark.parametrize(
    "tree",
    [
        {"sede": 3},
        {"seed": "three"},
        {"seed": -1},
        {"name": "a b"},
        {"device": "gpu"},
        {"threat_model": {"eps": "8/x"}},
        {"threat_model": {"eps": -0.1}},
        {"threat_model": {"eps": 0.1, "norm": "l3"}},
        {"training": {"epochs": 0}},
        {"training": {"epochs": 1.5}},
        {"training": {"nesterov": "maybe"}},
        {"training": {"loss": "tardes"}},
        {"training": {"loss": {"name": "trades", "betta": 6}}},
        {"training": {"loss": {"name": "trades", "attack": {"name": "pgd", "steps": 0}}}},
        {"training": {"loss": {"name": "trades", "attack": {"name": "square"}}}},
        {"training": {"hooks": "swa"}},
        {"training": {"schedule": {"warmup_epochs": 2, "name": "piecewise"}}},
        {"search": {"name": "random", "stage1_epochs": 2}},
        {"search": {"precision": "float16"}},
        {"evaluation": {"attacks": []}},
        {"evaluation": {"attacks": [{"attack": {"name": "pgd", "step": 5}}]}},
        {"evaluation": {"deployed": {"draws": None}}},
        {"compression": {"gwds": {}}},
        {"compression": {"cstar": {"ratio": 2}}},
        {"compare": {"keep_models": 3}},
        {"base": 3},
    ],
    ids=json.dumps,
)
def test_a_mistake_is_refused_by_the_schema_and_by_the_config(recipe, tree):
    assert problems(recipe, tree)
    if "base" not in tree and "compare" not in tree:
        model, _ = KINDS["recipe"]
        with pytest.raises(ConfigError) as refused:
            check(model, {"threat_model": {"eps": 0.1}, **tree}, "here")
        assert any(line.startswith(f"here: {next(iter(tree))}") for line in str(refused.value).splitlines())


def test_keys_have_their_descriptions(recipe):
    properties = recipe.schema["properties"]
    assert properties["seed"]["description"] == "of every random choice"
    assert "differs" in properties["base"]["description"]
    trades = recipe.schema["$defs"]["TRADES"]
    assert trades["properties"]["beta"]["description"] == "weight of the KL term"
    assert "KL" in trades["description"]


def test_methods_of_plugins_are_in_it(monkeypatch):
    plugin = EntryPoint("mine", "robust_nas.training.losses.adv_bnn:AdvBNN", LOSSES.group)
    monkeypatch.setitem(vars(LOSSES), "_plugins", {"mine": {plugin.value: plugin}})
    monkeypatch.setattr(LOSSES, "_found", dict(LOSSES._found))
    recipe = Draft202012Validator(config_schema())
    assert problems(recipe, {"training": {"loss": {"name": "mine", "alpha": 2}}}) == []
    assert problems(recipe, {"training": {"loss": {"name": "mine", "sigma": 2}}})


def test_another_kind_is_refused_by_name():
    with pytest.raises(ConfigError, match="did you mean 'recipe'"):
        config_schema("recipes")


def test_the_command_prints_and_writes_it(call, tmp_path):
    out = tmp_path / "space.json"
    assert json.loads(call("schema", "space", "--json").out) == config_schema("space")
    assert call("schema", "space", "--out", out).out.strip() == str(out)
    assert json.loads(out.read_text()) == config_schema("space")
    assert call("schema", "spce").code == 2
    assert RunConfig.short_forms().keys() == {"base"}
