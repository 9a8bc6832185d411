"""Generators of studies against the published grids and rules, brute force, and what they refuse."""

import csv
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter

from robust_nas.config import Options, apply_overrides, check, to_dict, to_yaml
from robust_nas.errors import ArchitectureError, ConfigError, StudyError
from robust_nas.spaces import (
    Architecture,
    CellArchitecture,
    Cost,
    MLPArchitecture,
    ResidualArchitecture,
    count,
    load_architecture,
    parts,
)
from robust_nas.spaces.rules import wd_ratio
from robust_nas.studies.design import DESIGNS, Configuration, Design, unite
from robust_nas.studies.design.explicit import ExplicitDesign
from robust_nas.studies.design.grid import GridDesign
from robust_nas.studies.design.iso_budget import IsoBudgetDesign
from robust_nas.studies.design.ratio import RatioDesign

CIFAR = ((3, 32, 32), 10)
DIGITS = ((1, 8, 8), 10)
DEPTHS = (2, 3, 4, 5, 7, 9, 11)
FACTORS = (4, 6, 8, 10, 12, 14, 16, 20)
DEPTH_AXES = {f"depths.{stage}": DEPTHS for stage in range(3)}
WIDTH_AXES = {f"widths.{stage}": tuple(16 * 2**stage * k for k in FACTORS) for stage in range(3)}
WRN_28_10 = load_architecture("wrn-28-10")
WRN_34_10 = load_architecture("wrn-34-10")
SMALL = load_architecture("wrn-10-1")


def costs(choices: list[Configuration], setting: tuple[tuple[int, int, int], int] = CIFAR) -> list[Cost]:
    return [count(choice.architecture, *setting) for choice in choices]


def extremes(choices: list[Configuration]) -> tuple[float, float, float, float]:
    """Least and most params in millions, MACs in thousand millions."""
    found = costs(choices)
    params, macs = [cost.params / 1e6 for cost in found], [cost.macs / 1e9 for cost in found]
    return round(min(params), 2), round(max(params), 2), round(min(macs), 3), round(max(macs), 2)


def united(*designs: Design) -> list[Configuration]:
    return unite(made for design in designs for made in design.configurations(SMALL, *DIGITS))


def names(choices: list[Configuration]) -> list[str]:
    return [choice.architecture.name for choice in choices]


def test_the_published_depth_grid() -> None:
    grid = GridDesign(axes=DEPTH_AXES).configurations(WRN_28_10, *CIFAR)
    assert len(set(names(grid))) == 343
    assert extremes(grid) == (17.12, 104.25, 2.412, 15.15)
    reference = count(WRN_28_10)
    near = [
        (abs(cost.params / reference.params - 1) <= 0.05, abs(cost.macs / reference.macs - 1) <= 0.05)
        for cost in costs(grid)
    ]
    assert [sum(one) for one in zip(*near, strict=True)] == [23, 16]
    assert sum(params and macs for params, macs in near) == 3


@pytest.mark.parametrize(
    ("base", "expected"),
    [(WRN_28_10, (5.85, 145.82, 0.846, 20.92)), (WRN_34_10, (7.40, 184.53, 1.07, 26.58))],
    ids=["depth 4", "depth 5"],
)
def test_the_published_width_grid(base: Architecture, expected: tuple[float, ...]) -> None:
    grid = GridDesign(axes=WIDTH_AXES).configurations(base, *CIFAR)
    assert len(grid) == 512
    assert extremes(grid) == pytest.approx(expected, abs=6e-3)
    widths = [choice.architecture.widths for choice in grid]  # type: ignore[union-attr] # residual
    assert sum(a == b or b == c for a, b, c in widths) == 63  # strided stages that keep their channels


@pytest.mark.parametrize("budget", ["params", "macs"])
def test_iso_finds_what_brute_force_finds(budget: str) -> None:
    reference = getattr(count(WRN_28_10), budget)
    grid = GridDesign(axes=DEPTH_AXES).configurations(WRN_28_10, *CIFAR)
    expected = {
        choice.architecture.name
        for choice in grid
        if abs(getattr(count(choice.architecture), budget) / reference - 1) <= 0.05
    }
    iso = IsoBudgetDesign(budget=budget, free=DEPTH_AXES, number=100).configurations(WRN_28_10, *CIFAR)
    assert set(names(iso)) == expected


