"""Placement of cells by depth: the published stacks, and what every stack keeps."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces_strategies import layouts

from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.spaces import Layout, load_space
from robust_nas.spaces.layout import MAX_CELLS

DSARA, DARTS = load_space("dsara").layout, load_space("darts").layout
LETTER = {"accurate": "A", "reduce": "R", "robust": "B", "normal": "N"}


def stack(layout: Layout, cells: int) -> str:
    concat = dict.fromkeys(layout.kinds, 4)
    return "".join(LETTER[place.kind] for place in layout.places(cells, 16, concat))


def test_dsara_places_three_kinds_as_published() -> None:
    assert stack(DSARA, 8) == "AARAARBB"
    assert stack(DSARA, 14) == "AAAA" + "R" + "AAAA" + "R" + "BBBB"
    assert stack(DSARA, 20) == "AAAAAA" + "R" + "AAAAAA" + "R" + "BBBBBB"
    assert stack(DARTS, 8) == "NNRNNRNN"


@pytest.mark.parametrize(("layout", "ratio"), [(DSARA, (1, 2, 2)), (DARTS, (1, 2, 4))])
@pytest.mark.parametrize("cells", range(3, 21))
def test_reductions_stand_at_the_thirds_and_filters_follow_the_ratio(
    layout: Layout, ratio: tuple[int, ...], cells: int
) -> None:
    places = list(layout.places(cells, 16, dict.fromkeys(layout.kinds, 4)))
    assert [i for i, place in enumerate(places) if place.reduction] == [cells // 3, 2 * cells // 3]
    for i, place in enumerate(places):
        assert place.c == 16 * ratio[(i >= cells // 3) + (i >= 2 * cells // 3)]


@given(layouts(), st.integers(10, 40), st.integers(2, 64), st.data())
def test_every_cell_gets_what_the_two_before_it_give(
    layout: Layout, cells: int, channels: int, data: st.DataObject
) -> None:
    concat = {kind: data.draw(st.integers(1, 4)) for kind in layout.kinds}
    places = list(layout.places(cells, channels, concat))
    outputs = [layout.stem * channels] * 2 + [place.c * concat[place.kind] for place in places]
    assert len(places) == cells
    for i, place in enumerate(places):
        assert (place.c_pp, place.c_p) == (outputs[i], outputs[i + 1])
        assert place.reduction_prev == (i > 0 and places[i - 1].reduction)
        assert place.reduction == (place.kind in layout.reduction_cells)
        assert place.c == channels * layout.filters[place.stage]
    assert [place.stage for place in places] == sorted(place.stage for place in places)
    assert Counter(place.reduction for place in places)[True] == len(layout.reductions)


@pytest.mark.parametrize("cells", [-1, 0, 1, MAX_CELLS + 1])
def test_an_impossible_depth_names_itself_and_what_is_possible(cells: int) -> None:
    with pytest.raises(ArchitectureError, match=f"cells: got {cells}"):
        stack(DSARA, cells)


def test_a_reduction_cannot_halve_one_filter() -> None:
    layout = DSARA.model_copy(update={"filters": (1, 1, 1)})
    with pytest.raises(ArchitectureError, match="channels: got 1"):
        list(layout.places(8, 1, dict.fromkeys(layout.kinds, 4)))


@pytest.mark.parametrize(
    "text", ["0/1", "1/1", "3/2", "1", "0.5", "one third", "1/0", "1e-9999999999", "²/3", "-1/3"]
)
def test_a_place_is_a_fraction_between_zero_and_one(text: str) -> None:
    with pytest.raises(ConfigError, match="a fraction of the depth between 0 and 1 is needed, such as 1/3"):
        Layout(stages=("a", "a"), reduction_cells=("r",), reductions=(text,), filters=(1, 2))


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=2, max_size=3))
def test_close_fractions_are_answered_with_our_error(pairs: list[tuple[int, int]]) -> None:
    try:
        layout = Layout(
            stages=("a",) * (len(pairs) + 1),
            reduction_cells=("r",) * len(pairs),
            reductions=tuple(f"{a}/{b}" for a, b in pairs),
            filters=(1,) * (len(pairs) + 1),
        )
        list(layout.places(2, 4, {"a": 1, "r": 1}))
    except ConfigError as error:
        assert "such as 1/3" in str(error) or "depth" in str(error) or "need at least" in str(error)  # noqa: PT017 - some are accepted
