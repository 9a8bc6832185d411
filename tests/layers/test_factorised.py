"""Layers in other forms: equal to the dense ones they stand for, rebuilt from names and numbers, stored and loaded."""

import copy
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import robust_nas
from robust_nas.attacks.folding import folded
from robust_nas.errors import CheckpointError
from robust_nas.layers.factorised import (
    GDWSConv2d,
    LayerForm,
    LowRankConv2d,
    LowRankLinear,
    Tucker2Conv2d,
    dense,
    rebuild,
)
from robust_nas.layers.gdws_conv import gather_channels
from robust_nas.nets import ModelDescription, inference_state, load_model, read_model, save_model
from robust_nas.nets.model import StoredForm
from robust_nas.nets.user_module import load_module

SHAPE = (2, 12, 10)
ARCHITECTURE = robust_nas.ResidualArchitecture(name="small", stem=6, depths=(1, 1), widths=(8, 16))
FORMS = {
    "gdws, uneven": [LayerForm("stages.0.0.conv1", "gdws", (1, 3, 0, 2, 1, 1))],
    "gdws, even": [LayerForm("stages.0.0.conv1", "gdws", (2,) * 6)],
    "gdws, one each": [LayerForm("stages.1.0.conv2", "gdws", (1,) * 16)],
    "tucker-2": [LayerForm("stages.1.0.conv1", "tucker-2", (5, 7))],
    "low-rank": [
        LayerForm("stages.1.0.shortcut", "low-rank", (3,)),
        LayerForm("classifier", "low-rank", (2,)),
    ],
    "folded": [LayerForm("stages.0.0.conv1", "biased"), LayerForm("stages.0.0.norm2", "identity")],
    "tucker-2, then gdws on its core": [
        LayerForm("stages.1.0.conv1", "tucker-2", (5, 7)),
        LayerForm("stages.1.0.conv1.core", "gdws", (1, 2, 1, 0, 4)),
        LayerForm("stages.1.0.conv1.last", "biased"),
        LayerForm("stages.1.0.norm2", "identity"),
    ],
    "tucker-2, then gdws with a bias on its core": [
        LayerForm("stages.1.0.conv1", "tucker-2", (5, 7)),
        LayerForm("stages.1.0.conv1.core", "gdws", (1, 2, 1, 0, 4)),
        LayerForm("stages.1.0.conv1.core.pointwise", "biased"),
    ],
    "factors of factors": [
        LayerForm("stages.1.0.conv1", "gdws", (2, 1, 2, 1, 1, 2, 1, 1)),
        LayerForm("stages.1.0.conv1.pointwise", "low-rank", (4,)),
        LayerForm("stages.1.0.conv2", "tucker-2", (7, 6)),
        LayerForm("stages.1.0.conv2.first", "low-rank", (3,)),
        LayerForm("stages.1.0.conv2.core", "tucker-2", (5, 4)),
        LayerForm("classifier", "low-rank", (3,)),
        LayerForm("classifier.second", "low-rank", (2,)),
    ],
}
every_form = pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS.keys())


def network(forms: list[LayerForm] = (), seed: int = 0) -> nn.Module:
    made = robust_nas.build_network(ARCHITECTURE, input_shape=SHAPE, classes=4, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rebuild(made, forms)
        with torch.no_grad():
            for form in forms:
                if form.form == "biased":  # they begin at 0
                    made.get_submodule(form.name).bias.normal_(std=0.3)
            made.train()(torch.rand(8, *SHAPE))
    return made.eval()


@st.composite
def convolutions(draw):
    c, m = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    return nn.Conv2d(
        c,
        m,
        kernel,
        stride=draw(st.integers(1, 2)),
        padding=draw(st.sampled_from([0, 1])),
        dilation=draw(st.integers(1, 2)),
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "reflect", "circular", "replicate"])),
    ).double()


@given(convolutions(), st.data())
def test_every_form_computes_what_its_dense_layer_does_and_so_do_the_gradients(like, data):
    c, m = like.in_channels, like.out_channels
    most = min(m, like.kernel_size[0] * like.kernel_size[1])
    g = data.draw(st.lists(st.integers(0, most), min_size=c, max_size=c).filter(any))
    layers = [GDWSConv2d(like, g), GDWSConv2d(like, [most] * c)]
    layers.append(Tucker2Conv2d(like, data.draw(st.integers(1, c)), data.draw(st.integers(1, m))))
    if like.kernel_size == (1, 1):
        layers.append(LowRankConv2d(like, data.draw(st.integers(1, min(c, m)))))
    for layer in layers:
        x = torch.rand(2, c, 9, 8, dtype=torch.float64)
        for memory in (torch.contiguous_format, torch.channels_last):
            own = x.contiguous(memory_format=memory).requires_grad_()
            ours, theirs = layer(own), layer.to_dense()(own)
            torch.testing.assert_close(ours, theirs)
            grads = [torch.autograd.grad(out.sin().sum(), own)[0] for out in (ours, theirs)]
            torch.testing.assert_close(*grads)


def test_a_linear_layer_in_two():
    layer = LowRankLinear(nn.Linear(5, 4), 3)
    x = torch.rand(2, 5)
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


def test_gathering_keeps_the_memory_order():
    x = torch.rand(2, 5, 4, 3)
    index = torch.tensor([4, 0, 0, 2])
    last = gather_channels(x.contiguous(memory_format=torch.channels_last), index)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert gather_channels(x, index).is_contiguous()
    assert torch.equal(last, x[:, index])


