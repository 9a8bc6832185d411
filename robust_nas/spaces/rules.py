"""What the literature's rules of width and depth say about one configuration. Pure arithmetic on depths and widths.

D_i are the blocks of stage i, W_i its widening factor: channels / (16 * 2^i), i from 0. The formulas apply to residual
networks; those that name three ratios, to three stages. Sources: `docs/methods/width-depth-rules.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robust_nas.spaces.architecture import Architecture, StageSizes

PLAIN_CHANNELS = 16  # channels of a first stage of widening factor 1
HUANG_WIDTHS = (1.0, 1.0, 0.4)
HUANG_DEPTHS = (1.0, 1.0, 1.0)
ROBUSTSCALING_WIDTHS = (2.0, 2.5, 1.0)
ROBUSTSCALING_DEPTHS = (2.0, 2.0, 1.0)
ROBUSTSCALING_DEPTH_SHARE = 0.7
WD_RANGE = (7.5, 13.5)
SLACK = 0.091  # the largest objective of the published networks A1 to A4 is that of A4, .0903


class RuleCheck(NamedTuple):
    """What one rule says of one network: its value, what the rule accepts, and where the rule is from."""

    rule: str
    value: float
    accepted: str
    holds: bool
    source: str


def widening_factors(widths: Sequence[int]) -> list[float]:
    """Return W_i of the stages' channels."""
    return [width / (PLAIN_CHANNELS * 2**stage) for stage, width in enumerate(widths)]


def shares_distance(values: Sequence[float], ratio: Sequence[float]) -> float:
    """Return the L1 distance between two vectors, each divided by its sum."""
    total, whole = sum(values), sum(ratio)
    return sum(abs(value / total - wanted / whole) for value, wanted in zip(values, ratio, strict=True))


def depth_share_of(depths: Sequence[int], factors: Sequence[float]) -> float:
    """Return r_D = sum D / (sum D + sum W)."""
    return sum(depths) / (sum(depths) + sum(factors))


def wd_ratio_of(depths: Sequence[int], widths: Sequence[int]) -> float:
    """Return the mean of channels / blocks over all stages but the last: 32 for ResNet-50."""
    ratios = [width / depth for width, depth in zip(widths[:-1], depths[:-1], strict=True)]
    return sum(ratios) / len(ratios)


def huang_distance_of(depths: Sequence[int], factors: Sequence[float]) -> float:
    """Return the distance of the width shares from 1 : 1 : 0.4 plus that of the depth shares from 1 : 1 : 1."""
    return shares_distance(factors, HUANG_WIDTHS) + shares_distance(depths, HUANG_DEPTHS)


def robustscaling_objective_of(
    depths: Sequence[int], factors: Sequence[float], depth_share: float = ROBUSTSCALING_DEPTH_SHARE
) -> float:
    """Return |r_D - 0.7| plus the distances of depth shares from 2 : 2 : 1 and width shares from 2 : 2.5 : 1."""
    return (
        abs(depth_share_of(depths, factors) - depth_share)
        + shares_distance(depths, ROBUSTSCALING_DEPTHS)
        + shares_distance(factors, ROBUSTSCALING_WIDTHS)
    )


def depth_share(architecture: Architecture) -> float | None:
    """Return r_D of a network sized stage by stage, None for another."""
    sizes = architecture.stage_sizes
    return None if sizes is None else depth_share_of(sizes.depths, widening_factors(sizes.widths))


def wd_ratio(architecture: Architecture) -> float | None:
    """Return WD of a network sized by two stages or more, from the channels of its stages; else None."""
    sizes = architecture.stage_sizes
    if sizes is None or len(sizes.depths) < 2:
        return None
    return wd_ratio_of(sizes.depths, sizes.widths)


def huang_distance(architecture: Architecture) -> float | None:
    """Return how far a network of three sized stages is from W = k (1, 1, 0.4) and uniform depth; else None."""
    sizes = _three_stages(architecture)
    return None if sizes is None else huang_distance_of(sizes.depths, widening_factors(sizes.widths))


def robustscaling_objective(architecture: Architecture) -> float | None:
    """Return how far a network of three sized stages is from the compound rule; else None."""
    sizes = _three_stages(architecture)
    return None if sizes is None else robustscaling_objective_of(sizes.depths, widening_factors(sizes.widths))


def rule_checks(architecture: Architecture) -> list[RuleCheck]:
    """Return every rule that applies to the network; none where the family does not size stages one by one."""
    low, high = WD_RANGE
    near = (float("-inf"), SLACK, f"<= {SLACK}")
    rules = (
        (
            "huang_ratio",
            huang_distance(architecture),
            near,
            "Huang et al., NeurIPS 2021: W = k(1, 1, 0.4), inferred from WRN-34-R; the limit is this package's",
        ),
        (
            "robustscaling",
            robustscaling_objective(architecture),
            near,
            "Huang, Lu, Deb and Boddeti, CVPR 2023; the limit is what their networks A1 to A4 reach, computed",
        ),
        (
            "wd_ratio",
            wd_ratio(architecture),
            (low, high, f"{low} .. {high}"),
            "Peng et al., BMVC 2023, by a third party's note, confirmed numerically",
        ),
    )
    return [
        RuleCheck(rule, value, accepted, least <= value <= most, source)
        for rule, value, (least, most, accepted), source in rules
        if value is not None
    ]


def _three_stages(architecture: Architecture) -> StageSizes | None:
    sizes = architecture.stage_sizes
    return sizes if sizes is not None and len(sizes.depths) == 3 else None
