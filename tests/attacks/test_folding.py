"""The folded copy: the model's own logits, its weights of now, and a reason where there is no copy."""

import copy

import pytest
import torch
import torch.nn.functional as F
from attacked import CLASSES, SHAPE, answered, batch, conv_net, generator, state
from folding_cases import assert_same_function, chain, head, images, norms, settled
from torch import nn

from robust_nas.attacks import FGSM, PGD, folding
from robust_nas.attacks.folding import _TRACES, folded
from robust_nas.layers.factorised import LayerForm, rebuild
from robust_nas.nets import Supernet, build_network
from robust_nas.nets.folded import FoldedSupernet
from robust_nas.spaces import MLPArchitecture, ResidualArchitecture, Size, load_space, sample


class Concat(nn.Module):
    """The batch norm of a factorised reduction: behind two strided convolutions, side by side."""

    def __init__(self, dim=1):
        super().__init__()
        self.left = nn.Conv2d(3, 5, 1, stride=2, bias=False)
        self.right = nn.Conv2d(3, 3, 1, stride=2)
        self.norm, self.head, self.dim = nn.BatchNorm2d(8), head(8), dim

    def forward(self, x):
        parts = [self.left(x), self.right(x[:, :, 1:, 1:])]
        parts[1] = F.pad(parts[1], (0, 0, 0, 0)) if self.dim != 1 else parts[1]
        return self.head(self.norm(torch.cat(parts, dim=1)))


class Twice(nn.Module):
    """One convolution, side by side with itself."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(8), head(8)

    def forward(self, x):
        y = self.convolution(x)
        return self.head(self.norm(torch.cat([y, y], dim=1)))


class AfterAdd(nn.Module):
    """A batch norm after a sum, into which nothing can be folded, and one whose convolution is used elsewhere too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.other, self.head = nn.BatchNorm2d(8), nn.BatchNorm2d(8), head(8)

    def forward(self, x):
        y = self.first(x)
        z = self.other(y)
        return self.head(self.norm(self.second(z) + y))


class Shared(nn.Module):
    """One convolution behind two batch norms, one batch norm behind two convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.shared, self.other = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.first, self.second, self.head = nn.BatchNorm2d(8), nn.BatchNorm2d(8), head(8)

    def forward(self, x):
        x = self.stem(x)
        x = self.first(self.shared(x)).relu()
        x = self.second(self.shared(x)).relu()
        return self.head(self.first(self.other(x)))


class Borrowed(nn.Module):
    """A convolution whose weight, and a batch norm whose statistics, the forward pass reads for itself too."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), head(8)

    def forward(self, x):
        y = self.norm(self.convolution(x)) + F.conv2d(x, self.convolution.weight)
        return self.head(y - self.norm.running_mean.view(1, -1, 1, 1))


class Made(nn.Module):
    """Tensors that no module holds, a parameter of its own, and an attribute stored on the way."""

    def __init__(self):
        super().__init__()
        self.body = chain(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.scale, self.seen = nn.Parameter(torch.tensor(1.5)), None

    def forward(self, x):
        y = self.scale * (x - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))
        self.seen = y
        return self.body(y)


NETWORKS = {
    "conv-bn": (lambda: chain(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)), 0),
    "bias": (lambda: chain(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), 0),
    "not affine": (lambda: chain(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)), 0),
    "depthwise": (lambda: chain(nn.Conv2d(3, 9, 3, groups=3), nn.BatchNorm2d(9), channels=9), 0),
    "dilated": (lambda: chain(nn.Conv2d(3, 8, 3, dilation=2, padding=2), nn.BatchNorm2d(8)), 0),
    "strided": (lambda: chain(nn.Conv2d(3, 8, 3, stride=2, padding_mode="reflect", padding=1), nn.BatchNorm2d(8)), 0),
    "bn first": (lambda: chain(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)), 1),
    "two bn": (lambda: chain(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)), None),
    "no statistics": (lambda: chain(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)), 1),
    "transposed": (lambda: chain(nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8)), 1),
    "cat": (Concat, 0),
    "cat of one": (Twice, 1),
    "after add": (AfterAdd, 2),
    "shared": (Shared, 0),
    "borrowed": (Borrowed, 0),
    "made": (Made, 0),
    "conv_net": (conv_net, 0),
}  # fmt: skip


@pytest.mark.parametrize(("make", "left"), NETWORKS.values(), ids=NETWORKS.keys())
def test_the_copy_gives_the_model_s_logits_and_gradients(make, left):
    model = settled(make())
    before, attributes = state(model), {name: id(value) for name, value in vars(model).items()}
    x = images()
    copied = folded(model, x)
    assert copied.model_form == "folded"
    assert_same_function(copied.network, model, x)
    if left is not None:
        assert norms(copied.network) == left
    after = state(model)
    assert before[:2] == after[:2]
    assert all(torch.equal(before[3][key], after[3][key]) for key in before[3])
    if make is not Made:  # which stores what it sees
        assert attributes == {name: id(value) for name, value in vars(model).items()}
    assert not any(parameter.requires_grad for parameter in copied.network.parameters())


