"""Networks, images, recipes and a runner that the tests of the training room share; and every method's options."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import small_space
from torch import nn
from torch.distributions import Normal

from robust_nas.attacks import FGSM, FGSMRS, NFGSM, PGD, LatentFit, SecondOrder
from robust_nas.attacks.predictor import Predictor
from robust_nas.data import Augment, Images
from robust_nas.nets import Supernet, build_network
from robust_nas.run_folder import Run
from robust_nas.spaces import EnsembleArchitecture, MeanFieldArchitecture, ResidualArchitecture
from robust_nas.training import (
    AWP,
    ERCLA,
    IAT,
    IGBNN,
    JSIGR,
    MART,
    PGDAT,
    SWA,
    TRADES,
    AdvBNN,
    Cosine,
    EarlyStopping,
    EpsSchedule,
    ExtraImages,
    FreeAT,
    FrozenSparta,
    GaussianNoise,
    GradAlign,
    IndependentParticles,
    LabelSmoothing,
    Ladder,
    Natural,
    NoiseLayers,
    OverfittingGuard,
    Piecewise,
    SecondOrderAT,
    Standard,
    Training,
)
from robust_nas.training.loop import train

CLASSES = 4
EPS = 0.1
SPACE = small_space()
ARCHITECTURE = Supernet(SPACE, CLASSES, 1, channels=2, cells=3, seed=1).derive().resized(3, 2)
RESIDUAL = ResidualArchitecture(name="residual", stem=2, depths=(1, 1), widths=(2, 4))
ENSEMBLE = EnsembleArchitecture(name="ensemble", member=RESIDUAL, particles=2)
POSTERIOR = MeanFieldArchitecture(name="posterior", member=RESIDUAL, samples=2)
FULL = {"ema": 0.9, "drop_path": 0.3, "auxiliary_weight": 0.4, "clip_norm": 5.0, "nesterov": True}

# The conformance suites: every method of the registries, each with the options that it is tested with.
KL = PGD(eps=EPS, steps=3, loss="kl", keep="last")
LOSSES = {
    "natural": Natural(),
    "pgd-at": PGDAT(attack=PGD(eps=EPS, steps=3, keep="last")),
    "pgd-at-best-batch": PGDAT(attack=PGD(eps=EPS, steps=2, bn="batch")),
    "pgd-at-fgsm-rs": PGDAT(attack=FGSMRS(eps=EPS)),
    "pgd-at-n-fgsm": PGDAT(attack=NFGSM(eps=EPS)),
    "trades": TRADES(attack=KL),
    "iat": IAT(attack=PGD(eps=EPS, steps=3, keep="last")),
    "j-sigr": JSIGR(projections=5, grid=4, saliency_share=0.25, jacobian_weight=0.1),
    "j-sigr-attacked": JSIGR(
        attack=PGD(eps=EPS, steps=3, keep="last"), projections=2, grid=4, saliency_share=0.25
    ),
    "mart": MART(attack=PGD(eps=EPS, steps=3, keep="last")),
    "grad-align": GradAlign(attack=FGSM(eps=EPS), weight=0.5),
    "ladder": Ladder(warmup_epochs=0, every=1, latent=LatentFit(decoder_width=4, decoder_epochs=1)),
    "second-order": SecondOrderAT(attack=SecondOrder(eps=EPS, steps=2, krylov=3, keep="last")),
    "adv-bnn": AdvBNN(attack=PGD(eps=EPS, steps=3, keep="last")),
}
PLACE = tempfile.TemporaryDirectory()  # of this process


def extra_images(name="extra.npz", count=10, shape=(1, 8, 8), classes=CLASSES, **changes):
    """The path of an `.npz` of random images, N H W C."""
    draws = np.random.default_rng(0)
    arrays = {
        "image": draws.integers(256, size=(count, *shape[1:], shape[0]), dtype=np.uint8),
        "label": draws.integers(classes, size=count),
        **changes,
    }
    path = Path(PLACE.name) / name
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return str(path)


HOOKS = {
    "awp": AWP(gamma=0.05),
    "awp-late": AWP(gamma=0.05, warmup_epochs=1),
    "swa": SWA(from_epoch=0, images=16),
    "label-smoothing": LabelSmoothing(smoothing=0.2),
    "eps-schedule": EpsSchedule(epochs=1, start_share=0.25),
    "overfitting-guard": OverfittingGuard(images=4, steps=2, drop=0.05, gap=0.05),
    "early-stopping": EarlyStopping(patience=1, least_gain=0.9),
    "extra-images": ExtraImages(path=extra_images(), share=0.4),
    "frozen-sparta": FrozenSparta(model="none", digest="0" * 16),  # which takes no part in a step
    "gaussian-noise": GaussianNoise(sigma=0.25),
    "noise-layers": NoiseLayers(std_init=0.2, std_inner=0.1),
}
STEPS = {
    "standard": Standard(),
    "free-at": FreeAT(eps=EPS, replays=3),
    "er-cla": ERCLA(critic_width=8, critic_rate=0.01, clip=0.3),
    "ensemble": IndependentParticles(),
    "ig-bnn": IGBNN(gamma=0.5),
    "ig-bnn-absolute": IGBNN(absolute=True, bandwidth="scaled-median"),
}
NEEDED = {  # the network that a loss or a step is for, where not every one will do
    AdvBNN: POSTERIOR,
    IndependentParticles: ENSEMBLE,
    IGBNN: ENSEMBLE,
}
SCHEDULES = {
    "cosine": Cosine(final=0.1),
    "cosine-warmup": Cosine(warmup_epochs=2),
    "piecewise": Piecewise(milestones=(1, 3), factor=0.5),
}


def with_eps(loss, eps):
    """The loss with an inner attack of that eps; one whose images move with the weights without them, at eps 0."""
    if loss.inner_attack is None:
        return loss.model_copy(update={"weight": 0.0}) if loss.fits_parts and eps == 0 else loss
    return loss.model_copy(update={"attack": loss.inner_attack.model_copy(update={"eps": eps})})


def with_prior(loss, model, images, labels):
    """The cross-entropy of the drawn network, and the divergence over the number of images."""
    draws = generator()
    attack = loss.attack.model_copy(update={"fold": False})
    with model.drawing_from(draws):
        attack.craft(Predictor(model), images, labels, draws)  # which draws too
        natural = float(nn.functional.cross_entropy(model(images), labels).detach())
    divergence = sum(
        float(
            torch.distributions.kl_divergence(Normal(mu, sigma), Normal(0.0, loss.prior_sigma)).sum().detach()
        )
        for mu, sigma in model.posterior().values()
    )
    return natural + loss.alpha * divergence / len(images)


def options(**changes):
    values = {
        "epochs": 2,
        "batch_size": 8,
        "loss": PGDAT(attack=FGSMRS(eps=0.1)),
        "learning_rate": 0.05,
        "validation_attack": PGD(eps=0.1, steps=1),
        **changes,
    }
    return Training(**values)


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % CLASSES)


def network(auxiliary=False):
    return build_network(ARCHITECTURE, input_shape=(1, 8, 8), classes=CLASSES, auxiliary=auxiliary, seed=0)


def residual():
    return build_network(RESIDUAL, input_shape=(1, 8, 8), classes=CLASSES, seed=0)


def small_network(classes=5):
    """A convolution with a batch norm, and a linear layer, for images 2 x 5 x 5."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * 25, classes),
        ).train()


