"""What is refused before any attack starts, with the value, where it came from, and what would be accepted."""

import pytest
import torch
from evaluation_networks import EPS, Images, conv_net
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robust_nas
from robust_nas import ThreatModel
from robust_nas.attacks import FGSM, PGD, Attack, AutoAttack, Square
from robust_nas.errors import AttackError, CheckpointError, ConfigError
from robust_nas.evaluation import Step
from robust_nas.nets.model import ModelDescription, inference_state, save_model


@pytest.fixture(autouse=True)
def _no_attack_may_start(monkeypatch):
    monkeypatch.setattr(Attack, "run", lambda *a, **k: pytest.fail("an attack started"))
    monkeypatch.setattr(AutoAttack, "run", lambda *a, **k: pytest.fail("an attack started"))


PIXELS = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6)


def refused(message, *, model=None, pixels=PIXELS, labels=LABELS, error=AttackError, suite="cascade", **more):
    threat_model = more.pop("threat_model", None) or ThreatModel(eps=EPS)
    with pytest.raises(error, match=message):
        robust_nas.evaluate(model or conv_net().eval(), Images(pixels, labels), threat_model, suite, **more)


def test_images_that_the_model_cannot_take():
    shape = r"the model cannot take images of shape \(1, 9, 9\)"
    refused(shape, pixels=torch.zeros(6, 1, 9, 9, dtype=torch.uint8))
    refused(r"cannot take images of shape \(3, 8, 8\)", pixels=torch.zeros(6, 3, 8, 8))


class Strict(nn.Module):
    def forward(self, x):
        assert x.shape[1] == 3, "three colours are needed"
        return x.flatten(1)


def test_images_that_the_model_says_it_cannot_take():
    refused("AssertionError: three colours are needed", model=Strict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": PIXELS[0]}, r"\(1, 8, 8\)"),
        ({"pixels": PIXELS.int()}, "int32"),
        ({"pixels": PIXELS[:0], "labels": LABELS[:0]}, "no images"),
        ({"pixels": PIXELS[:, :0]}, "no images"),
        ({"labels": LABELS[:5]}, r"\(5,\) for 6 images"),
        ({"labels": LABELS.float()}, "float32"),
        ({"labels": LABELS[:, None]}, r"\(6, 1\)"),
        ({"labels": LABELS + 5}, "label 10, but the model has only 10 classes"),
        ({"labels": LABELS - 1}, "label -1"),
        ({"pixels": PIXELS.float()}, "images reach from 0 to 255"),
        ({"pixels": PIXELS.float() / 255 - 0.5}, "images reach from -0.5 to 0.5"),
        ({"pixels": (PIXELS.float() / 255).index_fill(0, torch.tensor([2]), torch.nan)}, "without NaN"),
        ({"pixels": (PIXELS.float() / 255).index_fill(0, torch.tensor([2]), torch.inf)}, "from 0 to inf"),
    ],
)
def test_images_and_labels_that_no_figure_can_be_taken_from(change, message):
    refused(message, **change)


def test_a_model_whose_parameters_have_no_shape_yet():
    refused(r"1\.weight has no shape yet", model=nn.Sequential(nn.Flatten(), nn.LazyLinear(10)))


