"""The protocol of ranking methods: from architectures to scores, higher is better.

A new method is a subclass with its options, its formula and `score`, in a file of its own, and a line in `RANKINGS`.
What is expensive is written to `context.log(part)` architecture by architecture, so that a killed ranking resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robust_nas.config import Count
from robust_nas.data.options import Augment
from robust_nas.errors import ConfigError
from robust_nas.lazy import torch
from robust_nas.record_log import RecordLog
from robust_nas.registry import Method
from robust_nas.run_folder import Progress, Run, silent
from robust_nas.spaces import CellArchitecture, CellSpace, count

if TYPE_CHECKING:
    from robust_nas.data import Images

PLAIN = Augment()
SCORES = "scores"  # folder of the records of a run
Columns = Mapping[str, list[float | None]]  # by name; a value for every candidate, None where it has none


@dataclass(frozen=True, kw_only=True)
class RankingContext:
    """Everything that a ranking gets, resolved once: images on their device, and where it writes."""

    run: Run
    images: Images  # uint8 [N, C, H, W]; never the test set
    classes: int
    mean: tuple[float, ...]  # of each channel, for the first layer
    std: tuple[float, ...]
    seed: int
    space: CellSpace | None = None  # of the candidates; None where no space holds all
    augmentation: Augment = PLAIN  # of the images at their full size, where a method trains
    checkpoint_seconds: float = 60.0
    progress: Progress = silent

    def log(self, part: str) -> RecordLog:
        """Return the records of one part of the ranking, such as `zero-cost`; a resumed ranking finds them again."""
        folder = self.run.folder / SCORES
        folder.mkdir(exist_ok=True)
        return self.run.record_log(f"ranking: {part}", f"{SCORES}/{part}.pt")

    def known_space(self, method: str) -> CellSpace:
        """Return the space. Raises `ConfigError` where there is none, naming the method that needs it."""
        if self.space is None:
            raise ConfigError(
                f"method {method}: the candidates are of no single search space; name one with --space"
            )
        return self.space

    def reduced(self, side: int) -> Images:
        """Return the images at about `side` x `side` pixels: `reduced`."""
        return reduced(self.images, side)


def reduced(images: Images, side: int) -> Images:
    """Return images with the means of k x k pixels, k = floor(min(H, W) / side), as uint8; k = 1 keeps them.

    For 32x32 images and side 16 these are 2x2 means.
    """
    from robust_nas.data import Images

    k = min(images.pixels.shape[2:]) // side
    if k < 2:
        return images
    pooled = torch.nn.functional.avg_pool2d
    parts = torch.arange(len(images)).tensor_split(
        -(-len(images) // 2048)
    )  # the pixels as floats take memory
    means = [pooled(images.subset(part).pixels.float(), k).round().byte() for part in parts]
    return Images(torch.cat(means), images.labels)


class RankingMethod(Method):
    """Base of ranking methods: the size at which candidates are built and the columns of their scores."""

    side: Count = 16  # pixels to which images are reduced, by means of k x k pixels, about
    channels: Count = 16  # width at which candidates are built
    cells_per_stage: Count = 1  # normal cells of a stage

    def sized(self, candidate: CellArchitecture) -> CellArchitecture:
        """Return a candidate at the size of the ranking."""
        return candidate.resized(self.cells_per_stage * len(candidate.layout.stages), self.channels)

    def params(self, candidates: Sequence[CellArchitecture], context: RankingContext) -> list[int]:
        """Return the parameters of the candidates at the size of the ranking, which a rank sum takes as a part."""
        shape = (context.images.pixels.shape[1], self.side, self.side)
        return [count(self.sized(candidate), shape, context.classes).params for candidate in candidates]

    def score(self, candidates: Sequence[CellArchitecture], context: RankingContext) -> Columns:
        """Return columns with a value for every candidate; the first one is `score`, and higher is better.

        A candidate without a score has None. The same candidates, options, images and seed give the same columns.
        """
        raise NotImplementedError(f"{type(self).__name__} ranks nothing")