@pytest.mark.parametrize(
    "base",
    [
        ResidualArchitecture(name="x", depths=(2, 1, 3), widths=(16, 16, 24), strides=(2, 1, 2), stem=16),
        ResidualArchitecture(name="x", block="bottleneck", depths=(2, 2), widths=(8, 16)),
        ResidualArchitecture(name="x", block="robust-res", depths=(2, 1, 1), widths=(16, 32, 32)),
    ],
    ids=["basic", "bottleneck", "robust-res"],
)
@pytest.mark.parametrize(
    "along", ["last_stage_params_share", "last_stage_macs_share", "r_d", "wd_ratio", "depth"]
)
def test_costs_by_stage_are_those_of_the_networks(base: ResidualArchitecture, along: str) -> None:
    free = {"widths.0": (16, 32), "widths.1": (16, 32, 48), "depths.1": (1, 3)}
    iso = IsoBudgetDesign(
        budget="macs", tolerance=0.99, target=count(base, *DIGITS).macs * 2, free=free, number=50, along=along
    )
    by_stage = iso.configurations(base, *DIGITS)
    with_stem = iso.model_copy(update={"free": {**iso.free, "stem": (base.stem,)}})  # counted one by one
    assert names(by_stage) == names(with_stem.configurations(base, *DIGITS))
    assert len(by_stage) >= 3


def test_iso_is_even_along_its_contrast_and_within_the_budget() -> None:
    free = {
        f"widths.{stage}": {"from": 8 * 2**stage, "to": 64 * 2**stage, "step": 2**stage} for stage in range(3)
    }
    iso = check(IsoBudgetDesign, {"budget": "params", "free": free, "number": 6}, "test")
    choices = iso.configurations(SMALL.model_copy(update={"widths": (32, 64, 128)}), *DIGITS)
    reference = count(ResidualArchitecture(name="x", depths=(1, 1, 1), widths=(32, 64, 128)), *DIGITS).params
    shares = []
    for choice in choices:
        stages = parts(choice.architecture, *DIGITS)
        total = sum(part.cost.params for part in stages)
        assert total == pytest.approx(reference, rel=0.05)
        shares.append(stages[-2].cost.params / total)
    steps = [b - a for a, b in pairwise(shares)]
    assert len(shares) == 6
    assert min(steps) > 0.8 * max(steps)