def test_a_model_without_values():
    refused("0.weight is on the meta device and has no values", model=conv_net().to("meta"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PIXELS, r"data: got one Tensor of shape \(6, 1, 8, 8\), no labels; .* an object with `pixels`"),
        (PIXELS.numpy(), "data: got one ndarray of shape"),
        ((PIXELS, LABELS, LABELS), "data: got tuple of 3; .* a pair"),
        (([PIXELS], LABELS), "pixels are list, no tensor and no array"),
        ((PIXELS.numpy().astype("O"), LABELS), "pixels are ndarray and no numbers"),
        ((PIXELS.numpy().astype("i4"), LABELS), r"pixels are torch.int32 .*; uint8, or float in 0..1"),
        (
            (PIXELS.numpy().astype("f4"), LABELS),
            r"reach from 0 to 25\d; .*; divide by 255, or give them as uint8",
        ),
        ((PIXELS.numpy()[0], LABELS), r"pixels are torch.uint8 of shape \(1, 8, 8\)"),
        ((PIXELS, list("abcdef")), "labels are list and no numbers"),
        ((PIXELS, LABELS.float().numpy()), "labels are torch.float32 of shape"),
        ((PIXELS, LABELS[0]), r"labels are torch.int64 of shape \(\) for 6 images"),
        (DataLoader(TensorDataset(PIXELS)), r"batch 0 of DataLoader is \(Tensor\); "),
        (TensorDataset(PIXELS), r"item 0 of TensorDataset is \(Tensor\); "),
        (TensorDataset(PIXELS[:0], LABELS[:0]), "TensorDataset is empty"),
        (robust_nas.load_dataset(robust_nas.DataOptions()), "training and test images; pass its `test`"),
        (None, "data: got NoneType"),
    ],
)
def test_data_of_no_accepted_form(data, message):
    with pytest.raises(AttackError, match=message):
        robust_nas.evaluate(conv_net().eval(), data, ThreatModel(eps=EPS))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Flatten, "got the class Flatten; an instance"),
        ("net.pt", "got str; a torch module, or a function"),
    ],
)
def test_a_model_that_is_none(model, message):
    refused(message, model=model)


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there(device):
    refused(
        f"device: got '{device}', which this torch cannot use .*; allowed here: cpu",
        error=ConfigError,
        device=device,
    )


def test_a_device_that_the_model_is_not_on():
    refused("device: got 'meta', but the model's tensors are on cpu", error=ConfigError, device="meta")


class Recurrent(nn.Module):
    """Keeps its state, and with it the number of images, between calls."""

    def __init__(self):
        super().__init__()
        self.cell, self.state = nn.RNNCell(64, 10), None

    def forward(self, x):
        self.state = self.cell(x.flatten(1), self.state)
        return self.state


def test_a_model_that_takes_one_number_of_images_alone():
    for batch, second in ((6, 1), (4, 2)):
        message = f"in a batch of {second}: RuntimeError: .*; it took {batch} images before"
        refused(message, model=Recurrent(), batch_size=batch)


def test_a_model_that_fails_on_a_single_image():
    squeezing = Returning(lambda x: x.flatten(1).squeeze())
    refused(r"the model returned \(64,\) for 1 images", model=squeezing)


def test_a_model_of_another_type_than_the_images():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    refused("its parameters are float64, images are float32: use model.float", model=model)


class Raising(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize("error", [KeyError("stem"), AttributeError("no stem"), ZeroDivisionError("stem")])
def test_a_model_that_raises_whatever_it_likes(error):
    refused(f"cannot take images .*{type(error).__name__}: .*stem", model=Raising(error))


def test_images_that_are_too_small_for_an_attack_further_down_the_list():
    limits = {"eps": 0.5, "norm": "l2"}
    refused(
        "square-5000 in l2 needs images of at least 5 x 5 pixels, got 4 x 4",
        model=nn.Sequential(nn.Flatten(), nn.Linear(16, 10)),
        pixels=PIXELS[:, :, :4, :4],
        threat_model=ThreatModel(**limits),
        suite=[Step(attack=PGD(**limits)), Step(attack=Square(**limits))],
    )


class Returning(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: (x.flatten(1), x), "the model returned tuple"),
        (lambda x: x, r"returned \(6, 1, 8, 8\) for 6 images"),
        (lambda x: x.flatten(1)[:3], r"returned \(3, 64\) for 6 images"),
        (lambda x: torch.complex(x, x).flatten(1), "complex64 in layout torch.strided; dense real logits"),
        (lambda x: x.flatten(1).to_sparse(), "float32 in layout torch.sparse_coo; dense real logits"),
    ],
)
def test_a_model_that_gives_no_logits(make, message):
    refused(message, model=Returning(make))


def test_a_model_that_fails_where_gradients_are_recorded_is_refused_before_an_attack_that_needs_them(
    monkeypatch,
):
    model = Returning(lambda x: torch.from_numpy(x.numpy()).flatten(1))
    refused("it fails on images of shape .*: RuntimeError: Can't call numpy", model=model)
    monkeypatch.undo()
    suite = [Step(attack=Square(norm="linf", eps=EPS, queries=2))]
    robust_nas.evaluate(model, Images(PIXELS, LABELS), ThreatModel(eps=EPS), suite, findings="none")


