"""Every one-shot strategy of the registry, next to `test_strategies.py`: spaces, ranks, execution, checkpoints.

A new strategy joins by itself, at the smallest sizes; `OPTIONS` has what it needs in addition.
"""

import importlib.util
import os
import random

import pytest
import torch
from cases import config, small_space
from in_ranks import in_ranks, results
from small_search import CLASSES, ONE_SHOT, Stopped, searched

from robust_nas import run_search
from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.checkpoints import read_checkpoint
from robust_nas.config import check
from robust_nas.distributed import ALONE
from robust_nas.errors import ConfigError, SearchSpaceError
from robust_nas.layers.batch_norm import synchronise
from robust_nas.run_folder import CHECKPOINT
from robust_nas.search import STRATEGIES, Batch, OneShotSearch, strategy_names, with_strategy
from robust_nas.spaces import load_space

NNI = os.environ.get("ROBUST_NAS_HIDE_NNI") != "1" and importlib.util.find_spec("nni") is not None
OPTIONS = {"dsara": {"stage1_epochs": 1}, "advrush": {"stage1_epochs": 1}, "pc-darts": {"k": 2}}
SPACES = ("dsara", "darts", "nas-bench-201")
EXECUTION = "supernet.execution"
IMAGES = {"classes": CLASSES, "mean": (0.5,), "std": (0.5,)}


def made(name, **changes):
    section = with_strategy({**ONE_SHOT, **OPTIONS.get(name, {}), **changes}, name)
    return check(STRATEGIES.get(section["name"]), section, name)


def class_of(name):
    return STRATEGIES.get(with_strategy({}, name)["name"])


NAMES = [name for name in strategy_names() if class_of(name).kind == "one-shot"]
FOREIGN = pytest.mark.skipif(not NNI, reason="no NNI")
every_strategy = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=FOREIGN if name.startswith("nni") else ()) for name in NAMES]
)


def refusal(kind, call):
    """The words of an error of a call; None where there is none."""
    try:
        call()
    except kind as error:
        return str(error)
    return None


def test_every_option_is_of_a_registered_strategy():
    assert OPTIONS.keys() <= set(NAMES)


def begun(strategy, space, execution="fused", ranks=ALONE):
    """A search before its first step, in float64, with alphas that differ from each other."""
    supernet = strategy.build_supernet(space, **IMAGES, seed=0, execution=execution).double()
    generator = BatchGenerator()
    generator.manual_seed(3)
    if ranks.count > 1:
        synchronise(supernet)
    search = OneShotSearch(strategy, supernet, space, ranks, generator)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for alpha in search.alphas.values():
            alpha.add_(torch.randn(alpha.shape, dtype=alpha.dtype, generator=draws))
    return search


def stepped(search, epochs=(0, 1), images=7):
    """The measured scalars of some steps on this rank's rows of random images, attacked as the loop does."""
    strategy, generator, ranks = search.strategy, search.generator, search.ranks
    rows = ranks.rows(images)

    def draw(*halves):
        found = []
        for _ in halves:
            natural = torch.rand(images, 1, 8, 8, dtype=torch.float64, generator=generator)[rows]
            labels = torch.randint(CLASSES, (images,), generator=generator)[rows]
            generator.whole, generator.rows = images, rows
            adversarial = search.attack(natural, labels, generator)
            found.append(Batch(natural, adversarial, labels, ranks.share(images), images))
        return found

    scalars = {}
    for number in epochs:
        search.epoch = number
        strategy.begin_epoch(search)
        scalars |= {f"{key} {number}": value for key, value in strategy.step(search, draw).items()}
    return scalars


@every_strategy
def test_alphas_wait_for_the_end_of_the_warm_up(name, tmp_path):
    strategy = made(name, warmup_epochs=1)
    outcome, records = searched(tmp_path, strategy)
    warm, moved = (
        [record for record in records if record["epoch"] == epoch] for epoch in (0, strategy.epochs - 1)
    )
    assert all(record["loss_adversarial"] is None for record in warm)
    assert all(record["loss_adversarial"] is not None for record in moved)
    first, *others = (record["entropy"] for record in warm)
    assert all(entropy == first for entropy in others)
    assert moved[-1]["entropy"] != first
    assert "None" not in strategy.note(warm[0])
    assert outcome.architecture.name == "found"


