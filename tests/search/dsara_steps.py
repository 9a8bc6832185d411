"""A tiny search by DSARA, its steps, and what they change."""

import torch
import torch.nn.functional as F
from cases import small_space
from torch.func import functional_call

from robust_nas.attacks import PGD, attack_mode
from robust_nas.nets import Supernet
from robust_nas.search import DSARA, Batch, OneShotSearch, WeightOptimiser
from robust_nas.search.one_shot.batch import flatten

CLASSES = 4
SPACE = small_space(2, ["avg_pool_3x3", "skip_connect", "sep_conv_3x3"])
WEIGHTS = WeightOptimiser(learning_rate=0.2, momentum=0.9, weight_decay=0.05, clip_norm=100)


def make(seed=0, warm=True, execution="fused", strategy=None, **options):
    """A tiny search in float64 with wide alphas; `warm`: after one weight step, so that momentum is there.

    `strategy` makes the strategy of these options; None: DSARA.
    """
    supernet = Supernet(SPACE, CLASSES, 1, channels=2, cells=3, seed=seed, execution=execution).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for alpha in supernet.alphas.values():
            alpha.copy_(torch.randn(alpha.shape, generator=generator))
    values = {"attack": PGD(eps=0.1, steps=2), "weights": WEIGHTS, **options}
    search = OneShotSearch((strategy or two_stages)(**values), supernet, SPACE)
    if warm:
        search.weight_step(draw(seed + 50))
    return search


def two_stages(**options):
    """DSARA with one epoch of either stage."""
    return DSARA(epochs=2, stage1_epochs=1, **options)


def alpha_gradient(search, stage, alphas_batch, weights_batch):
    search.epoch = stage - 1
    return search.strategy.alpha_gradient(search, alphas_batch, weights_batch)


def alpha_step(search, stage, alphas_batch, weights_batch):
    found = alpha_gradient(search, stage, alphas_batch, weights_batch)
    search.alpha_step(found.gradient)
    return found


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    natural = torch.rand(8, 1, 6, 6, dtype=torch.float64, generator=generator)
    noise = torch.rand(natural.shape, dtype=torch.float64, generator=generator)
    adversarial = (natural + 0.2 * noise - 0.1).clamp(0, 1)
    return Batch(natural, adversarial, torch.randint(CLASSES, (8,), generator=generator))


def snapshot(supernet):
    return {name: tensor.clone() for name, tensor in supernet.state_dict().items()}


def changed(before, supernet):
    return {name for name, tensor in supernet.state_dict().items() if not torch.equal(before[name], tensor)}


def unrolled(search, images, labels, batch):
    """d/dalpha L(w'(alpha), alpha) by autograd through one SGD step with momentum and weight decay."""
    supernet, options = search.supernet, search.strategy.weights
    leaves = {name: p.detach().clone().requires_grad_() for name, p in supernet.named_parameters()}
    alphas = {name: p for name, p in leaves.items() if name.startswith("alphas.")}
    weights = {name: p for name, p in leaves.items() if name not in alphas}
    with attack_mode(supernet, "batch"):
        loss = F.cross_entropy(functional_call(supernet, leaves, (batch.adversarial,)), batch.labels)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        buffers = [
            search.weight_optimiser.state.get(w, {}).get("momentum_buffer", 0.0) for w in search.weights
        ]
        moved = {
            name: w - options.learning_rate * (options.momentum * b + g + options.weight_decay * w)
            for (name, w), g, b in zip(weights.items(), gradients, buffers, strict=True)
        }
        loss = F.cross_entropy(functional_call(supernet, {**moved, **alphas}, (images,)), labels)
        return loss.detach(), flatten(torch.autograd.grad(loss, list(alphas.values())))


def direct(search, images, labels):
    """d/dalpha L(w, alpha) by plain autograd."""
    with attack_mode(search.supernet, "batch"):
        for alpha in search.alphas.values():
            alpha.requires_grad_(True)
        loss = F.cross_entropy(search.supernet(images), labels)
        return loss.detach(), flatten(torch.autograd.grad(loss, list(search.alphas.values())))


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())
