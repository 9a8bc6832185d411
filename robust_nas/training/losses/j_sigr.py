"""J-SIGR-style training: Jacobian norm and selective input-gradient regularisation (after Liu et al., 2024).

    L = CE(f(x), y) + c_J mean_b 1/2 ||J_b||_F^2 + c_S mean_{b in S} ||(1 - M_b) * grad_x log p_{y_b}(x_b)||_2^2
    J_b = dz_b/dx_b of the logits z;   ||J_b||_F^2 ~ K/n sum_{i <= n} ||v_i' J_b||^2,  v_i orthonormal, exact at n = K
    P_bk = 1/2 ||p(x_b) - p(x_b with patch k blurred)||^2,     M_b = 1 on the patches of largest P_b, else 0

Pattern Recognition 145 (2024), arXiv 2207.13036: its text was not available and its repository holds no method. All of
this is inference from the abstract (Jacobian normalization; saliency that imitates perturbation saliency) and from code
of its parts: the random projections and c_J = 0.01 are those of Hoffman et al.'s Jacobian regularizer; with M = 0 the
last term is double backpropagation (Drucker and LeCun, 1992; Ross and Doshi-Velez, 2018). Ours: patches of a grid, the
local mean as blur, the 20 % most salient patches, c_S = 1.

P takes grid^2 + 1 forward passes an image, in eval mode, without gradients. Instead of old maps of the whole batch, S
is the first tenth of every (shuffled) batch with new maps: the cost of a refresh every ten steps, and nothing to keep
between steps. With an attack, all three terms are on the attacked images, which are constants for the gradient.
Gradients are those of the network in training mode: batch norm lets an image's logits depend on the others' pixels.

B batch, C channels, H height, W width, K classes, G patches a side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from robust_nas.attacks import Attack, training_attack_field
from robust_nas.config import Count, NonNegative
from robust_nas.errors import ConfigError
from robust_nas.lazy import F, torch
from robust_nas.training.loss import STEP_PASSES, Loss, LossValue, attack_passes, cross_entropy, to_float32

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

Share = Annotated[NonNegative, Field(le=1)]
AT_ONCE = 256  # images of a forward pass for saliency
SALIENT = 1e-6  # of an image's largest P: below it, a patch is as good as unseen


class JSIGR(Loss):
    """Cross-entropy, Jacobian norm and input gradients outside salient patches, J-SIGR-style (Liu et al., 2024).

    `projections`: as many as classes make the Jacobian norm exact. `salient`: share of the patches whose gradient is
    free. `saliency_share`: share of a batch whose saliency is computed, and which has the selective term.
    """

    twice_differentiated: ClassVar[bool] = True
    single_rank: ClassVar[str] = "a batch norm that ranks share has no second derivative"
    warning: ClassVar[str] = (
        "defences by input gradients or saliency alone are mostly gradient masking (RobustBench's Jacobian defence: "
        "93.79 % clean, 0.26 % under AutoAttack); believe the verdict of an evaluation, not PGD alone"
    )

    name: Literal["j-sigr"] = "j-sigr"
    # on the training images; None: clean images
    attack: Annotated[Attack, training_attack_field()] | None = None
    jacobian_weight: NonNegative = 0.01  # weight of the Jacobian norm
    selective_weight: NonNegative = 1.0  # weight of the gradients outside salient patches
    projections: Count = 1  # random projections of the Jacobian norm; as many as classes: exact
    grid: Count = 8  # patches of a side
    salient: Share = 0.2  # share of the patches whose gradient is free
    saliency_share: Share = 0.1  # share of a batch whose saliency is computed

    @property
    def least_side(self) -> int:
        """Return the patches of a side: one has at least a pixel."""
        return self.grid if self._selects else 1

    @property
    def least_classes(self) -> int:
        """Return the projections of the Jacobian, which are orthonormal vectors over the classes."""
        return max(super().least_classes, self.projections if self.jacobian_weight > 0 else 0)

    @property
    def _selects(self) -> bool:
        return self.selective_weight > 0 and self.saliency_share > 0

    @property
    def passes(self) -> float:
        """Return 3 + 3n + 3 + share (grid^2 + 1), and 2K for an attack of K steps.

        A penalised input gradient is a backward pass, whose own gradients take two more: 3. The share is that of a
        batch which it makes a whole number of; of others it is a little more.
        """
        terms = self.projections * (self.jacobian_weight > 0) + self._selects
        saliency = round(self.saliency_share * (self.grid**2 + 1), 6) if self._selects else 0
        attack = 0 if self.attack is None else attack_passes(self.attack)
        return attack + STEP_PASSES + 3 * terms + saliency

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: Generator) -> LossValue:
        """Return the loss on images `[B, C, H, W]`, with their logits (of the attacked ones where it attacks)."""
        if self.attack is not None:
            images = self.attack.craft(model, images, labels, generator)
        judged = _share_of(self.saliency_share, len(images)) if self._selects else 0
        if judged:  # before the forward pass: it freezes the weights for a moment
            saliency = perturbation_saliency(model, images[:judged], self.grid)
            free = salient_pixels(saliency, self.salient, images.shape[2:])
        # A step that moves the images, such as free-at, needs their gradient too.
        x = images if images.requires_grad else images.detach().clone().requires_grad_()
        logits = model(x)
        loss, wide = cross_entropy(logits, labels), to_float32(logits)
        if self.jacobian_weight:
            vectors = orthonormal_vectors(wide, self.projections, generator)
            loss = loss + self.jacobian_weight * jacobian_norm(wide, x, vectors)
        if judged:
            own = wide[:judged].log_softmax(1).gather(1, labels[:judged].unsqueeze(1))
            (gradient,) = torch.autograd.grad(own.sum(), x, create_graph=True)
            loss = loss + self.selective_weight * selective_penalty(gradient[:judged], free)
        return LossValue(loss, logits.detach())

    def explanation(self, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Return pictures, gradient and perturbation saliency of images, and how well the two agree, for `saliency`."""
        perturbed = perturbation_saliency(model, images, self.grid)
        gradient = gradient_saliency(model, images, labels, self.grid)
        return {
            "saliency": {
                "images": images.tolist(),
                "labels": labels.tolist(),
                "gradient": gradient.tolist(),
                "perturbation": perturbed.tolist(),
                "agreement": rank_correlation(gradient.flatten(1), perturbed.flatten(1)).tolist(),
            }
        }