def residual_for(method):
    """A residual network that a loss or a step can train."""
    architecture = NEEDED.get(type(method), RESIDUAL)
    return build_network(architecture, input_shape=(1, 8, 8), classes=CLASSES, seed=0)


def small_for(method):
    """A network for images 2 x 5 x 5 that a loss or a step can train."""
    if type(method) not in NEEDED:
        return small_network()
    member = RESIDUAL.model_copy(update={"depths": (1,), "widths": (3,), "strides": (1,)})
    architecture = NEEDED[type(method)].model_copy(update={"member": member})
    return build_network(architecture, input_shape=(2, 5, 5), classes=5, seed=0).train()


def linear_network(classes=3, side=2):
    """A linear model in float64."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(side * side, classes)).double()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.normal_(generator=generator(number))
    return model.train()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small_batch(seed=1, classes=5):
    pixels = torch.rand(8, 2, 5, 5, generator=generator(seed))
    return pixels, torch.randint(classes, (8,), generator=generator(seed + 1))


def run_training(
    folder, values, *, mode="new", progress=lambda *_: None, checkpoint_seconds=0.0, net=None, hooks=()
):
    """Two dozen images in batches of eight. Returns the outcome, the records and the network."""
    net = net or network(values.auxiliary_weight > 0)
    with Run(folder, values, mode) as run:
        outcome = train(
            run,
            net,
            images(24),
            images(12, seed=1),
            values,
            Augment(crop=1),
            seed=3,
            checkpoint_seconds=checkpoint_seconds,
            progress=progress,
            hooks=hooks,
        )
        return outcome, run.records(), net


class Stopped(Exception):  # noqa: N818 - no error
    """Stands for a kill."""


def stop_at(step):
    """A progress that kills the training after so many steps."""

    def stop(job, done, total, note=""):
        if done == step:
            raise Stopped

    return stop


def loss_for(step):
    """A loss that the step can work with."""
    return Natural() if isinstance(step, FreeAT) else LOSSES["pgd-at"]


def loss_under(hook, loss):
    """The loss, or one that the hook can be part of a recipe with."""
    return Natural() if isinstance(hook, GaussianNoise) else loss


def same_state(one, other):
    """Whether two trees of what a checkpoint holds are equal, to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_state, one, other))
    return one == other


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_resumes(folder, values, build=lambda: None):
    """Check that a training stopped after four steps, on the network of `build`, ends like a whole one, to the bit."""
    expected, records, net = run_training(folder / "whole", values, net=build())
    with pytest.raises(Stopped):
        run_training(folder / "cut", values, progress=stop_at(4), net=build())
    found, again, resumed = run_training(folder / "cut", values, mode="resume", net=build())
    assert same(found.state, expected.state)
    assert same(resumed.state_dict(), net.state_dict())
    assert again == records