def test_iso_ties_and_whole_lists() -> None:
    iso = IsoBudgetDesign(
        budget="macs",
        tolerance=0.9,
        free={"depths": (1, 2), "widths.0": (8, 16)},
        ties={"widths.1": "2 * widths.0", "widths.2": "1.5*widths.0"},
        number=9,
        along="depth",
    )
    found = [(a.depths, a.widths) for a, *_ in iso.configurations(SMALL, *DIGITS)]  # type: ignore[union-attr]
    expected = [((d, d, d), (w, 2 * w, 3 * w // 2)) for d, w in product((1, 2), (8, 16))]
    assert sorted(found) == expected
    uniform = IsoBudgetDesign(
        budget="macs", tolerance=0.9, free={"widths": (8, 16)}, number=9
    ).configurations(SMALL, *DIGITS)
    assert {a.widths for a, *_ in uniform} == {(8, 16, 32), (16, 32, 64)}  # type: ignore[union-attr]


def test_iso_of_other_families() -> None:
    mlp = MLPArchitecture(name="x", depth=2, width=64)
    free = {"depth": (1, 2, 4), "width": tuple(range(16, 129))}
    choices = IsoBudgetDesign(
        budget="params", free=free, number=3, along="depth", tolerance=0.02
    ).configurations(mlp, *DIGITS)
    assert [a.depth for a, *_ in choices] == [1, 2, 4]  # type: ignore[union-attr]
    cells = load_architecture("arnas").resized(6, 8)  # type: ignore[union-attr]
    free = {"cells": (4, 6, 8), "channels": tuple(range(4, 12))}
    choices = IsoBudgetDesign(budget="macs", free=free, along="depth", tolerance=0.15).configurations(
        cells, *CIFAR
    )
    assert {a.cells for a, *_ in choices} == {4, 6, 8}  # type: ignore[union-attr]


def test_published_configurations_are_counted_as_the_table_says() -> None:
    path = Path(__file__).parent / "published_tables.csv"
    rows = [row for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()) if row["widening"]]
    assert len(rows) > 20
    for row in rows:
        depths = [int(text) for text in row["depths"].split("-")]
        factors = [int(text) for text in row["widening"].split("-")]
        widths = [16 * 2**stage * factor for stage, factor in enumerate(factors)]
        cost = count(ResidualArchitecture(name="x", block=row["block"], depths=depths, widths=widths))
        assert f"{cost.params / 1e6:.6f}" == row["params_computed_m"]
        assert f"{cost.macs / 1e9:.6f}" == row["macs_computed_g"]
        for column, value in (("params", cost.params / 1e6), ("macs", cost.macs / 1e9)):
            printed = float(row[f"{column}_printed_{'m' if column == 'params' else 'g'}"])
            limit = 0.005 if column == "params" else 0.01
            assert (abs(value / printed - 1) < limit) == (column not in row["misprint"]), row["model"]


def test_the_recipe_is_an_axis_too() -> None:
    axes = {
        "activation": ["relu", "silu"],
        "training.weight_decay": [0.0001, 0.001],
        "training.loss.eps": ["8/255"],
    }
    choices = GridDesign(axes=axes, arm="a").configurations(SMALL, *DIGITS)
    assert [(a.name, recipe) for a, recipe, *_ in choices] == [
        (name, (f"weight_decay={decay}", "loss.eps=8/255"))
        for name, decay in product(("wrn-10-1", "wrn-10-1.silu"), ("0.0001", "0.001"))
    ]
    assert {choice.arm for choice in choices} == {"a"}


def test_grids_over_cells_and_blocks() -> None:
    cells = load_architecture("arnas")
    choices = GridDesign(axes={"cells": [5, 8], "layout.filters.2": [1, 2], "channels": [16]}).configurations(
        cells, *CIFAR
    )
    assert names(choices) == [f"arnas.c{c}.ch16{f}" for c, f in product((5, 8), (".f1-2-1", ""))]
    assert isinstance(choices[0].architecture, CellArchitecture)
    axes = {"activation": ["relu", "sparta"], "cells": [5]}
    choices = GridDesign(axes=axes).configurations(cells, *CIFAR)
    assert names(choices) == ["arnas.c5.ch64", "arnas.c5.ch64.sparta"]
    assert [choice.architecture.factors()["activation"] for choice in choices] == ["relu", "sparta"]
    rrn = load_architecture("rrn-a1")
    blocks = GridDesign(axes={"block": ["basic", "bottleneck", "robust-res"]}).configurations(rrn, *CIFAR)
    assert names(blocks)[::2] == ["wrn-a1", "rrn-a1"]


def test_listed_architectures_keep_their_names(tmp_path: Path) -> None:
    mine = ResidualArchitecture(name="mine", depths=(1, 1), widths=(8, 9))
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(mine), encoding="utf-8")
    listed = check(ExplicitDesign, {"architectures": ["wrn-16-2", str(file), to_dict(mine)]}, "test")
    assert names(listed.configurations(SMALL, *DIGITS)) == ["wrn-16-2", "mine", "mine"]
    assert names(united(listed)) == ["wrn-16-2", "mine"]


def test_the_union_holds_each_configuration_once_with_all_its_arms() -> None:
    first = GridDesign(axes={"widths.2": [32, 64]}, arm="a")
    second = ExplicitDesign(architectures=("wrn-10-1", "wrn-10-2"), arm="b")
    third = GridDesign(axes={"training.weight_decay": [0.1]}, arm="c")
    union = united(first, second, first, third)
    assert [(a.name, recipe, arm) for a, recipe, arm, *_ in union] == [
        ("d1-1-1.w16-32-32", (), "a"),
        ("wrn-10-1", (), "a+b"),
        ("wrn-10-2", (), "b"),
        ("wrn-10-1", ("weight_decay=0.1",), "c"),
    ]
    wrong = ResidualArchitecture(name="wrn-10-2", depths=(1,), widths=(4,))
    with pytest.raises(StudyError, match="named 'wrn-10-2'"):
        united(second, ExplicitDesign(architectures=(wrong,)))


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (
            IsoBudgetDesign(budget="macs", free={"widths.2": (4, 8), "depths": (400, 500)}),
            "none of the configurations is a possible",
        ),
        (
            GridDesign(axes={"widths.3": [1]}),
            r"grid: widths\.3 = 1: key 'widths\.3': '3' is no index of a list of 3",
        ),
        (
            GridDesign(axes={"width": [1]}),
            r"grid: width = 1: width: unknown key 'width'; did you mean 'widths'",
        ),
        (
            GridDesign(axes={"layout.filters": [1]}),
            r"layout\.filters = 1: key .* there is no 'layout'; allowed: block",
        ),
        (GridDesign(axes={"widths.1": ["wide"]}), r"widths\.1 = \"wide\": widths\.1: got 'wide'"),
        (GridDesign(axes={"depths": [[1, 1]]}), r"depths = \[1, 1\].*widths has 3 entries"),
        (GridDesign(axes={"name": ["x"]}), r"'name' is no axis; allowed: "),
        (
            GridDesign(axes={f"widths.{i}": range(1, 30) for i in range(3)}),
            r"24389 configurations; at most 10000",
        ),
        (
            IsoBudgetDesign(budget="macs", free={"widths.2": (4, 8)}, target=1e9),
            r"within 0\.05 of 1,000,000,000 MACs; the nearest",
        ),
        (
            IsoBudgetDesign(budget="params", free={"widths.2": (4, 8)}, target=1e9),
            r"\(-100\.0%\).*or try other or finer free",
        ),
        (
            IsoBudgetDesign(budget="macs", free={"wide": (4, 8)}),
            r"iso: free: key 'wide': there is no 'wide'; allowed: ",
        ),
        (
            IsoBudgetDesign(budget="macs", free={"activation": (4, 8)}),
            r"'activation' is 'relu' in wrn-10-1; an integer",
        ),
        (
            IsoBudgetDesign(budget="macs", free={"stem": (4, 8)}, ties={"widths.0": "stem + 1"}),
            r"ties: widths\.0: got 'stem \+ 1'",
        ),
        (
            IsoBudgetDesign(budget="macs", free={f"widths.{i}": range(1, 101) for i in range(3)}),
            r"1,000,000 conf.*at most 500,000",
        ),
        (
            RatioDesign(rule="uniform", budget="macs", targets=(1.0,)),
            r"rule uniform, width free: no configuration within",
        ),
        (
            RatioDesign(rule="robustscaling", budget="macs", targets=(1e5,)),
            r"r_d 0\.7: no configuration within",
        ),
        (ExplicitDesign(architectures=("wrn-11-1",)), r"'wrn-11-1': depth 11 is not 6n \+ 4"),
    ],
)
def test_what_cannot_be_is_said(generator: Any, message: str) -> None:
    with pytest.raises((StudyError, ArchitectureError), match=message):
        generator.configurations(SMALL, *DIGITS)


