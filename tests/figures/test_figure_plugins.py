"""A figure of the user's own: by file in a config, and by an entry point."""

from typing import Annotated

import pytest
from extending import example
from figure_records import RECORDS
from plugins import install

from robust_nas.config import Options, check
from robust_nas.errors import CodeRefusedError, ConfigError, UnknownMethodError
from robust_nas.figures import FIGURES, Figure, draw_figures
from robust_nas.user_code import own_config

FIGURE = example("log_loss.py")


class Chosen(Options):
    """As a config of a verb holds them."""

    figures: tuple[Annotated[Figure, FIGURES.field()], ...] = ()


@pytest.fixture
def figure(tmp_path):
    (tmp_path / "log_loss.py").write_text(FIGURE)
    return tmp_path / "log_loss.py"


def chosen(folder, *figures):
    with own_config(folder):
        return check(Chosen, {"figures": list(figures)}, "run.yaml").figures


def test_figures_by_file_and_by_name_are_drawn_where_their_job_is(figure, tmp_path):
    own = {"name": "log_loss.py:LogLoss", "colour": "red"}
    figures = chosen(figure.parent, own, "training", "search")
    folder = tmp_path / "figures"
    drawn = draw_figures("training", RECORDS["training"], folder, about="tiny", figures=figures)
    assert [each.stem for each in drawn] == ["LogLoss", "training"]
    assert (folder / "LogLoss.csv").read_text().startswith("epoch,loss\n0,2.0\n")
    assert not (folder / "search.png").exists()


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (["serch"], r"figures\.0: got name 'serch'; allowed: search, sampled-search, cells, training"),
        (
            ["search", {"name": "log_loss.py:LogLoss", "color": "red"}],
            "figures.1.*color.*did you mean 'colour'",
        ),
    ],
)
def test_mistakes_are_placed(figure, figures, message):
    with pytest.raises(ConfigError, match=message):
        chosen(figure.parent, *figures)
    with pytest.raises(UnknownMethodError):
        draw_figures("search", RECORDS["search"], figure.parent, figures=["serch"])


def test_a_figure_runs_only_where_its_user_named_it(figure):
    with pytest.raises(CodeRefusedError, match="--allow-code"):
        check(Chosen, {"figures": [f"{figure}:LogLoss"]}, "a stranger's config")


def test_a_figure_by_entry_point_is_known_by_its_name(figure, tmp_path, monkeypatch):
    install(monkeypatch, figure.parent, FIGURES, "log-loss", "log_loss:LogLoss")
    (drawn,) = draw_figures("training", RECORDS["training"], tmp_path / "figures", figures=["log-loss"])
    assert drawn.stem == "log-loss"
    assert (tmp_path / "figures" / "log-loss.svg").is_file()
