"""The counts that papers print, and where they misprint them. D blocks, W widening factors of every stage."""

import math

import pytest
from space_counts import residual

from robust_nas.spaces import Cost, ResidualArchitecture, count, load_architecture
from robust_nas.spaces.residual import BLOCKS

UNIFORM = {  # Huang, Lu, Deb, Boddeti (CVPR 2023), table 4, and the literature at large: M params, G MACs
    "wrn-28-10": ("36.5", 5.20),
    "wrn-34-12": ("66.5", 9.60),
    "wrn-46-14": ("128", 18.6),
    "wrn-70-16": ("267", 38.8),
    "wrn-34-r": ("68.1", 19.1),
    "rrn-a1": ("19.2", 5.11),
    "rrn-a2": ("39.0", 10.8),
    "rrn-a3": ("75.9", 19.9),
    "rrn-a4": ("147", 39.4),
}
SCALED = {  # README of the code of the same paper, its table 2, as printed
    ((5, 5, 2), (10, 10, 10)): ("24.0", 5.25),
    ((4, 4, 4), (11, 13, 6)): ("24.5", 5.71),
    ((14, 14, 7), (5, 7, 3)): ("17.7", 5.09),
    ((6, 6, 3), (12, 12, 12)): ("48.5", 9.59),
    ((5, 5, 5), (13, 16, 7)): ("44.4", 10.5),
    ((17, 17, 8), (7, 9, 4)): ("39.3", 9.74),
    ((9, 8, 4), (14, 14, 14)): ("90.4", 18.6),
    ((7, 7, 7), (16, 18, 8)): ("81.7", 20.4),
    ((22, 22, 11), (8, 11, 5)): ("74.8", 20.3),
    ((14, 13, 11), (16, 16, 16)): ("185", 38.8),
    ((11, 11, 11), (18, 21, 9)): ("170", 42.7),
    ((27, 28, 13), (10, 14, 6)): ("147", 40.4),
}
MISPRINTED = {  # rows of it that no count gives: what ours gives
    ((14, 14, 7), (5, 7, 3)): Cost(18_707_930, 5_076_862_848),
    ((17, 17, 8), (7, 9, 4)): Cost(38_323_482, 10_836_167_168),
    ((22, 22, 11), (8, 11, 5)): Cost(75_302_490, 20_215_680_128),
    ((14, 13, 11), (16, 16, 16)): Cost(279_779_802, 44_804_007_936),
}
ROBUST_RES = {  # table 1 of the same README: uniform depth and width with the robust-res block
    (4, 10): ("39.6", 6.00, Cost(39_588_314, 5_989_239_808)),
    (5, 12): ("70.5", 10.6, Cost(70_538_874, 10_544_332_800)),
    (7, 14): ("133", 19.6, Cost(132_890_938, 19_585_192_448)),
    (11, 16): ("270", 39.3, Cost(269_940_570, 39_257_300_992)),
}


def fits(params: int, printed: str) -> bool:
    """Whether a count in millions is the printed number, rounded or cut."""
    decimals = len(printed.partition(".")[2])
    exact = params / 1e6
    return printed in (
        f"{exact:.{decimals}f}",
        f"{math.floor(exact * 10**decimals) / 10**decimals:.{decimals}f}",
    )


@pytest.mark.parametrize("name", UNIFORM)
def test_named_networks_count_as_printed(name: str) -> None:
    params, macs = UNIFORM[name]
    cost = count(load_architecture(name))
    assert fits(cost.params, params)
    assert cost.macs / 1e9 == pytest.approx(macs, rel=0.01)


@pytest.mark.parametrize(("depths", "factors"), SCALED)
def test_scaled_networks_count_as_printed_or_the_print_is_named_wrong(
    depths: tuple[int, ...], factors: tuple[int, ...]
) -> None:
    params, macs = SCALED[depths, factors]
    cost = count(residual(depths, factors))
    named = MISPRINTED.get((depths, factors), cost)
    assert cost == named
    as_printed = fits(cost.params, params) and cost.macs / 1e9 == pytest.approx(macs, rel=0.01)
    assert as_printed == ((depths, factors) not in MISPRINTED)


def test_the_row_of_wrong_depths_counts_as_printed_with_six_blocks_in_its_last_stage() -> None:
    cost = count(residual((14, 13, 6), (16, 16, 16)))
    assert fits(cost.params, "185")
    assert cost.macs / 1e9 == pytest.approx(38.8, rel=0.01)


@pytest.mark.parametrize(("depth", "factor"), ROBUST_RES)
def test_the_robust_res_block_counts_as_printed(depth: int, factor: int) -> None:
    params, macs, exact = ROBUST_RES[depth, factor]
    widths = (16 * factor, 32 * factor, 64 * factor)
    cost = count(ResidualArchitecture(name="x", block="robust-res", depths=(depth,) * 3, widths=widths))
    assert cost == exact
    assert fits(cost.params, params)
    assert cost.macs / 1e9 == pytest.approx(macs, rel=0.01)


def test_what_the_shipped_config_of_rrn_a1_leaves_out_would_build_another_network() -> None:
    published = load_architecture("rrn-a1")
    assert isinstance(published, ResidualArchitecture)
    numbers = {"scales": 4, "base_width": 64, "cardinality": 8, "se_reduction": 16}  # its code's defaults
    built = ResidualArchitecture(**{**published.model_dump(), **numbers})
    assert count(published).params == 19_222_738
    assert count(built).params == 144_344_330
    assert (
        BLOCKS["robust-res"].items()
        >= {"scales": 8, "base_width": 10, "cardinality": 4, "se_reduction": 64}.items()
    )


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [  # exact, as torch counts them too (`test_residual.py`); MACs in G
        ("wrn-10-1", 77_850, None),
        ("wrn-16-4", 2_748_890, 0.3926),
        ("wrn-28-10", 36_479_194, 5.2433),
        ("wrn-34-10", 46_160_474, 6.659),
        ("wrn-34-r", 68_116_698, 19.133),
        ("wrn-70-16", 266_796_506, 38.764),
    ],
)
def test_exact_counts_of_known_networks(name: str, params: int, macs: float | None) -> None:
    cost = count(load_architecture(name))
    assert cost.params == params
    assert macs is None or cost.macs / 1e9 == pytest.approx(macs, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "params"), [("wrn-58-12", "122.22"), ("wrn-82-12", "177.98"), ("wrn-82-16", "316.36")]
)
def test_networks_of_bartoldson_et_al_count_as_printed(name: str, params: str) -> None:
    assert fits(count(load_architecture(name)).params, params)
