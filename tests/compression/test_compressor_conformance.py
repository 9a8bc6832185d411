"""The contract that every compressor keeps: its networks are rebuilt, cost as counted, and are made the same twice."""

import subprocess
import sys

import pytest
import torch
from cases import config as run_config

import robust_nas
from robust_nas.compression import COMPRESSORS, CSTAR, GDWS, OriginalModel
from robust_nas.errors import CompressionError
from robust_nas.layers.factorised import rebuild
from robust_nas.nets import Model, ModelDescription
from robust_nas.nets.cost import measured_cost
from robust_nas.workflows.compress import compression_context
from robust_nas.workflows.compress_steps import make_candidates, refuse_out_of_reach
from robust_nas.workflows.config import CompressionConfig, RunConfig
from robust_nas.workflows.context import load_context

NETWORK = robust_nas.ResidualArchitecture(name="small", stem=4, depths=(1, 1), widths=(8, 8))
SHAPE = (1, 8, 8)
CASES = {
    "gdws": GDWS(budgets=(0.8,), alpha={"images": 8}, refit=8),
    "gdws-tuned": GDWS(betas=(1.0,), alpha=None, refit=0, finetune_epochs=1),
    "cstar": CSTAR(ratios=(1.5,), epochs=2, finetune_epochs=1, baselines=("truncate-short", "uniform")),
}
OUT_OF_REACH = {"gdws": {"budgets": [0.001]}, "cstar": {"ratios": [1e6]}}
every = pytest.mark.parametrize("case", CASES)


def config(step):
    tree = run_config("data.limit=60").model_dump()
    return CompressionConfig.of(RunConfig(**{**tree, "compression": {"steps": [step]}}))


def original():
    network = robust_nas.build_network(NETWORK, input_shape=SHAPE, classes=10, seed=1).eval()
    description = ModelDescription(
        input_shape=SHAPE, class_names=tuple(map(str, range(10))), mean=(0.0,), std=(1.0,), made_by={}
    )
    return Model(network, NETWORK, description)


def compressed(step, folder):
    """The candidates that a step makes of the original, and both."""
    given, model = config(step), original()
    folder.mkdir()
    context = compression_context(
        given, OriginalModel(model, folder), load_context(given), folder, "new", lambda *_: None
    )
    return model, context, [candidate for _, candidate in make_candidates(context, given.compression.steps)]


def test_every_compressor_of_the_registry_is_in_the_suite():
    assert {type(step) for step in CASES.values()} == {COMPRESSORS.get(name) for name in COMPRESSORS.built_in}
    assert OUT_OF_REACH.keys() == COMPRESSORS.built_in.keys()


@every
def test_its_networks_are_rebuilt_from_their_forms_and_cost_what_is_counted(case, tmp_path):
    model, context, candidates = compressed(CASES[case], tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in original().network.state_dict().items()}
    assert candidates
    for candidate in candidates:
        found = context.read(candidate)
        again = original().network
        rebuild(again, found.description.forms)
        again.load_state_dict(found.network.state_dict())
        x = torch.rand(4, *SHAPE)
        with torch.no_grad():
            assert torch.equal(again.eval()(x), found.network(x))
        cost = measured_cost(found.network, SHAPE)
        assert cost.params == sum(p.numel() for p in found.network.parameters())
        whole = measured_cost(model.network, SHAPE)
        assert (cost.macs, cost.params) < (whole.macs, whole.params)
        assert (candidate.folder / "recipe.yaml").is_file()
        assert candidate.folder.is_relative_to(context.root)
    # The original is as it was.
    assert not model.network.training
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None for p in model.network.parameters())
    drawn = CASES[case].draw(candidates[0], context.root, "caption")
    assert all((context.root / path).is_file() for path in drawn)


@every
def test_it_makes_the_same_twice(case, tmp_path):
    first, second = (compressed(CASES[case], tmp_path / name) for name in ("first", "second"))
    for ours, theirs in zip(first[2], second[2], strict=True):
        assert (ours.label, ours.method, ours.made_from) == (theirs.label, theirs.method, theirs.made_from)
        files = [one.folder / "model.safetensors" for one in (ours, theirs)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_a_budget_out_of_reach_is_refused_before_a_candidate_is_made(name):
    step = COMPRESSORS.make(name, **OUT_OF_REACH[name])
    with pytest.raises(CompressionError):
        step.refuse(original().network, SHAPE)
    with pytest.raises(CompressionError):
        refuse_out_of_reach(original().network, SHAPE, (step,))


def test_their_options_are_read_without_torch():
    code = (
        "import sys, robust_nas.training\n"  # whose attacks are another room's
        "before = 'torch' in sys.modules\n"
        "from robust_nas.compression import COMPRESSORS\n"
        "found = [COMPRESSORS.get(name) for name in COMPRESSORS.built_in]\n"
        "assert ('torch' in sys.modules, 'matplotlib' in sys.modules) == (before, False)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