@pytest.mark.parametrize(
    ("block", "left"),
    # What stays: the first batch norm of a block (of three) and the last of all, which stand behind a sum or, in the
    # first basic block, behind a stem that goes two ways, as the last convolution of a robust-res block does.
    [("basic", 4), ("bottleneck", 3), ("robust-res", 3 + 3)],
)
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_every_residual_block_folds(block, left, activation):
    architecture = ResidualArchitecture(
        name="x", block=block, activation=activation, depths=(2, 1), widths=(16, 16)
    )
    model = settled(build_network(architecture, input_shape=SHAPE, classes=CLASSES))
    x = images()
    copied = folded(model, x)
    assert copied.model_form == "folded"
    assert_same_function(copied.network, model, x)
    assert norms(copied.network) == left
    assert PGD(eps=0.1, steps=2).run(model, x, answered(model, x), generator()).model_form == "folded"


@pytest.mark.parametrize("initialisation", ["he-fan-in", "ntk"])
def test_an_mlp_is_traced_and_keeps_its_weights_of_now(initialisation):
    architecture = MLPArchitecture(name="x", depth=2, width=6, initialisation=initialisation)
    model = build_network(architecture, input_shape=SHAPE, classes=CLASSES).double().eval()
    x = images()
    for _ in range(2):
        copied = folded(model, x)
        assert copied.model_form == "folded"
        assert_same_function(copied.network, model, x)
        with torch.no_grad():
            model.hidden[1].weight.mul_(-2.0)


@pytest.mark.parametrize("space", ["dsara", "darts"])
@pytest.mark.parametrize("seed", range(2))
def test_cell_networks_lose_every_batch_norm(space, seed):
    architecture = sample(load_space(space), seed, size=Size(cells=4, channels=4))
    model = settled(
        build_network(architecture, input_shape=SHAPE, classes=CLASSES, mean=(0.4,) * 3, std=(0.3,) * 3)
    )
    copied = folded(model, images())
    assert copied.model_form == "folded"
    assert norms(copied.network) == 0
    assert_same_function(copied.network, model, images())


@pytest.mark.parametrize("space", ["dsara", "darts"])
def test_supernets_keep_the_norms_of_their_pools(space):
    model = settled(Supernet(load_space(space), CLASSES, 3, 2, 4, execution="plain"))
    copied = folded(model, images())
    assert copied.model_form == "folded"
    assert 0 < norms(copied.network) < norms(model) / 2
    assert_same_function(copied.network, model, images())
    with torch.no_grad():  # the architecture's own parameters are seen too
        for alpha in model.alphas.values():
            alpha.normal_(0, 2)
    assert_same_function(folded(model, images()).network, model, images())


def test_a_network_that_brings_its_own_copy_is_folded_by_it_and_the_copy_is_checked(monkeypatch):
    model = settled(Supernet(load_space("dsara"), CLASSES, 3, 2, 4))
    copied = folded(model, images())
    assert copied.model_form == "folded"
    assert isinstance(copied.network, FoldedSupernet)
    assert_same_function(copied.network, model, images())
    stale = model.folded()
    with torch.no_grad():
        model.classifier.bias.add_(1)
    monkeypatch.setattr(model, "folded", lambda: stale)
    assert folded(model, images())[:2] == (None, "as it is: its own folded copy gives other logits")


@pytest.mark.parametrize("value", [False, None, "a name", nn.Identity(), lambda: 1])
def test_a_module_with_an_attribute_of_that_name_brings_no_copy(value):
    model, x = settled(conv_net()), images()
    model.folded = value
    copied = folded(model, x)
    assert copied.model_form == "folded"
    assert_same_function(copied.network, model, x)
    FGSM(eps=0.1, fold=True)(model, x, answered(model, x))


# The model changes


def test_weights_and_statistics_of_now_are_seen():
    model, x = settled(conv_net()), images()
    assert folded(model, x).model_form == "folded"
    traced = _TRACES[model][False][1]
    with torch.no_grad():
        model[0].weight.mul_(1.5)
        model[1].running_var.add_(1.0)
        model[5].bias.add_(0.5)
        model[8].bias.add_(0.5)
    assert_same_function(folded(model, x).network, model, x)
    model.load_state_dict(settled(conv_net(seed=4)).state_dict())
    assert_same_function(folded(model, x).network, model, x)
    assert _TRACES[model][False][1] is traced  # the graph is kept


def test_training_steps_are_seen():
    model = conv_net()
    x, labels = batch()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        adversarial = FGSM(eps=0.1, fold=True)(model, x, labels)
        assert torch.equal(adversarial, FGSM(eps=0.1, fold=True)(copy.deepcopy(model), x, labels))
        optimizer.zero_grad()
        F.cross_entropy(model.train()(adversarial), labels).backward()
        optimizer.step()


def test_a_module_that_is_replaced_moved_or_reshaped_is_traced_anew():
    model, x = settled(conv_net()), images()
    assert folded(model, x).model_form == "folded"
    model[2] = nn.Tanh()
    assert_same_function(folded(model, x).network, model, x)
    model[4] = nn.Conv2d(8, 8, 3, stride=2, dilation=1, groups=4, dtype=torch.float64)
    assert_same_function(folded(model, x).network, model, x)
    model[5].eps = 0.1  # read anew on every call
    assert_same_function(folded(model, x).network, model, x)
    model.float()
    assert folded(model, x.float()).network(x.float()).dtype == torch.float32


