"""The contract that every figure of `FIGURES` keeps: it draws itself from its job's record, in three files."""

import csv
import subprocess
import sys
from typing import get_args

import pytest
from figure_records import RECORDS

from robust_nas.figures import FIGURES, Job, draw_figures

every_figure = pytest.mark.parametrize("name", FIGURES.built_in)


def test_every_kind_of_job_has_a_record_and_a_figure():
    assert set(RECORDS) == set(get_args(Job)) == {FIGURES.get(name).of for name in FIGURES.built_in}


@every_figure
def test_it_draws_itself_with_its_numbers_and_the_same_bytes_every_time(name, tmp_path):
    figure = FIGURES.make(name)
    assert figure.name == name
    record = RECORDS[figure.of]
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        (drawn,) = draw_figures(figure.of, record, folder, about="tiny on digits", figures=[name])
        assert drawn.title
        assert drawn.stem == figure.stem
        assert "tiny on digits" in drawn.caption
    files = sorted(path.name for path in folders[0].iterdir())
    assert files == [f"{figure.stem}{suffix}" for suffix in (".csv", ".png", ".svg")]
    assert all((folders[0] / file).read_bytes() == (folders[1] / file).read_bytes() for file in files)
    header, *rows = csv.reader((folders[0] / files[0]).open(newline=""))
    assert rows
    assert all(len(row) == len(header) for row in rows)


@every_figure
def test_it_is_left_out_where_the_record_lacks_what_it_needs(name, tmp_path):
    figure = FIGURES.get(name)
    record = {"points": [], "response": "robust"} if figure.of == "study" else {}
    assert draw_figures(figure.of, record, tmp_path, figures=[name]) == []
    for key in figure.needs:
        less = {other: value for other, value in RECORDS[figure.of].items() if other != key}
        assert not figure().has_data(less)


@pytest.mark.parametrize("of", RECORDS)
def test_without_names_every_built_in_figure_of_the_job_is_drawn(of, tmp_path):
    drawn = draw_figures(of, RECORDS[of], tmp_path)
    expected = [FIGURES.make(name).stem for name in FIGURES.built_in if FIGURES.get(name).of == of]
    assert [each.stem for each in drawn] == expected
    assert len(set(expected)) == len(expected)


def test_no_figure_needs_torch_and_none_matplotlib_until_it_is_named():
    code = (
        "import sys\n"
        "from robust_nas.figures import FIGURES, draw_figures\n"
        "assert not {'torch', 'matplotlib'} & sys.modules.keys()\n"
        "for name in FIGURES.built_in:\n"
        "    FIGURES.make(name)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
