"""The digest of a model changes with whatever changes an answer, and with nothing else."""

import copy

import pytest
import torch
from torch import nn

from robust_nas.layers.normalise import Normalise
from robust_nas.nets import Model, ModelDescription, build_network
from robust_nas.nets.digest import model_digest
from robust_nas.nets.user_module import load_module
from robust_nas.spaces import MLPArchitecture
from robust_nas.user_code import own_config


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        Normalise((0.5,), (0.2,)),
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 3),
    ).eval()


def another_activation(net):
    net[3] = nn.SiLU()


def another_mean(net):
    net[0].mean.add_(0.01)


def another_statistic(net):
    net[2].running_var.mul_(1.01)


def another_eps(net):
    net[2].eps = 1e-3


def another_stride(net):
    net[1].padding = (1, 1)


def one_bit(net):
    net[5].bias.data[0] = torch.nextafter(net[5].bias.data[0], torch.tensor(9.0))


def a_defence_around_it(net):
    net.append(nn.Softmax(1))


@pytest.mark.parametrize(
    "change",
    [
        another_activation,
        another_mean,
        another_statistic,
        another_eps,
        another_stride,
        one_bit,
        a_defence_around_it,
    ],
)
def test_what_changes_an_answer_changes_the_digest(change):
    net = network()
    before = model_digest(net)
    change(net)
    assert model_digest(net) != before


def test_what_changes_no_answer_does_not():
    net = network()
    before = model_digest(net, architecture={"a": 1, "b": 2})
    assert model_digest(copy.deepcopy(net), architecture={"b": 2, "a": 1}) == before
    assert model_digest(net.to(memory_format=torch.channels_last), architecture={"a": 1, "b": 2}) == before
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    assert model_digest(net.train().eval(), architecture={"a": 1, "b": 2}) == before
    assert model_digest(net, architecture={"a": 1, "b": 3}) != before


def test_the_text_of_a_user_s_module_and_activation_counts_and_not_its_place(tmp_path):
    """A network whose forward is code of the user's own, and one with an activation of the user's own."""

    def digests(folder, sign):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(
            "from torch import nn\n\nclass Net(nn.Flatten):\n"
            f"    def forward(self, x):\n        return {sign}super().forward(x)\n"
        )
        (tmp_path / folder / "act.py").write_text(
            "from torch import nn\nfrom robust_nas.operations import Activation, Layer\n\n"
            "class Curve(nn.Tanh):\n    def __init__(self, channels):\n        super().__init__()\n\n"
            f"    def forward(self, x):\n        return {sign}super().forward(x)\n\n"
            "class Curved(Activation):\n    layer = Layer(Curve)\n"
        )
        with own_config(tmp_path / folder):
            architecture = MLPArchitecture(name="x", depth=1, width=2, activation="act.py:Curved")
        made = build_network(architecture, input_shape=(1, 2, 2), classes=2)
        description = ModelDescription(input_shape=(1, 2, 2), class_names=("a", "b"), mean=(0.0,), std=(1.0,))
        own = load_module(f"{tmp_path / folder / 'net.py'}:Net")
        return model_digest(own), Model(made, architecture, description).digest

    plain, copied, turned = digests("a", ""), digests("b", ""), digests("c", "-")
    assert plain == copied
    assert all(one != other for one, other in zip(plain, turned, strict=True))
