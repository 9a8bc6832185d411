"""The contract that every figure of `FIGURES` keeps: it draws itself from its job's record, in three files."""

import csv
import subprocess
import sys
from typing import get_args

import pytest
from figure_records import RECORDS

from robust_nas.figures import FIGURES, Job, draw_figures, new_figure, save, style

every_figure = pytest.mark.parametrize("name", FIGURES.built_in)


def test_every_kind_of_job_has_a_record_and_a_figure():
    assert set(RECORDS) == set(get_args(Job)) == {FIGURES.get(name).of for name in FIGURES.built_in}


@pytest.fixture(autouse=True, scope="module")
def _coarse():
    """Figures are drawn in fewer pixels: no test here reads a position."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(style, "DPI", 80)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder a job, with all of its built-in figures, drawn without naming one."""
    root = tmp_path_factory.mktemp("figures")
    for of, record in RECORDS.items():
        drawn = draw_figures(of, record, root / of, about="tiny on digits")
        figures = [FIGURES.make(name) for name in FIGURES.built_in]
        assert [each.stem for each in drawn] == [figure.stem for figure in figures if figure.of == of]
        assert len({each.stem for each in drawn}) == len(drawn)
    return root


@every_figure
def test_by_name_it_draws_itself_with_its_numbers_and_the_same_bytes_again(name, tmp_path, folder):
    figure = FIGURES.make(name)
    assert figure.name == name
    (drawn,) = draw_figures(figure.of, RECORDS[figure.of], tmp_path, about="tiny on digits", figures=[name])
    assert drawn.title
    assert drawn.stem == figure.stem
    assert "tiny on digits" in drawn.caption
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [f"{figure.stem}{suffix}" for suffix in (".csv", ".png", ".svg")]
    assert all((tmp_path / file).read_bytes() == (folder / figure.of / file).read_bytes() for file in files)
    header, *rows = csv.reader((tmp_path / files[0]).read_text().splitlines())
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


def test_a_caption_is_shown_as_it_is(tmp_path):
    figure, _ = new_figure(height=2, caption="costs $5_{, $x^ {a}")
    save(figure, tmp_path / "one", (["n"], [[1]]))
    assert "costs $5_{, $x^ {a}" in (tmp_path / "one.svg").read_text()
