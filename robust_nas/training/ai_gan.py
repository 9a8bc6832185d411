"""AI-GAN's training: a generator against a frozen victim C and a discriminator D (Bai et al.).

    L     = w L_adv + lam L_GAN + gam L_hinge                         w, lam, gam: the three weights
    L_adv   = E CE(C(x'), t)            x' = clip(x + G(x, t)),  t drawn among the classes but the label
    L_GAN   = E log D(r) + E log(1 - D(x'))      r = A(x, t) in stage 1, an image x in stage 2
    L_hinge = E max(0, ||G(x, t)||_2 - c)

A, the attacker, is PGD towards the same t in the same ball; it teaches the discriminator what an adversarial image
looks like, and is then replaced by the images themselves. D and G take turns, a step of Adam each on every batch.

    gan     D lowers                                       G lowers
    lsgan   E (D(r) - 1)^2 + E D(x')^2                     E (D(x') - 1)^2
    bce     E softplus(-D(r)) + E softplus(D(x'))          E softplus(-D(x'))        D: the logit, non-saturating

Source: arXiv 2002.02196 and 2111.10055, of which the losses and the two stages were available and the paper's own
hyper-parameters were not. The defaults are inferred from AdvGAN's public code (mathcbc/advGAN_pytorch): weights 10, 1
and 1, least squares, Adam with 1e-3, divided by 10 at epochs 50 and 80, batches of 128. Ours: a third of the epochs in
stage 1; c is by default the longest perturbation of the ball, where the hinge is 0, since the generator's bound is hard
already; the epoch of the highest success on the validation split is kept.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from robust_nas.attacks import PGD, ThreatModel
from robust_nas.attacks.gradient import climb
from robust_nas.attacks.losses import ce
from robust_nas.attacks.norms import l2, project
from robust_nas.config import Count, CountOrZero, NonNegative, Options, Positive
from robust_nas.lazy import F, torch
from robust_nas.training.schedule import Schedule
from robust_nas.training.schedules import SCHEDULES
from robust_nas.training.schedules.piecewise import Piecewise

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from robust_nas.attacks import AttackResult
    from robust_nas.attacks.attacked_model import AttackedModel
    from robust_nas.nets import ai_gan

GAN = Literal["lsgan", "bce"]


class AIGANTraining(Options):
    """How AI-GAN's generator is trained; norm and eps are the threat model's."""

    name: Literal["ai-gan"] = "ai-gan"  # method
    epochs: Count = 60  # passes over the data
    stage1_epochs: CountOrZero | None = None  # epochs with the attacker; None: a third of all
    batch_size: Annotated[Count, Field(ge=2)] = 128  # images of a step
    adversarial_weight: Positive = 10.0  # weight of the victim's loss
    gan_weight: NonNegative = 1.0  # weight of the discriminator's loss
    hinge_weight: NonNegative = 1.0  # weight of the perturbation's length above the bound
    hinge_bound: NonNegative | None = None  # c, an L2 norm; None: the longest perturbation of the ball
    gan: GAN = "lsgan"  # form of the GAN loss
    attacker_steps: Count = 10  # PGD steps of the attacker
    attacker_step_size: Positive | None = None  # None: 2.5 eps / steps
    learning_rate: Positive = 1e-3  # of Adam
    schedule: Annotated[Schedule, SCHEDULES.field()] = Piecewise(milestones=(50, 80))  # of the learning rate
    widths: tuple[Count, Count, Count] = (8, 16, 32)  # channels of the generator's convolutions
    blocks: CountOrZero = 4  # residual blocks of the generator
    validation_images: Count | None = None  # validation images at most; None: all

    @property
    def label(self) -> str:
        """Return the method's name."""
        return self.name

    def stage(self, epoch: int) -> int:
        """Return the stage of an epoch, from 0: 1 with the attacker, 2 with real images."""
        first = round(self.epochs / 3) if self.stage1_epochs is None else self.stage1_epochs
        return 1 if epoch < first else 2

    def attacker(self, threat_model: ThreatModel) -> PGD:
        """Return the attack towards a class, whose images are the real ones of stage 1."""
        return targeted_pgd(threat_model, self.attacker_steps, self.attacker_step_size, keep="last")


def targeted_pgd(
    threat_model: ThreatModel,
    steps: int,
    step_size: float | None = None,
    keep: Literal["best", "last"] = "best",
) -> PGD:
    """Return PGD on the cross-entropy of a class, for `attacked_towards`."""
    limits = {"norm": threat_model.norm, "eps": threat_model.eps}
    return PGD(**limits, steps=steps, step_size=step_size, loss="ce-targeted", keep=keep)


def attacked_towards(
    attack: PGD, victim: nn.Module, images: Tensor, labels: Tensor, targets: Tensor, generator: Generator
) -> AttackResult:
    """Return the outcome of a targeted attack that leads to the classes `targets` `[B]`."""
    from robust_nas.attacks.engine import run

    def perturb(model: AttackedModel) -> Tensor:
        return climb(attack, model, targets)

    return run(attack, perturb, victim, images, labels, generator, checked=True)