@every_strategy
@pytest.mark.parametrize("space", SPACES)
def test_a_step_and_a_derivation_are_valid_in_every_shipped_space_or_it_is_refused(name, space):
    strategy, space = made(name, cells=4 if space == "dsara" else 3), load_space(space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reason = refusal(SearchSpaceError, lambda: strategy.build_supernet(space, **IMAGES, seed=0))
        if reason is not None:
            assert "search it by dsara" in reason
            return
        search = begun(strategy, space)
        before = {key: alpha.detach().clone() for key, alpha in search.alphas.items()}
        scalars = stepped(search, epochs=[strategy.epochs - 1])
    assert all(torch.isfinite(value) for value in scalars.values())
    assert any(not torch.equal(alpha, before[key]) for key, alpha in search.alphas.items())
    alphas = {key: alpha.detach() for key, alpha in search.alphas.items()}
    assert space.mismatch(strategy.derive(search, alphas, "found")) is None
    weights = strategy.edge_weights(space, alphas)
    assert {kind: tuple(rows.shape) for kind, rows in weights.items()} == {
        kind: (len(space.edges), len(space.operations)) for kind in space.kinds
    }


@every_strategy
def test_a_fused_supernet_is_the_plain_one_or_has_one_execution(name):
    strategy, space = made(name), small_space(2, ["max_pool_3x3", "skip_connect", "sep_conv_3x3"])
    own = f"search={{name: {with_strategy({}, name)['name']}}}"
    reason = refusal(ConfigError, lambda: config(own, f"{EXECUTION}=plain"))
    if reason is not None:
        assert EXECUTION in reason
        return
    found = []
    for execution in ("fused", "plain"):
        search = begun(strategy, space, execution)
        scalars = stepped(search)
        found.append({**scalars, **search.supernet.state_dict()})
    fused, plain = found
    assert fused.keys() == plain.keys()
    for key, value in plain.items():
        torch.testing.assert_close(fused[key], value, rtol=1e-9, atol=1e-9, msg=key)


def in_rank(ranks, names):
    """Two steps of every strategy on this rank's rows."""
    found = {}
    for name in names:
        search = begun(made(name), small_space(2), ranks=ranks)
        own = {**stepped(search), **search.supernet.state_dict()}
        ranks.refuse_difference(search.supernet.state_dict(), name)
        found |= {f"{name}: {key}": value for key, value in own.items()}
    return found


def test_several_ranks_are_one_rank_with_the_global_batch(tmp_path):
    names = [name for name in NAMES if class_of(name).distributed]
    found = results(in_ranks(in_rank, tmp_path, [1, 2], names=names))
    (expected,), several = found.values()
    for one in several:
        assert one.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(one[key], value, rtol=1e-7, atol=1e-9, msg=key)


@every_strategy
def test_several_ranks_are_refused_where_a_strategy_has_one(name, monkeypatch):
    if class_of(name).distributed:
        pytest.skip("it may have several")
    monkeypatch.setenv("WORLD_SIZE", "2")
    own = with_strategy({}, name)
    with pytest.raises(ConfigError, match=f"search with the strategy {name}"):
        run_search(config(f"search={{name: {own['name']}, strategy: {own['strategy']}}}"))


@every_strategy
def test_killed_in_any_step_the_checkpoint_ends_in_the_same_bits(name, tmp_path):
    strategy = made(name)
    searched(tmp_path / "whole", strategy)
    step = random.Random(name).randint(1, 3)  # noqa: S311 - a moment, no secret
    with pytest.raises(Stopped):
        searched(tmp_path / "cut", strategy, stop_at=step)
    searched(tmp_path / "cut", strategy, mode="resume")
    whole, cut = (dict(leaves(read_checkpoint(tmp_path / part / CHECKPOINT))) for part in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for path, value in whole.items():
        if path != ".seconds":
            same = torch.equal(value, cut[path]) if isinstance(value, torch.Tensor) else value == cut[path]
            assert same, path


def leaves(tree, path=""):
    """Yield every value of a checkpoint with its path."""
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from leaves(value, f"{path}.{key}")
    else:
        yield path, tree
