"""Transfer: what one model's attack does to another, and the surrogates that are refused."""

import shutil

import pytest
import torch
from attacked import CLASSES, SHAPE, answered, batch, conv_net, distance, generator, linear, logits_of, state
from torch import nn

from robust_nas.attacks import APGD, PGD, Predictor, Transfer, transfer_attack
from robust_nas.attacks.losses import margin
from robust_nas.errors import AttackError, CheckpointError
from robust_nas.nets import ModelDescription, build_network, inference_state, load_model, save_model
from robust_nas.spaces import Size, load_space, sample

EPS = 0.08
INNER = PGD(eps=EPS, steps=5, loss="margin")


def saved(folder, shape=SHAPE, classes=CLASSES, seed=0):
    architecture = sample(load_space("dsara"), 0, size=Size(cells=3, channels=2))
    mean = (0.5,) * shape[0]
    description = ModelDescription(
        input_shape=shape, class_names=tuple(f"c{i}" for i in range(classes)), mean=mean, std=mean
    )
    network = build_network(architecture, input_shape=shape, classes=classes, mean=mean, std=mean, seed=seed)
    save_model(folder, architecture, inference_state(network), description)
    return str(folder)


def test_the_model_itself_as_its_surrogate_is_the_white_box_attack():
    model = conv_net()
    images, _ = batch()
    labels = answered(model, images)
    white = INNER(model, images, labels, generator(4))
    assert torch.equal(transfer_attack(INNER, [model], model, images, labels, generator(4)), white)


def test_the_best_of_all_surrogates_on_the_victim():
    victim = conv_net(seed=0)
    surrogates = [conv_net(seed=seed) for seed in (1, 2, 3)]
    images, _ = batch(count=20)
    labels = answered(victim, images)
    draws = generator(7)  # one generator through all of the runs
    made = [images, *(INNER(surrogate, images, labels, draws) for surrogate in surrogates)]
    scores = torch.stack([margin(logits_of(victim, x), labels) for x in made])
    expected = torch.stack(made)[scores.argmax(0), torch.arange(20)]
    adversarial = transfer_attack(INNER, surrogates, victim, images, labels, generator(7))
    assert torch.equal(adversarial, expected)
    assert (adversarial != images).flatten(1).any(1).any()
    one = transfer_attack(INNER, surrogates[:1], victim, images, labels, generator(7))
    more, less = (margin(logits_of(victim, x), labels) for x in (adversarial, one))
    assert (more >= less).all()


def test_no_model_is_touched_and_no_gradient_of_the_victim_is_taken():
    class Victim(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = conv_net()

        def forward(self, x):
            assert not x.requires_grad
            return self.inner(x)

    victim, surrogate = Victim(), conv_net(seed=1)
    before = state(victim), state(surrogate)
    images, _ = batch()
    transfer_attack(APGD(eps=EPS, steps=3), [surrogate], victim, images, answered(victim, images))
    for old, new in zip(before, (state(victim), state(surrogate)), strict=True):
        assert old[0] == new[0]
        assert old[1] == new[1]
        assert all(torch.equal(old[3][key], new[3][key]) for key in old[3])


def test_a_random_surrogate_leaves_the_global_generator_alone():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = conv_net(seed=1)

        def forward(self, x):
            return self.inner(x + 0.1 * torch.randn_like(x))

    model, surrogate = conv_net(), Predictor(Noisy(), samples=3)
    images, _ = batch()
    labels = answered(model, images)
    before = torch.get_rng_state()
    first = transfer_attack(INNER, [surrogate], model, images, labels, generator())
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, transfer_attack(INNER, [surrogate], model, images, labels, generator()))


def test_model_folders_are_the_models_in_them(tmp_path):
    folders = (saved(tmp_path / "a", seed=1), saved(tmp_path / "b", seed=2))
    victim = conv_net()
    images, _ = batch(count=8)
    labels = answered(victim, images)
    attack = Transfer(eps=EPS, surrogates=folders, attack={"name": "pgd", "steps": 5, "loss": "margin"})
    by_folder = attack(victim, images, labels, generator(2))
    models = [load_model(folder) for folder in folders]
    assert torch.equal(by_folder, transfer_attack(INNER, models, victim, images, labels, generator(2)))
    assert distance("linf", by_folder - images).max() <= EPS + 1e-6


def test_surrogates_of_folders_take_the_type_of_the_images(tmp_path):
    victim = conv_net().double()
    images = batch()[0].double()
    attack = Transfer(eps=EPS, surrogates=(saved(tmp_path / "a"),))
    assert attack(victim, images, answered(victim, images)).dtype == torch.float64


# What is refused, before anything is attacked


class Untouched(nn.Module):
    """A victim that knows how often it ran, which nothing but the folded copy's comparison may do."""

    def __init__(self):
        super().__init__()
        self.inner, self.seen = conv_net(), 0

    def forward(self, x):
        self.seen += len(x)
        return self.inner(x)


@pytest.mark.parametrize(
    ("shape", "classes", "attack", "message"),
    [
        ((1, 8, 8), CLASSES, None, "takes 1x8x8 images, these are 3x8x8"),
        ((3, 16, 16), CLASSES, None, "takes 3x16x16 images, these are 3x8x8"),
        (SHAPE, 2, None, "label 4, but the model has only 2 classes"),
        (
            SHAPE,
            CLASSES,
            {"name": "pgd", "loss": "ce-targeted", "targets": 7},
            "at least 8 classes, it has 5",
        ),
    ],
)
def test_a_folder_that_does_not_fit(tmp_path, shape, classes, attack, message):
    folders = (saved(tmp_path / "fits"), saved(tmp_path / "misfit", shape, classes))
    victim = Untouched()
    images, _ = batch()
    labels = torch.arange(6) % CLASSES
    inner = {} if attack is None else {"attack": attack}
    with pytest.raises(AttackError, match=f"misfit.*{message}|{message}"):
        Transfer(eps=EPS, surrogates=folders, fold=False, **inner)(victim, images, labels)
    assert victim.seen == 0


def test_a_folder_that_is_missing_or_damaged(tmp_path):
    images, labels = batch()
    with pytest.raises(CheckpointError, match="no model folder"):
        Transfer(eps=EPS, surrogates=(str(tmp_path / "nowhere"),))(Untouched(), images, labels)
    folder = saved(tmp_path / "damaged")
    shutil.copy(tmp_path / "damaged" / "model.json", tmp_path / "damaged" / "model.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        Transfer(eps=EPS, surrogates=(folder,))(Untouched(), images, labels)


def test_modules_that_do_not_fit():
    victim = Untouched()
    images, labels = batch()
    attack = PGD(eps=EPS, fold=False)
    fits, _ = linear(CLASSES)
    with pytest.raises(AttackError, match="no surrogates"):
        transfer_attack(attack, [], victim, images, labels)
    with pytest.raises(AttackError, match=r"surrogate 2 does not take 3x8x8 images: .*channels"):
        transfer_attack(attack, [fits, nn.Conv2d(1, 2, 3)], victim, images, labels)
    with pytest.raises(AttackError, match="surrogate 1: label 4, but the model has only 3 classes"):
        transfer_attack(attack, [linear(3)[0]], victim, images, torch.arange(6) % CLASSES)
    with pytest.raises(AttackError, match=r"surrogate 1: the model returned \(1, 3, 8, 8\)"):
        transfer_attack(attack, [nn.Identity()], victim, images, labels)
    assert victim.seen == 0
