"""The forms of images and models that `evaluate` takes, and what it says of them; and errors in the middle."""

import numpy as np
import pytest
import torch
from evaluation_networks import EPS, Images, timeless
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import robust_nas
from robust_nas import ThreatModel
from robust_nas.attacks import FGSM
from robust_nas.errors import AttackError, DataWarning
from robust_nas.evaluation import EvaluationOptions, Journal, Step, follow_protocol


def evaluated(model, data, **more):
    return robust_nas.evaluate(
        model, data, ThreatModel(eps=EPS), [Step(attack=FGSM(eps=EPS))], findings="none", **more
    )


@pytest.fixture(scope="module")
def some(dataset):
    x, y = dataset.test.pixels[:12].float() / 255, dataset.test.labels[:12]
    return x, y


def test_every_accepted_form_of_the_images_gives_the_same_result(undefended, some):
    x, y = some
    listed = Listed([(image, int(label)) for image, label in TensorDataset(x, y)])
    forms = [
        (x, y),
        [x, y],
        TensorDataset(x, y),
        Subset(TensorDataset(x.repeat(2, 1, 1, 1), y.repeat(2)), range(12)),
        listed,
        Images(x.clone().requires_grad_(), y),
        (nn.Parameter(x), y),
        (x.numpy(), y.numpy().astype("u1")),
        (x.numpy()[::-1, :, :, ::-1][::-1, :, :, ::-1].astype(">f4"), y.tolist()),
        (x, y.to(torch.int32)),
        Images(x.numpy(), y.numpy()),
        Listed([(image.numpy(), int(label)) for image, label in TensorDataset(x, y)]),
        DataLoader(TensorDataset(x, y), batch_size=5),
        DataLoader(
            Listed([(image.numpy(), int(label)) for image, label in TensorDataset(x, y)]), batch_size=7
        ),
    ]
    expected = timeless(evaluated(undefended, Images(x, y)).to_dict())
    for form in forms:
        assert timeless(evaluated(undefended, form).to_dict()) == expected


class Listed(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize("shuffle", [False, True])
def test_images_that_a_loader_drops_are_counted(undefended, some, shuffle):
    loader = DataLoader(TensorDataset(*some), batch_size=5, drop_last=True, shuffle=shuffle)
    with pytest.warns(DataWarning, match="leaves out 2 of 12 images"):
        assert evaluated(undefended, loader).clean.images == 10
    evaluated(undefended, DataLoader(TensorDataset(*some), batch_size=4, drop_last=True))  # none is


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.to_sparse(), "pixels are a sparse_coo tensor; a dense one is needed"),
        (lambda x: torch.quantize_per_tensor(x, 1 / 255, 0, torch.quint8), "are a quantized tensor"),
        (lambda x: np.ma.masked_less(x.numpy(), 0.5), "are a masked array; fill it"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize")
def test_images_whose_values_are_not_what_is_seen(undefended, some, change, message):
    with pytest.raises(AttackError, match=message):
        evaluated(undefended, (change(some[0]), some[1]))


def test_pixels_that_require_a_gradient_pass_the_whole_protocol(undefended, some):
    x, y = some
    found = robust_nas.evaluate(undefended, (x.clone().requires_grad_(), y), ThreatModel(eps=EPS), "quick")
    assert found.robust.images == 12


def test_a_function_is_taken_and_what_is_not_seen_of_it_is_said(undefended, some):
    module = evaluated(undefended, some)
    for function in (lambda x: undefended(x), undefended.forward):
        found = evaluated(function, some)
        assert (found.clean, found.robust) == (module.clean, module.robust)
        assert "its parameters and its mode are not seen" in found.to_dict()["notes"][0]
    assert module.notes == ()
    attacked = FGSM(eps=EPS)(lambda x: undefended(x), *some)  # by an attack alone, too
    assert torch.equal(attacked, FGSM(eps=EPS)(undefended, *some))


class Casting(nn.Sequential):
    def forward(self, x):
        return super().forward(x.double())


def test_the_types_of_model_and_images_are_said(some):
    x, y = some
    found = evaluated(Casting(nn.Flatten(), nn.Linear(64, 10)).double(), (x.double(), y))
    assert found.model_dtypes == ("float64",)
    assert found.notes[0].startswith("the model holds float64; images are given to it as float32")
    assert found.notes[1] == "the images are float64 and are evaluated as float32"


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (
            lambda x: x.permute(0, 2, 3, 1),
            "the images have 8 channels of 8x1 pixels; where channels are last",
        ),
        (lambda x: (x > 0.5).to(torch.uint8), "the images are uint8 and reach to 1 of 255, almost black"),
    ],
)
def test_images_that_are_probably_meant_otherwise_are_noted(some, change, note):
    found = evaluated(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), (change(some[0]), some[1]))
    assert found.notes[0].startswith(note)


class Tiring(nn.Module):
    """Fails at its pass of this number."""

    def __init__(self, network, last):
        super().__init__()
        self.network, self.passes, self.last = network, 0, last

    def forward(self, x):
        self.passes += 1
        if self.passes > self.last:
            raise ValueError("tired")
        return self.network(x)


def test_what_a_model_raises_in_the_middle_names_the_batch_and_loses_nothing(undefended, some):
    attack = FGSM(eps=EPS, fold=False)
    plan = EvaluationOptions(
        threat_model=ThreatModel(eps=EPS), attacks=(Step(attack=attack),), findings="none", batch_size=5
    )
    whole = follow_protocol(Tiring(undefended, 1000), Images(*some), plan)
    journal = Journal()
    with pytest.raises(
        AttackError, match=r"fgsm fails on images of shape \(1, 8, 8\) in a batch of [1-5]: ValueError: tired"
    ):
        follow_protocol(Tiring(undefended, 8), Images(*some), plan, journal=journal)
    assert "clean" in journal.records
    assert any(name.startswith("attack 0 fgsm") for name in journal.records)
    again = follow_protocol(Tiring(undefended, 1000), Images(*some), plan, journal=journal)
    assert timeless(again.to_dict()) == timeless(whole.to_dict())