def other_classes(labels: Tensor, classes: int, generator: Generator) -> Tensor:
    """Return a class `[B]` drawn for each image among those that are not its label."""
    offsets = torch.randint(1, classes, labels.shape, generator=generator, device=labels.device)
    return (labels + offsets) % classes


def each_other_class(labels: Tensor, classes: int) -> Tensor:
    """Return the classes that are not the label, `[K - 1, B]`."""
    return (labels + torch.arange(1, classes, device=labels.device).unsqueeze(1)) % classes


def adversarial_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return L_adv: the mean cross-entropy of the targets, nats."""
    return ce(logits, targets).mean()


def hinge_loss(delta: Tensor, bound: float) -> Tensor:
    """Return L_hinge: by how much the L2 norm of perturbations exceeds `bound`, on average; 0 inside that ball."""
    return F.relu(l2(delta) - bound).mean()


def discriminator_loss(real: Tensor, fake: Tensor, gan: GAN) -> Tensor:
    """Return what D lowers, of its scores `[B]` of real images and of the generator's."""
    if gan == "lsgan":
        return (real - 1).square().mean() + fake.square().mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def deceiving_loss(fake: Tensor, gan: GAN) -> Tensor:
    """Return L_GAN as the generator lowers it, of D's scores `[B]` of its images."""
    return (fake - 1).square().mean() if gan == "lsgan" else F.softplus(-fake).mean()


class Losses(NamedTuple):
    """The losses of one step, each a scalar without a gradient; D's and L_GAN are 0 where there is no discriminator."""

    loss: Tensor
    adversarial: Tensor
    gan: Tensor
    hinge: Tensor
    discriminator: Tensor


def hinge_bound_of(options: AIGANTraining, threat_model: ThreatModel, numel: int) -> float:
    """Return c; `numel` is the number of pixel values of an image."""
    if options.hinge_bound is not None:
        return options.hinge_bound
    return threat_model.eps * (math.sqrt(numel) if threat_model.norm == "linf" else 1.0)


class AIGANStep:
    """One step of D and one of G on a batch; the victim is in eval mode and frozen (`attack_mode`)."""

    def __init__(
        self,
        options: AIGANTraining,
        threat_model: ThreatModel,
        victim: nn.Module,
        generator: ai_gan.Generator,
        discriminator: ai_gan.Discriminator,
    ) -> None:
        self.options, self.threat_model, self.victim = options, threat_model, victim
        self.generator, self.discriminator = generator, discriminator
        self.optimisers = [
            torch.optim.Adam(network.parameters(), options.learning_rate)
            for network in (generator, discriminator)
        ]
        self.attacker = options.attacker(threat_model)
        self.hinge_bound = hinge_bound_of(options, threat_model, math.prod(generator.shape))

    def perturbed(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return x' and G(x, t), each `[B, C, H, W]`."""
        delta = self.generator(images, targets)
        # Rounding may leave the ball by one place, which the discriminator must not learn to see.
        return project(images + delta, images, self.threat_model.eps, self.threat_model.norm), delta

    def losses(self, images: Tensor, targets: Tensor) -> tuple[Losses, Tensor]:
        """Return the generator's losses with their gradients, and x'."""
        options = self.options
        fake, delta = self.perturbed(images, targets)
        adversarial = adversarial_loss(self.victim(fake.clone()).float(), targets)
        zero = adversarial.new_zeros(())
        deceiving = deceiving_loss(self.discriminator(fake), options.gan) if options.gan_weight else zero
        hinge = hinge_loss(delta, self.hinge_bound) if options.hinge_weight else zero
        loss = options.adversarial_weight * adversarial
        if options.gan_weight:
            loss = loss + options.gan_weight * deceiving
        if options.hinge_weight:
            loss = loss + options.hinge_weight * hinge
        return Losses(loss, adversarial, deceiving, hinge, zero), fake

    def __call__(self, images: Tensor, labels: Tensor, stage: int, generator: Generator) -> Losses:
        """Move D and then G by one batch; return the losses, detached."""
        targets = other_classes(labels, self.generator.classes, generator)
        for_generator, for_discriminator = self.optimisers
        discriminator = images.new_zeros(())
        if self.options.gan_weight:
            real = images
            if stage == 1:
                made = attacked_towards(self.attacker, self.victim, images, labels, targets, generator)
                real = made.images
            with torch.no_grad():
                fake, _ = self.perturbed(images, targets)
            for_discriminator.zero_grad()
            discriminator = discriminator_loss(
                self.discriminator(real), self.discriminator(fake), self.options.gan
            )
            torch.autograd.backward(discriminator)
            for_discriminator.step()
        for_generator.zero_grad()
        found, _ = self.losses(images, targets)
        torch.autograd.backward(found.loss)
        for_generator.step()
        return Losses(*(loss.detach() for loss in found._replace(discriminator=discriminator)))
