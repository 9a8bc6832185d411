"""How a network is compressed, as option values; nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from robust_nas.config import Count, CountOrZero, Fraction01, NonNegative, Options, Positive
from robust_nas.training import LOSSES, Loss

Share = Annotated[Positive, Field(lt=1)]
Ratio = Annotated[Positive, Field(gt=1)]


def _different(values: tuple[float, ...]) -> tuple[float, ...]:
    """Values of different names, which are folders' too."""
    names = [f"{value:g}" for value in values]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} stands there more than once (six digits count)")
    return values


class Alpha(Options):
    """How the weight of a channel's error is measured: on training images, attacked by the recipe's validation attack.

    `competitors`: the classes with the smallest margins that count (None: all). Margins below `margin_floor` times the
    median count as that much (our choice: E[1 / margin^2] is else decided by a few images). `sketches` passes back an
    image take the place of one a competitor, the same in expectation and so many times faster (None: exact).
    """

    images: Count = 1000
    batch_size: Count = 128
    attacked: bool = True
    competitors: Count | None = 10
    margin_floor: NonNegative = 0.1
    sketches: Count | None = None


class GDWS(Options):
    """Generalised depthwise-separable convolutions (Dbouk and Shanbhag, 2021), training-free, one network a budget.

    `budgets` are shares of the network's MACs that stay; `betas` instead are bounds of a layer's weighted squared error
    (the published way, with `allocation: uniform`) or of the whole network's (`global`). With `min_gain` a layer whose
    factorised form is not at least so many times faster than the dense one, measured, stays dense. With
    `finetune_epochs` every network is trained on by the recipe, as it is (without the norms that `fold` took away), and
    stands beside the training-free one.
    """

    budgets: Annotated[tuple[Share, ...], AfterValidator(_different)] | None = None
    betas: Annotated[tuple[NonNegative, ...], AfterValidator(_different)] | None = None
    allocation: Literal["global", "uniform"] = "global"
    alpha: Alpha | None = Alpha()  # None: 1 for every channel
    skip_first: bool = True
    refit: CountOrZero = (
        512  # ours: training images, clean and attacked, that mixing is fitted to; 0: as published
    )
    fold: bool = True  # batch norms into the convolutions before them
    min_kernels: Annotated[int, Field(ge=0)] = 1  # of every input channel
    min_gain: NonNegative | None = None
    finetune_epochs: CountOrZero = 0  # ours: 0 is the published, training-free method
    finetune_learning_rate: Positive = 0.02
    loss: Annotated[Loss, LOSSES.field()] | None = None  # of fine-tuning; None: the recipe's

    @model_validator(mode="before")
    @classmethod
    def _usual_budgets(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("budgets") is None and values.get("betas") is None:
            return {**values, "budgets": (0.75, 0.5, 0.35)}
        return values

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.budgets is not None and self.betas is not None:
            raise ValueError("budgets and betas are both given; set one of them to null")
        if not (self.budgets or self.betas):
            raise ValueError("an empty list; at least one budget, such as 0.5, or one beta is needed")
        return self


class CSTAR(Options):
    """Low-rank training under attack by ADMM, then factors and fine-tuning, one network a ratio (CSTAR-style).

    A ratio is of the weights of convolutions and linear layers. Every `update_every` epochs the low-rank copy and the
    multipliers are renewed; between two updates the penalty alone would draw the weights to their copy by e^-pull,
    whatever the number of images and the learning rate, and by `rho_growth` times more at every update. Ranks are
    determined anew until the share `freeze` of the epochs. Learning rates that are None: the recipe's, half of it in
    fine-tuning, which uses `loss` (None: the recipe's). Baselines at the same ratio: `truncate`, the same ranks without
    ADMM, and `uniform`, the same share of rank everywhere, both fine-tuned for as many epochs as CSTAR takes in all;
    `truncate-short` for `finetune_epochs` alone.
    """

    ratios: Annotated[tuple[Ratio, ...], AfterValidator(_different)] = Field(default=(4.0,), min_length=1)
    epochs: Count = 10
    finetune_epochs: Count = 10
    learning_rate: Positive | None = None
    finetune_learning_rate: Positive | None = None
    pull: Positive = 0.3
    rho_growth: Annotated[Positive, Field(ge=1)] = 1.3
    update_every: Count = 1
    freeze: Fraction01 = 0.5
    sweeps: Count = 5  # of HOOI
    rank_multiple: Count = 1
    min_rank: Fraction01 = 0.05  # of a side
    skip_ends: bool = (
        True  # the first convolution and the classifier stay: few weights, and everything passes them
    )
    loss: Annotated[Loss, LOSSES.field()] | None = None
    baselines: tuple[Literal["truncate", "truncate-short", "uniform"], ...] = (
        "truncate",
        "truncate-short",
        "uniform",
    )


class Compression(Options):
    """What is done to a network: CSTAR, GDWS, or CSTAR and then GDWS on its result.

    Of the networks that come out, the one with the fewest MACs that loses at most `max_loss` of robust accuracy on the
    validation split is chosen. `test` says which are evaluated on the test set beside the original: the chosen one and
    its baselines, or all of them, declared beforehand.
    """

    gdws: GDWS | None = None
    cstar: CSTAR | None = None
    max_loss: Fraction01 = 0.01
    test: Literal["chosen", "all"] = "chosen"

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.gdws is None and self.cstar is None:
            raise ValueError("neither gdws nor cstar is given; at least one of them is needed")
        return self