def test_fewer_classes_than_the_attacks_need():
    three = Returning(lambda x: x.flatten(1)[:, :3])
    labels = LABELS % 3
    targeted = {"attack": {"name": "apgd", "loss": "dlr-targeted"}}
    refused("apgd-t needs at least 4 classes, the model has 3", model=three, labels=labels, suite=[targeted])
    only_more = {**targeted, "min_classes": 4}
    refused("no attack of the list is meant for 3 classes", model=three, labels=labels, suite=[only_more])
    refused("needs at least 4 classes, the model has 3", model=three, labels=labels, suite="autoattack")
    nine = {"attack": {"name": "apgd", "loss": "dlr-targeted", "targets": 9}}
    refused("at least 10 classes, the model has 3", model=three, labels=labels, suite=[nine])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"suite": "cascad"},
            "'cascad' is neither a suite nor a file; suites: autoattack, black-box, cascade, l1, quick, rand",
        ),
        ({"suite": "none.yaml"}, "'none.yaml' is neither a suite nor a file"),
        ({"suite": "transfer"}, r"suite transfer: attacks\.1\.attack\.surrogates: missing"),
        (
            {"attacks": (Step(attack=FGSM(eps=EPS)),)},
            "suite is 'cascade' and attacks is a list; set one of them",
        ),
        ({"suite": []}, "attacks: got"),
        ({"suite": [Step(attack=FGSM(eps=0.3))]}, "attack 'fgsm' has eps 0.3, the threat model 0.15"),
        (
            {"threat_model": ThreatModel(eps=EPS, norm="l2"), "suite": [Step(attack=FGSM(eps=EPS))]},
            "norm 'linf'",
        ),
        ({"images": 0}, "images: got 0"),
        ({"batch_size": -1}, "batch_size: got -1"),
        ({"findings": "some"}, "findings: got 'some'"),
        ({"deployed": {"samples": 0}}, r"deployed\.samples: got 0"),
        ({"sutie": "quick"}, "sutie"),
    ],
)
def test_options_that_are_not_acceptable(more, message):
    refused(message, error=ConfigError, **more)


def test_surrogates_that_are_no_model(tmp_path):
    for suite in ("quick", "transfer"):  # as a finding, and as an attack
        message = f"{tmp_path}: no model folder"
        refused(message, error=CheckpointError, suite=suite, surrogates=(str(tmp_path),))


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [((3, 8, 8), 10, r"takes images of shape \(3, 8, 8\)"), ((1, 8, 8), 4, "tells 4 classes")],
)
def test_surrogates_that_do_not_fit_are_refused_before_the_first_pass(tmp_path, shape, classes, message):
    tiny = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1,), widths=(4,))
    names = tuple(str(label) for label in range(classes))
    mean, std = (0.0,) * shape[0], (1.0,) * shape[0]
    network = robust_nas.build_network(tiny, input_shape=shape, classes=classes, mean=mean, std=std)
    description = ModelDescription(input_shape=shape, class_names=names, mean=mean, std=std)
    save_model(tmp_path, tiny, inference_state(network), description)
    model = conv_net().eval()
    model.register_forward_hook(lambda *_: pytest.fail("a pass was made"))
    refused(message, model=model, surrogates=(str(tmp_path),))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"box": (0, 255)}, r"box: got \(0, 255\); images lie in 0\.\.1"),
        ({"box": (-1, 1)}, r"box: got \(-1, 1\)"),
        ({"eps": -0.1}, "eps: got -0.1"),
        ({"eps": "8/0"}, "eps: got '8/0'"),
        ({"eps": "nan"}, "eps: got nan"),
        ({"norm": "l3"}, "norm: got 'l3'"),
    ],
)
def test_threat_models_that_are_none(keys, message):
    with pytest.raises(ConfigError, match=message):
        ThreatModel(**{"eps": EPS, **keys})
