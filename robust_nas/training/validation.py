"""Validation: clean and robust accuracy on a split of the training data, which decide the epoch that is kept."""

from __future__ import annotations

import torch
from torch import nn

from robust_nas.attacks import Attack, Predictor
from robust_nas.attacks.batch_generator import BatchGenerator
from robust_nas.data import Images
from robust_nas.distributed import ALONE, Ranks
from robust_nas.errors import DivergenceError
from robust_nas.evaluation import judge
from robust_nas.training.divergence import REMEDY

BATCH = 256


def validation_images(images: Images, limit: int | None, seed: int) -> Images:
    """Return at most `limit` images of the validation split, drawn by `seed`."""
    return images if limit is None or limit >= len(images) else images.draw(limit, seed)


def validate(
    model: nn.Module,
    images: Images,
    attack: Attack,
    *,
    seed: int,
    where: str,
    remedy: str = REMEDY,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """Return clean and robust accuracy, 0..1; the attack draws from a fresh generator every time.

    The ranks share the images. Raises `DivergenceError` for logits that are not finite, on images as they are
    or attacked.
    """
    model.eval()
    device = images.pixels.device
    generator = BatchGenerator(device)
    generator.manual_seed(seed)
    predictor = Predictor.of(model)
    counts = torch.zeros(3, dtype=torch.int64, device=device)  # clean, robust, not finite
    for indices in torch.split(torch.arange(len(images)), BATCH):
        part = images.subset(indices)
        # A batch with fewer images than ranks is attacked by all of them, and counted by rank 0.
        split = len(part) >= ranks.count
        rows = ranks.rows(len(part)) if split else slice(0, len(part))
        generator.whole, generator.rows = len(part), rows
        x, labels = part.float()[rows].contiguous(memory_format=torch.channels_last), part.labels[rows]
        attacked = attack(model, x, labels, generator)
        before, after = (judge(predictor, each, labels) for each in (x, attacked))
        if split or ranks.first:
            both = before.right & after.right
            unsound = ~(before.logits.isfinite() & after.logits.isfinite())
            counts += torch.stack([before.right.sum(), both.sum(), unsound.sum()])
    clean, robust, broken = ranks.all_reduce_sum([counts])[0].tolist()
    if broken:
        raise DivergenceError(
            f"{where}: diverged, the network's logits on the validation split are not finite; "
            f"the last good checkpoint stays. {remedy}"
        )
    return clean / len(images), robust / len(images)