def test_rules_are_of_residual_networks() -> None:
    for base, match in (
        (load_architecture("arnas"), "a cell network"),
        (SMALL, "one depth; wrn-10-1 has 1-1-2"),
    ):
        if isinstance(base, ResidualArchitecture):
            base = base.model_copy(update={"depths": (1, 1, 2)})
        with pytest.raises(StudyError, match=match):
            RatioDesign(rule="huang", budget="macs").configurations(base, *CIFAR)
    mlp = MLPArchitecture(name="x", depth=2, width=8)
    iso = IsoBudgetDesign(budget="params", free={"width": (8,)}, along="wd_ratio")
    with pytest.raises(StudyError, match="along wd_ratio"):
        iso.configurations(mlp, *DIGITS)
    assert wd_ratio(SMALL) == 24


class Holder(Options):
    """As a study's config holds them."""

    designs: tuple[Annotated[Design, DESIGNS.field()], ...]


@pytest.mark.parametrize(
    "tree",
    [
        {"name": "grid", "axes": {"depths.0": {"from": 1, "to": 3}, "widths": [[16, 32, 64]]}},
        {"name": "iso", "budget": "macs", "free": {"widths.2": {"from": 8, "to": 64, "step": 8}}},
        {"name": "ratio", "rule": "huang", "budget": "params", "targets": [1e5]},
        {"name": "list", "architectures": ["wrn-10-1", to_dict(SMALL)]},
    ],
)
def test_options_round_trip(tree: dict[str, Any]) -> None:
    held = check(Holder, {"designs": [tree]}, "test")
    assert TypeAdapter(Holder).validate_python(to_dict(held)) == held


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"rule": "huang", "budget": "macs", "r_d": [0.5]},
            r"r_d: got \[0.5\]; it belongs to the rule robustscaling",
        ),
        ({"rule": "robustscaling", "budget": "macs", "free": "depth"}, "free: got 'depth'"),
        ({"rule": "uniform", "budget": "macs", "free": "depth", "unit": 8}, "unit: got 8"),
        ({"rule": "uniform"}, "budget: missing"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(RatioDesign, tree, "test")


def test_values_of_a_recipe_mean_what_they_say() -> None:
    values = ["8/255", "{", "a: b", "3", 3, 1e-5, None, [1, "x"]]
    choices = GridDesign(axes={"training.x": values}).configurations(SMALL, *DIGITS)
    for choice, value in zip(choices, values, strict=True):
        read = apply_overrides({}, choice.recipe)["x"]
        assert (float(read) if isinstance(value, float) else read) == value


def test_a_listed_tree_says_what_it_lacks() -> None:
    with pytest.raises(ArchitectureError, match="widths: missing"):
        check(ExplicitDesign, {"architectures": [{"type": "residual", "name": "x", "depths": [1]}]}, "test")


def test_bad_ranges_are_refused() -> None:
    for value in (
        {"from": 3, "to": 1},
        {"from": 1},
        {"from": 1, "to": 2, "step": 0},
        {"from": 0, "to": 10**9},
    ):
        with pytest.raises(ConfigError, match="range"):
            check(IsoBudgetDesign, {"budget": "macs", "free": {"stem": value}}, "test")


def test_a_target_beyond_every_network_of_the_compound_rule_is_refused_at_once() -> None:
    far = RatioDesign(rule="robustscaling", budget="params", targets=(1e12,))
    with pytest.raises(StudyError, match="1e\\+12 params are beyond the rule"):
        far.configurations(load_architecture("wrn-10-1"), *DIGITS)