def _share_of(share: float, count: int) -> int:
    """Return a share of `count`, rounded up; 0.1 of 30 is 3."""
    return math.ceil(round(share * count, 6))


def orthonormal_vectors(logits: Tensor, count: int, generator: Generator) -> Tensor:
    """Return `count` orthonormal vectors `[count, B, K]` of every example: random ones, the unit vectors where all K.

    Raises `ConfigError` for more than there are classes.
    """
    batch, classes = logits.shape
    if count > classes:
        raise ConfigError(f"loss j-sigr: projections: got {count}; at most the number of classes, {classes}")
    if count == classes:
        unit = torch.eye(classes, dtype=logits.dtype, device=logits.device)
        return unit.unsqueeze(1).expand(-1, batch, -1)
    vectors: list[Tensor] = []
    for _ in range(count):  # Gram-Schmidt, each time twice: once leaves the rounding of a cancellation
        v = torch.randn(batch, classes, dtype=torch.float64, generator=generator, device=logits.device)
        for other in 2 * vectors:
            v = v - (v * other).sum(1, keepdim=True) * other
        vectors.append(F.normalize(v))
    return torch.stack(vectors).to(logits.dtype)


def jacobian_norm(logits: Tensor, x: Tensor, vectors: Tensor) -> Tensor:
    """Return the mean of 1/2 ||J_b||_F^2, estimated by vectors `[n, B, K]`; to be differentiated again."""
    batch, classes = logits.shape
    total = logits.new_zeros(())
    for v in vectors:
        (product,) = torch.autograd.grad(logits, x, v, create_graph=True)
        total = total + product.square().sum()
    return classes / (2 * len(vectors) * batch) * total


