"""Square Attack: random search over square windows, by the margin alone (Andriushchenko et al., 2020).

    x_0     = P(x + start)
    x_{t+1} = P(x_t + delta) where that has a higher margin, else x_t       delta changes one window of side s_t
    s_t     = the integer next to sqrt(p_t H W), p_t halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and
              8000 of 10,000 queries

Linf (Algorithm 2): the start is vertical stripes of +-eps; delta is +-2 eps in the window, one sign per channel.

L2 (Algorithm 3): the start is 5 x 5 tiles of eta; nu = x_t - x moves its mass from a second window into the first,

    eta     two bumps of opposite sign, one over the other, or its transpose; of norm 1
    bump    at distance d (of the maximum norm) from its centre, sum_{k=d}^{n} 1 / (k + 1)^2, n = half its longer side
    nu_W1 = the direction of +-eta + nu_W1 / |nu_W1|, times sqrt(|nu_{W1 u W2}|^2 + (eps^2 - |nu|^2) / C); nu_W2 = 0

per channel; there s_t is odd and at least 3, as in the authors' code. The schedule is scaled to the number of queries.

The image itself is the first candidate, and an example takes no more queries once it is misclassified. Every example
has windows of its own. N examples that still are searched, C channels, H height, W width, S side of the window.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from robust_nas.attacks.attack import BoundedAttack, Passes
from robust_nas.attacks.best_iterate import BestIterate
from robust_nas.attacks.losses import margin
from robust_nas.attacks.minimal import distance
from robust_nas.attacks.norms import Norm, l2, project
from robust_nas.config import Count, Positive
from robust_nas.lazy import F, torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from robust_nas.attacks.attacked_model import AttackedModel


HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of SCHEDULED after which p is halved
SCHEDULED = 10_000
TILES = 5  # per side, of the L2 start
LEAST = 3  # side of an L2 window


class Square(BoundedAttack):
    """Random search over squares, without any gradient (Andriushchenko et al., 2020)."""

    access: ClassVar[Literal["gradient", "score", "decision"]] = "score"
    name: Literal["square"] = "square"
    bn: Literal["eval"] = "eval"  # running batch-norm statistics. Done examples leave the batch: it has none
    queries: Count = 5000  # per example and restart, with one more for the image itself
    p_init: Annotated[Positive, Field(le=1)] = 0.8  # share of the pixels in the first squares
    restarts: Count = 1  # runs of the random search

    @property
    def label(self) -> str:
        """Name and queries: `square-500`."""
        return f"square-{self.queries}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    @property
    def least_side(self) -> int:
        """The number of rows and of columns below which the attack is not defined: L2 starts from 5 x 5 tiles."""
        return 5 if self.norm == "l2" else 1

    @property
    def passes(self) -> Passes:
        """Return one forward pass a query, and the image itself."""
        return Passes(self.queries * self.restarts + 1, 0)

    def perturb(self, model: AttackedModel) -> Tensor:
        """Return the most harmful of all points queried and of the image itself, `[B, C, H, W]`."""
        best = BestIterate(model.images, model.labels)
        clean = model.logits(model.images)
        wrong = best.update(model.images, clean, margin(clean, model.labels))
        model.query_log().count()
        _record(model, model.images[wrong], wrong.nonzero().squeeze(1), self.norm)
        for _ in range(self.restarts):
            _climb(self, model, best)
        return model.no_worse(best.images, clean)


def _climb(options: Square, target: AttackedModel, best: BestIterate) -> None:
    """One random search from a new start, for the examples that are not misclassified yet."""
    eps, norm, generator = options.eps, options.norm, target.generator
    propose = _linf_step if norm == "linf" else _l2_step
    rows = best.unbroken()
    x = images = target.images[rows]
    value = images.new_full((len(rows),), -torch.inf)
    for query in range(options.queries):
        if len(rows) == 0:
            break
        if query == 0:
            new = _start(images, eps, norm, generator)
        else:
            new = propose(x, images, eps, _side(options, query, *images.shape[2:]), generator)
        labels = target.labels[rows]
        logits = target.verified_logits(new, target.candidate_logits(new, labels), labels)
        new_value = margin(logits, labels)
        going = ~best.update(new, logits, new_value, rows)
        target.query_log().count(rows)
        better = new_value > value
        x = torch.where(better.view(-1, 1, 1, 1), new, x)
        value = torch.where(better, new_value, value)
        if not going.all():
            _record(target, new[~going], rows[~going], norm)
            rows, images, x, value = (kept[going] for kept in (rows, images, x, value))


def _record(target: AttackedModel, x: Tensor, rows: Tensor, norm: Norm) -> None:
    """Record that these images `[M, C, H, W]` are misclassified, and how far they are from their own."""
    target.query_log().nearer(rows, distance(x, target.images[rows], norm))


def _side(options: Square, query: int, height: int, width: int) -> int:
    """The side of the window at a query."""
    scheduled = int(query / options.queries * SCHEDULED)
    p = options.p_init / 2 ** sum(scheduled > halved for halved in HALVED)
    side = max(round(math.sqrt(p * height * width)), 1)
    if options.norm == "l2":
        side = max(side, LEAST)
        side += side % 2 == 0
    return min(side, height, width)


def _start(images: Tensor, eps: float, norm: Norm, generator: Generator) -> Tensor:
    count, channels, height, width = images.shape
    if norm == "linf":
        return project(
            images + eps * _signs(images, (count, channels, 1, width), generator), images, eps, norm
        )
    side = min(height, width) // TILES
    eta = _turned(images, (count, 1, TILES, 1, TILES, 1), side, generator)
    signs = _signs(images, (count, channels, TILES, 1, TILES, 1), generator)
    tiles = (signs * eta).reshape(count, channels, TILES * side, TILES * side)
    top, left = (height - TILES * side) // 2, (width - TILES * side) // 2
    delta = F.pad(tiles, (left, width - TILES * side - left, top, height - TILES * side - top))
    return project(images + eps * delta / l2(delta), images, eps, norm)


def _linf_step(x: Tensor, images: Tensor, eps: float, side: int, generator: Generator) -> Tensor:
    """A window of each example moved by +-2 eps, hence to an end of the ball: `[N, C, H, W]`."""
    count, channels, height, width = x.shape
    top, left = _corner(x, side, generator)
    down, across = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    down_in = (down >= top) & (down < top + side)  # [N, H]
    across_in = (across >= left) & (across < left + side)  # [N, W]
    inside = (down_in.unsqueeze(2) & across_in.unsqueeze(1)).unsqueeze(1)  # [N, 1, H, W]
    signs = _signs(x, (count, channels, 1, 1), generator)
    return project(x + 2 * eps * signs * inside, images, eps, "linf")


def _l2_step(x: Tensor, images: Tensor, eps: float, side: int, generator: Generator) -> Tensor:
    """The mass of a second window moved into a first one, along eta: `[N, C, H, W]`."""
    count, channels, height, width = x.shape
    nu = (x - images).reshape(count, channels, height * width)
    tiny = torch.finfo(nu.dtype).tiny
    first, second = (
        _window(*_corner(x, side, generator), side, width).expand(count, channels, -1) for _ in range(2)
    )
    eta = _turned(x, (count, 1, 1, 1, 1, 1), side, generator).reshape(count, 1, side * side)
    eta = eta * _signs(x, (count, channels, 1), generator)
    unused = (eps**2 - nu.square().sum((1, 2), keepdim=True)).clamp_min(0)  # [N, 1, 1]
    own = nu.gather(2, first)  # [N, C, S S]
    emptied = nu.scatter(2, first, 0.0).scatter(2, second, 0.0)
    both = nu.square().sum(2, keepdim=True) - emptied.square().sum(2, keepdim=True)
    available = (both.clamp_min(0) + unused / channels).sqrt()
    turned = eta + own / _length(own).clamp_min(tiny)
    nu = emptied.scatter(2, first, turned / _length(turned).clamp_min(tiny) * available)
    return project(images + nu.view(x.shape), images, eps, "l2")


def _length(windows: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(windows, dim=2, keepdim=True)
    return length


def _corner(x: Tensor, side: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """The first row and the first column of a window in each example, `[N, 1]` each."""
    count, _, height, width = x.shape
    top, left = (
        torch.randint(size - side + 1, (count, 1), generator=generator, device=x.device)
        for size in (height, width)
    )
    return top, left


def _window(top: Tensor, left: Tensor, side: int, width: int) -> Tensor:
    """The places of a window's pixels in the flattened image, `[N, 1, S S]`."""
    along = torch.arange(side, device=top.device)
    places = (top + along).unsqueeze(2) * width + (left + along).unsqueeze(1)
    return places.view(len(top), 1, side * side)