@every_form
def test_a_network_in_other_forms_is_stored_and_rebuilt_bit_for_bit(tmp_path: Path, forms):
    own = network(forms)
    layers = tuple(StoredForm(name=name, form=form, numbers=numbers) for name, form, numbers in forms)
    description = ModelDescription(
        input_shape=SHAPE, class_names=("a", "b", "c", "d"), mean=(0.0, 0.0), std=(1.0, 1.0), layers=layers
    )
    save_model(tmp_path, ARCHITECTURE, inference_state(own), description)
    x = torch.rand(3, *SHAPE)
    again = read_model(tmp_path)
    assert torch.equal(again.network(x), own(x))
    assert again.description.forms == tuple(forms)
    torch.testing.assert_close(dense(own)(x), own(x))


def test_a_module_that_is_not_needed_is_refused(tmp_path: Path):
    description = ModelDescription(
        input_shape=SHAPE, class_names=("a", "b", "c", "d"), mean=(0.0, 0.0), std=(1.0, 1.0)
    )
    save_model(tmp_path, ARCHITECTURE, inference_state(network()), description)
    with pytest.raises(CheckpointError, match="no module is needed"):
        load_model(tmp_path, module=network())


@every_form
def test_attacks_fold_it(forms):
    own, x = network(forms), torch.rand(2, *SHAPE)
    found = folded(own, x)
    assert found.model_form == ("folded" if forms == FORMS["folded"] else "folded, factors written back")
    assert not any(isinstance(module, GDWSConv2d | Tucker2Conv2d) for module in found.network.modules())
    torch.testing.assert_close(found.network(x), own(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([{"name": "nowhere", "form": "gdws", "numbers": [1]}], "nowhere is not there"),
        (
            [{"name": "classifier", "form": "gdws", "numbers": [1]}],
            "classifier is a Linear; gdws takes Conv2d",
        ),
        ([{"name": "stem", "form": "gdws", "numbers": [1]}], "2 numbers from 0 to 6, not all 0"),
        ([{"name": "stem", "form": "gdws", "numbers": [10**9, 1]}], "2 numbers from 0 to 6"),
        ([{"name": "stem", "form": "gdws", "numbers": [0, 0]}], "not all 0"),
        ([{"name": "stem", "form": "tucker-2", "numbers": [1]}], "tucker-2 takes 2 numbers, got 1"),
        ([{"name": "stem", "form": "tucker-2", "numbers": [3, 1]}], "rank_in is 3; 1 to 2 are possible"),
        ([{"name": "stem", "form": "low-rank", "numbers": [1]}], "a kernel of"),
        ([{"name": "classifier", "form": "low-rank", "numbers": [9]}], "rank is 9; 1 to 4"),
        ([{"name": "stem", "form": "identity"}], "identity takes BatchNorm2d"),
        ([{"name": "stem", "form": "magic"}], "magic"),
    ],
)
def test_forms_that_do_not_fit_are_named(tmp_path: Path, layers, said):
    description = ModelDescription(
        input_shape=SHAPE, class_names=("a", "b", "c", "d"), mean=(0.0, 0.0), std=(1.0, 1.0)
    )
    save_model(tmp_path, ARCHITECTURE, inference_state(network()), description)
    tree = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**tree, "layers": layers}))
    with pytest.raises(CheckpointError, match=r"model\.json") as caught:
        load_model(tmp_path)
    assert said in str(caught.value)


def test_a_layer_that_stands_in_several_places_is_replaced_in_all_of_them():
    shared = nn.Conv2d(3, 3, 3, padding=1)
    twice = nn.Sequential(shared, nn.ReLU(), shared)
    rebuild(twice, [LayerForm("0", "gdws", (1, 2, 1))])
    assert twice[0] is twice[2]
    assert isinstance(twice[0], GDWSConv2d)


def test_a_grouped_convolution_has_no_such_form():
    grouped = nn.Conv2d(4, 4, 3, groups=2)
    for build in (lambda: GDWSConv2d(grouped, [1, 1]), lambda: Tucker2Conv2d(grouped, 1, 1)):
        with pytest.raises(ValueError, match="2 groups"):
            build()


def test_a_users_own_module_is_rebuilt_from_itself(tmp_path: Path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(\n"
        "        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))\n"
    )
    own = load_module(f"{tmp_path / 'net.py'}:build")
    changed = copy.deepcopy(own)
    rebuild(changed, [LayerForm("0", "gdws", (1, 2))])
    description = ModelDescription(
        input_shape=SHAPE,
        class_names=("a", "b"),
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        module="net.py:build",
        layers=(StoredForm(name="0", form="gdws", numbers=(1, 2)),),
    )
    folder = tmp_path / "model"
    save_model(folder, None, inference_state(changed), description)
    assert not (folder / "architecture.yaml").exists()
    x = torch.rand(2, *SHAPE)
    assert torch.equal(load_model(folder, module=own)(x), changed.eval()(x))
    assert torch.equal(load_module(f"{tmp_path / 'net.py'}:build", folder)(x), changed(x))
    assert isinstance(own[0], nn.Conv2d)
    with pytest.raises(CheckpointError, match=r"made from the module net\.py:build"):
        load_model(folder)