def selective_penalty(gradient: Tensor, free: Tensor) -> Tensor:
    """Return the mean over examples of ||(1 - M) * g||^2 of gradients `[B, C, H, W]` and masks `[B, 1, H, W]`."""
    return (gradient * ~free).square().flatten(1).sum(1).mean()


def patches(size: Sequence[int], grid: int, device: torch.device) -> Tensor:
    """Return which pixels of an image of `size` (H, W) are in which patch, `[grid^2, H, W]`, row by row.

    The sides of patches differ by at most one pixel. Raises `ConfigError` for more patches than pixels a side.
    """
    if min(size) < grid:
        raise ConfigError(f"loss j-sigr: grid: got {grid}; at most the pixels of a side, {min(size)}")
    rows, columns = (torch.arange(side, device=device) * grid // side for side in size)
    number = rows.unsqueeze(1) * grid + columns
    return number == torch.arange(grid**2, device=device).view(-1, 1, 1)


def perturbation_saliency(model: nn.Module, images: Tensor, grid: int) -> Tensor:
    """Return P `[B, G, G]`: how far the prediction moves when a patch is replaced by its local means.

    The model is in eval mode inside; nothing of it is changed.
    """
    from robust_nas.attacks import attack_mode

    size = images.shape[2:]
    window = 2 * math.ceil(max(size) / grid) + 1  # a patch and half of its neighbours, odd
    with attack_mode(model), torch.no_grad():
        blurred = F.avg_pool2d(images, window, 1, window // 2, count_include_pad=False)
        inside = patches(size, grid, images.device)[:, None, None]
        moved = torch.where(inside, blurred, images).flatten(0, 1)  # [G^2 B, C, H, W]
        batches = torch.split(torch.cat([images, moved]), AT_ONCE)
        p = torch.cat([to_float32(model(batch)).softmax(1) for batch in batches])
        clean, changed = p[: len(images)], p[len(images) :].view(grid**2, *p[: len(images)].shape)
        saliency: Tensor = (changed - clean).square().sum(2).T / 2
        return saliency.reshape(len(images), grid, grid)


def salient_pixels(saliency: Tensor, share: float, size: Sequence[int]) -> Tensor:
    """Return M `[B, 1, H, W]`: the pixels of the share of patches with the largest P `[B, G, G]`; equal ones together.

    Patches without any P are not salient, however large the share.
    """
    batch, grid = saliency.shape[:2]
    flat = saliency.flatten(1)
    count = round(share * grid**2)
    if not count:
        return torch.zeros(batch, 1, *size, dtype=torch.bool, device=saliency.device)
    ranked = flat.sort(1, descending=True).values
    chosen = (flat >= ranked[:, count - 1 : count]) & (flat > SALIENT * ranked[:, :1])
    inside = patches(size, grid, saliency.device)
    return (chosen.to(saliency.dtype) @ inside.flatten(1).to(saliency.dtype)).view(batch, 1, *size) > 0


def gradient_saliency(model: nn.Module, images: Tensor, labels: Tensor, grid: int) -> Tensor:
    """Return the mean over a patch `[B, G, G]` of the largest |d log p_y / dx| of the channels, in eval mode."""
    from robust_nas.attacks import attack_mode

    with attack_mode(model):
        x = images.detach().clone().requires_grad_()
        own = to_float32(model(x)).log_softmax(1).gather(1, labels.unsqueeze(1))
        (gradient,) = torch.autograd.grad(own.sum(), x)
    inside = patches(images.shape[2:], grid, images.device).to(gradient.dtype)
    largest = gradient.abs().amax(1)  # [B, H, W]
    means = largest.flatten(1) @ inside.flatten(1).T / inside.sum((1, 2))
    return means.view(len(images), grid, grid)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's correlation `[B]` of the rows of `[B, N]`; equal values share their rank, a constant has 0."""

    def ranks(values: Tensor) -> Tensor:
        above = (values.unsqueeze(2) > values.unsqueeze(1)).double().sum(2)
        equal = (values.unsqueeze(2) == values.unsqueeze(1)).double().sum(2)
        found = above + equal / 2
        return found - found.mean(1, keepdim=True)

    return F.cosine_similarity(ranks(a), ranks(b), eps=1e-12)
