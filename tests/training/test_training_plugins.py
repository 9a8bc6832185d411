"""A loss, a hook, a step and a schedule of a user's own: checked, costed, trained, resumed, without a line of ours."""

import subprocess
import sys

import pytest
import torch
from extending import example
from plugins import install
from training_cases import (
    Stopped,
    generator,
    options,
    run_training,
    same,
    small_batch,
    small_network,
    stop_at,
)

from robust_nas.config import check, to_dict
from robust_nas.errors import CodeRefusedError, ConfigError
from robust_nas.training import HOOKS, LOSSES, SCHEDULES, STEPS, Training
from robust_nas.user_code import own_config

# class: its registry, where a recipe names it, the passes of a recipe with the natural loss (or its own)
PLUGIN = {
    "Mixup": (LOSSES, lambda spec: {"loss": spec}, 3),
    "Anchor": (HOOKS, lambda spec: {"hooks": [{"name": "awp"}, spec]}, 6),
    "FreeAT": (STEPS, lambda spec: {"step": spec}, 6),
    "Cyclic": (SCHEDULES, lambda spec: {"schedule": spec}, 3),
}


@pytest.fixture(params=["file", "entry point"])
def recipe(request, tmp_path, monkeypatch):
    """From the name of a class to the tree of a recipe that names it."""
    files = ("mixup.py", "anchor.py", "free_at.py", "cyclic.py")
    (tmp_path / "my_methods.py").write_text("\n\n".join(map(example, files)))

    def tree(name):
        found, place, _ = PLUGIN[name]
        spec = "my_methods.py:" + name
        if request.param == "entry point":
            spec = name.lower()
            install(monkeypatch, tmp_path, found, spec, f"my_methods:{name}")
        return {**to_dict(options()), "loss": "natural", **place({"name": spec})}

    with own_config(tmp_path):
        yield tree


@pytest.mark.parametrize("name", PLUGIN)
def test_a_plugin_is_checked_costed_trained_and_resumed_to_the_same_bits(tmp_path, recipe, name):
    values = check(Training, recipe(name), "recipe")
    assert values.passes == PLUGIN[name][2]
    assert check(Training, to_dict(values), "again") == values
    expected, records, net = run_training(tmp_path / "whole", values)
    _, plain, _ = run_training(tmp_path / "plain", options(loss="natural"))
    assert [record["loss"] for record in records] != [record["loss"] for record in plain]
    for mode, at in (("new", 1), ("resume", 4)):  # one training, killed twice
        with pytest.raises(Stopped):
            run_training(tmp_path / "cut", values, mode=mode, progress=stop_at(at))
    found, again, resumed = run_training(tmp_path / "cut", values, mode="resume")
    assert same(found.state, expected.state)
    assert same(resumed.state_dict(), net.state_dict())
    assert again == records


def test_the_log_holds_what_a_hook_says_of_an_epoch(tmp_path, recipe):
    _, records, _ = run_training(tmp_path / "run", check(Training, recipe("Anchor"), "recipe"))
    assert [record["anchored"] for record in records] == [0, 1]


def test_code_in_a_recipe_of_somebody_else_is_refused():
    tree = {**to_dict(options()), "loss": {"name": "received/my_methods.py:Mixup"}}
    with pytest.raises(CodeRefusedError, match=r"--allow-code my_methods\.py"):
        check(Training, tree, "recipe")


def test_free_adversarial_training_uses_a_batch_again_and_keeps_its_perturbation(tmp_path, recipe):
    from robust_nas.training import Batch, Natural, TrainingContext

    step = check(Training, recipe("FreeAT"), "recipe").step
    model = small_network()
    free = step.start(TrainingContext(network=model, loss=Natural(), generator=generator()), ())
    batch = Batch(*small_batch(), torch.arange(8))
    assert free.replays == 2
    first = free.gradients(batch)
    torch.testing.assert_close(free.delta.abs(), torch.full_like(free.delta, 0.1))  # eps sign(g)
    assert free.gradients(batch).loss > first.loss


def test_methods_and_recipes_are_read_without_torch():
    code = (
        "import sys\n"
        "from robust_nas.config import check\n"
        "from robust_nas.training import HOOKS, LOSSES, SCHEDULES, STEPS, Training\n"
        "for found in (HOOKS, LOSSES, SCHEDULES, STEPS):\n"
        "    for name in found.names(): found.get(name)\n"
        "tree = {'loss': 'natural', 'hooks': [{'name': 'awp'}], 'validation_attack': {'eps': 0.1}}\n"
        "assert check(Training, tree, 'x').passes == 6\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_loss_that_returns_no_loss_value_is_named(tmp_path):
    text = example("mixup.py").replace("return LossValue(", "return torch.add(")
    (tmp_path / "mixup.py").write_text(text)
    with own_config(tmp_path):
        values = check(Training, {**to_dict(options()), "loss": {"name": "mixup.py:Mixup"}}, "recipe")
        with pytest.raises(
            ConfigError, match=r"training.loss: Mixup returned Tensor; a robust_nas.training.LossValue"
        ):
            run_training(tmp_path / "run", values)