def _signs(like: Tensor, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """+1 or -1, with equal chances."""
    coins = torch.randint(2, shape, generator=generator, device=like.device)
    return (2 * coins - 1).to(like.dtype)


def _turned(like: Tensor, shape: tuple[int, ...], side: int, generator: Generator) -> Tensor:
    """Eta or its transpose, by a coin each: the coins' shape with its 4th and 6th dimension of size S."""
    eta = _eta(side, like)
    coins = torch.randint(2, shape, generator=generator, device=like.device).bool()
    upright, lying = (e.view(1, 1, 1, side, 1, side) for e in (eta, eta.t()))
    return torch.where(coins, upright, lying)


def _eta(side: int, like: Tensor) -> Tensor:
    """Two bumps of opposite sign, one over the other, of norm 1: `[S, S]`."""
    upper = side // 2
    halves = [_bump(upper, side, like), -_bump(side - upper, side, like)]
    eta = torch.cat([half / half.norm() for half in halves if half.numel()])
    whole: Tensor = eta / eta.norm()
    return whole


def _bump(rows: int, columns: int, like: Tensor) -> Tensor:
    """The pyramid over a rectangle, `[rows, columns]`."""
    longest = max(rows, columns) // 2  # n
    terms = 1 / torch.arange(1, longest + 2, dtype=like.dtype, device=like.device).square()
    tails = terms.flip(0).cumsum(0).flip(0)  # sum_{k=d}^{n} 1 / (k + 1)^2 for every d
    down = (torch.arange(rows, device=like.device) - rows // 2).abs()
    across = (torch.arange(columns, device=like.device) - columns // 2).abs()
    pyramid: Tensor = tails[torch.maximum(down.unsqueeze(1), across.unsqueeze(0))]
    return pyramid
