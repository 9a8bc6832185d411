"""Are attacks with bf16 gradients as strong? On a trained supernet and images that it has not seen; prints Markdown.

    .venv/bin/python scripts/compare_precisions.py [--steps 300]

A fused supernet of the space `dsara` is trained on digits by weight steps on PGD-7, eps 0.1, its alphas as they begin;
then its folded copy is attacked in float32 and in bf16 by the same draws. The supernet itself judges in float32.
"""

from __future__ import annotations

import argparse

import torch

from robust_nas.attacks import PGD
from robust_nas.data import DataOptions, Images, load_dataset
from robust_nas.nets import Supernet, channels_last
from robust_nas.search import DSARA, Batch, OneShotSearch
from robust_nas.spaces import load_space

EPS = 0.1
ATTACK = PGD(eps=EPS, step_size=EPS / 4, steps=7, keep="last", fold=False)  # the copy is folded already


def trained(images: Images, steps: int) -> Supernet:
    """A supernet after some weight steps of batch 64."""
    supernet = Supernet(load_space("dsara"), 10, 1, 8, 5, mean=(0.3,), std=(0.35,), seed=0)
    search = OneShotSearch(DSARA(attack=ATTACK), channels_last(supernet), load_space("dsara"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(len(images), (64,), generator=generator)
        x, labels = images.float(chosen).contiguous(memory_format=torch.channels_last), images.labels[chosen]
        search.weight_step(Batch(x, search.attack(x, labels, generator), labels))
    return supernet.eval()


def main() -> None:
    """Trains, attacks, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    torch.set_num_threads(1)
    data = load_dataset(DataOptions())
    options = parser.parse_args()
    supernet = trained(data.train, options.steps)
    folded = supernet.folded()
    assert folded is not None  # noqa: S101
    x, labels = data.test.float().contiguous(memory_format=torch.channels_last), data.test.labels

    def right(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.eq(supernet(images).argmax(1), labels)

    print(
        f"Digits, {options.steps} weight steps; {len(x)} test images, {int(right(x).sum())} right without attack.\n"
    )
    print("| attack | seed | right, float32 | right, bf16 | fell to float32 alone | fell to bf16 alone |")
    print("|---|---|---|---|---|---|")
    for steps in (7, 20):
        for seed in range(3):
            whole, half = (
                right(
                    ATTACK.model_copy(update={"steps": steps, "precision": precision})(
                        folded, x, labels, torch.Generator().manual_seed(seed)
                    )
                )
                for precision in ("float32", "bf16")
            )
            alone = [int((half & ~whole).sum()), int((whole & ~half).sum())]
            print(
                f"| PGD-{steps} | {seed} | {int(whole.sum())} | {int(half.sum())} | {alone[0]} | {alone[1]} |"
            )


if __name__ == "__main__":
    main()