def test_an_attribute_that_the_trace_took_for_a_constant_is_traced_anew():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.factor, self.crooked = conv_net(), 1.0, False

        def forward(self, x):
            y = self.inner(x * self.factor)
            return y.tanh() if self.crooked else y

    model, x = settled(Scaled()), images()
    for change in ({"factor": 0.5}, {"crooked": True}, {"factor": 2.0}, {"crooked": False}):
        assert folded(model, x).model_form == "folded"
        for name, value in change.items():
            setattr(model, name, value)
        assert_same_function(folded(model, x).network, model, x)


class Annealed(nn.Module):
    """An activation whose sharpness a hook of the training changes, with what else it may hold."""

    def __init__(self, name, value):
        super().__init__()
        self.beta, self.square, self.kind, self.shift = 1.0, False, "tanh", None
        self.name, self.value = name, value

    def step(self):
        setattr(self, self.name, self.value)

    def forward(self, x):
        y = getattr(torch, self.kind)(self.beta * x)
        y = y if self.shift is None else y + self.shift
        return y * y if self.square else y


@pytest.mark.parametrize(
    ("name", "value"), [("beta", 8.0), ("beta", 3), ("square", True), ("kind", "sin"), ("shift", 0.7)]
)
def test_a_constant_that_changes_in_training_is_seen(name, value):
    """Training compares the copy only once: the graph itself has to follow the number that was written into it."""
    model, attack = conv_net(), PGD(eps=0.1, steps=3, keep="last")
    model[2] = Annealed(name, value)
    x, labels = batch()
    for _ in range(2):
        found = attack.craft(model, x, labels, generator())
        assert torch.equal(found, attack.craft(copy.deepcopy(model), x, labels, generator()))
        assert torch.equal(found, attack(model, x, labels, generator()))
        model[2].step()


def test_a_constant_of_a_module_that_is_copied_whole_is_seen_in_training():
    model, attack = conv_net(), PGD(eps=0.1, steps=3, keep="last")
    model[2] = nn.LeakyReLU(0.1)
    x, labels = batch()
    for slope in (0.1, 0.9):
        model[2].negative_slope = slope
        found = attack.craft(model, x, labels, generator())
        assert torch.equal(found, attack.craft(copy.deepcopy(model), x, labels, generator()))


@pytest.fixture
def work(monkeypatch):
    """The traces and the comparisons that are made."""
    done = []
    for name in ("_graph", "same_logits"):
        own = getattr(folding, name)
        monkeypatch.setattr(
            folding, name, lambda *given, name=name, own=own: done.append(name) or own(*given)
        )
    return done


@pytest.mark.parametrize("form", ["dense", "gdws", "tucker-2", "low-rank", "both"])
def test_training_traces_and_compares_once_and_sees_new_weights(form, work):
    """A network in factors was once copied, traced and compared at every step."""
    forms = {
        "gdws": [LayerForm("4", "gdws", (1, 2, 1, 3, 1, 0, 2, 1))],
        "tucker-2": [LayerForm("0", "tucker-2", (2, 5))],
        "low-rank": [LayerForm("8", "low-rank", (3,))],
    }
    forms["both"] = [*forms["tucker-2"], LayerForm("0.core", "gdws", (2, 1)), *forms["low-rank"]]
    model, attack = conv_net(), PGD(eps=0.1, steps=3, keep="last")
    model[0].requires_grad_(True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rebuild(model, forms.get(form, []))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    x, labels = batch()
    crafted = []
    for _ in range(3):
        crafted.append((attack.craft(model, x, labels, generator()), copy.deepcopy(model)))
        optimizer.zero_grad()
        F.cross_entropy(model.train()(crafted[-1][0]), labels).backward()
        optimizer.step()
    assert work == ["_graph", "same_logits"]
    for found, as_it_was in crafted:
        assert torch.equal(found, attack.craft(as_it_was, x, labels, generator()))
    assert not torch.equal(crafted[0][0], crafted[2][0])


def test_factors_are_written_back_in_full_precision_under_autocast():
    model, x = settled(conv_net()).float(), images().float()
    rebuild(model, [LayerForm("4", "tucker-2", (3, 4)), LayerForm("8", "low-rank", (3,))])
    with torch.autocast("cpu", torch.bfloat16):
        copied = folded(model, x)
    assert copied.model_form == "folded, factors written back"
    torch.testing.assert_close(copied.network(x), model(x), atol=1e-5, rtol=1e-5)


def test_hooks_that_come_and_go():
    model, x = settled(conv_net()), images()
    assert folded(model, x).model_form == "folded"
    seen = []
    handle = model[0].register_forward_hook(lambda *_: seen.append(1))
    assert folded(model, x).model_form == "as it is: Conv2d has hooks"
    handle.remove()
    assert folded(model, x).model_form == "folded"
    assert not seen
