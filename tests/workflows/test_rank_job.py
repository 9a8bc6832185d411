"""`robust-nas rank` on digits: spaces, files, resume, tables for people and machines, and mistakes."""

import csv
import json

import numpy as np
import pytest
from pages import read_page
from scipy import stats

from robust_nas import load_architecture, load_ranking, rank
from robust_nas.errors import ArchitectureError, ConfigError, DataError, RunExistsError, SearchSpaceError
from robust_nas.spaces.files import folder as shipped_folder
from robust_nas.workflows.rank import agreement_of
from robust_nas.workflows.rank_candidates import read_candidates

FAST = ("data.limit=120", "method.channels=2", "method.cells_per_stage=1", "method.batch_size=8", "threads=1")
CELLS = """one  |nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|
two  |none~0|+|none~0|none~1|+|none~0|none~1|none~2|
two again |none~0|+|none~0|none~1|+|none~0|none~1|none~2|
"""


STRING = CELLS.split()[1]


def config(*candidates, **options):
    return load_ranking(candidates or ["nas-bench-201"], overrides=FAST, **options)


def test_a_space_is_sampled_ranked_and_written_and_a_killed_ranking_resumes_to_the_same(tmp_path):
    chosen = config(sample=6, seed=2)
    whole = rank(chosen, tmp_path / "whole")

    def stop(job, done, total, note=""):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rank(chosen, tmp_path / "cut", progress=stop)
    again = rank(chosen, tmp_path / "cut", mode="resume")

    def rows(found):
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in found.record["ranking"]]

    assert rows(again) == rows(whole)
    assert rank(chosen, tmp_path / "cut", mode="resume") == again
    scores = [row["score"] for row in whole.record["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in whole.record["ranking"]] == [1, 2, 3, 4, 5, 6]
    with (tmp_path / "whole" / "ranking.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [row["name"] for row in whole.record["ranking"]]
    assert all(int(row["params"]) > 0 and int(row["macs"]) > 0 for row in table)
    best = load_architecture(tmp_path / "whole")
    assert (best.name, best.cells, best.channels) == (table[0]["name"], 15, 16)
    assert (tmp_path / "whole" / "figures" / "ranking.png").is_file()
    assert f"Of 6 candidates {best.name} is first" in read_page(tmp_path / "whole" / "report.html").text
    with pytest.raises(RunExistsError, match="seed"):
        rank(config(sample=6, seed=3), tmp_path / "cut", mode="resume")


def test_candidates_are_spaces_names_strings_and_texts_of_cells(tmp_path):
    (tmp_path / "cells.txt").write_text(CELLS)
    found = read_candidates(config(str(tmp_path / "cells.txt")))
    assert [one.string.count("none") for one in found.architectures] == [2, 6, 6]
    assert found.space is not None
    assert found.space.name == "nas-bench-201"
    mixed = read_candidates(config(str(tmp_path / "cells.txt"), "arnas"))
    assert (len(mixed.architectures), mixed.space) == (4, None)
    part = read_candidates(config(str(tmp_path / "cells.txt"), sample=2, seed=1))
    assert len(part.architectures) == 2
    drawn = read_candidates(config(sample=40)).architectures
    assert len({one.string for one in drawn}) == 40


@pytest.mark.parametrize(
    ("candidates", "options", "error", "words"),
    [
        (["nas-bench-201"], {"method": "zero"}, ConfigError, "got name 'zero'; allowed: zero-cost"),
        (["wrn-10-1"], {}, ArchitectureError, "rankings take architectures with cells"),
        (["arnas"], {"sample": 2}, ConfigError, "sample: got 2; there are 1 candidates"),
        (["arnas"], {"space": "darts"}, ArchitectureError, "arnas: is not of the space darts"),
        (["darts"], {"space": "darts"}, ConfigError, "space: got 'darts'"),
        (["none-such"], {}, ArchitectureError, "none-such"),
        (["nas-bench-201"], {"sample": 15626}, SearchSpaceError, "nas-bench-201 has 15625 genotypes"),
        (["arnas", STRING], {"method": "supernet"}, ConfigError, "of no single search space"),
    ],
)
def test_mistakes_are_answered_before_anything_is_written(tmp_path, candidates, options, error, words):
    with pytest.raises(error, match=words):
        rank(config(*candidates, **options), tmp_path / "out")
    assert not (tmp_path / "out").exists()


COLUMN = "pgd_accuracy"


def table_of(path, networks=8):
    """A table in CSV of random cells."""
    names = read_candidates(config(sample=networks, seed=7)).architectures
    rng = np.random.default_rng(0)
    rows = [f"{number},{one.string},{rng.random():.4f},{number % 2}" for number, one in enumerate(names)]
    path.write_text("\n".join([f"arch_id,arch_str,{COLUMN},even", *rows]))
    return path


def test_networks_of_a_table_are_ranked_and_compared_with_a_column_next_to_params_and_macs(tmp_path, call):
    table = table_of(tmp_path / "table.csv")
    done = rank(config(str(table), column=COLUMN), tmp_path / "out")
    rows, agreement = done.record["ranking"], done.record["agreement"]
    assert agreement["architectures"] == len(rows) == 8
    assert (agreement["column"], agreement["left_out"]) == (COLUMN, 0)
    for name in ("params", "macs", "score"):
        expected = stats.spearmanr([row[name] for row in rows], [row["truth"] for row in rows])[0]
        found = agreement["scores"][name]["measures"]["spearman"]
        assert found["value"] == pytest.approx(expected)
        assert found["low"] < expected < found["high"]
    assert agreement["scores"]["params"]["ahead_of_control"]["spearman"]["value"] == 0
    assert (tmp_path / "out" / "agreement.csv").read_text().startswith("score,measure,value")
    assert (tmp_path / "out" / "figures" / "ranking.png").is_file()
    assert "truth" in (tmp_path / "out" / "figures" / "ranking.csv").read_text().splitlines()[0]

    moved = table.rename(tmp_path / "moved.csv")
    assert rank(config(str(moved), column=COLUMN), tmp_path / "out", mode="resume") == done
    with pytest.raises(RunExistsError, match="truth"):
        rank(config(str(moved), column="even"), tmp_path / "out", mode="resume")
    lower = load_ranking([str(moved)], column=COLUMN, overrides=[*FAST, "truth.higher_is_better=false"])
    worst = agreement_of(rows, read_candidates(lower).truth).agreements["score"].measures["spearman"].value
    best = agreement["scores"]["score"]["measures"]["spearman"]
    assert worst == pytest.approx(-best["value"])
    shown = call("rank", "--resume", str(tmp_path / "out"), "--quiet")
    assert (shown.code, shown.err) == (0, "")
    for words in (f"order by {COLUMN}: 8 networks", "spearman top half", "score - params"):
        assert words in shown.out


def test_a_table_without_a_column_and_a_column_without_a_table_are_refused(tmp_path):
    table = str(table_of(tmp_path / "table.csv"))
    for candidates, options, error, words in (
        ([table], {}, ConfigError, rf"is a table; .* by --column; it has {COLUMN}, even"),
        ([table, "arnas"], {}, ConfigError, "is a table"),
        ([table], {"column": "pgd"}, ConfigError, rf"has no column 'pgd'; it has {COLUMN}"),
        (
            [table, table],
            {"column": COLUMN},
            ConfigError,
            r"truth\.column: got 'pgd_accuracy' with 2 candidates",
        ),
        ([table], {"column": COLUMN, "sample": 2}, ConfigError, "got 2 networks .* an agreement needs 3"),
        ([table], {"column": COLUMN, "sample": 9}, ConfigError, "sample: got 9; there are 8"),
        ([table], {"column": COLUMN, "space": "darts"}, ArchitectureError, "is not of the space darts"),
        (["arnas"], {"column": COLUMN}, DataError, "arnas: cannot be read"),
    ):
        with pytest.raises(error, match=words):
            rank(config(*candidates, **options), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_space_with_fewer_architectures_than_asked_for_says_how_many_it_has(tmp_path):
    text = (shipped_folder() / "nas_bench_201.yaml").read_text()
    every = "operations: [none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3]"
    assert every in text
    (tmp_path / "one.yaml").write_text(text.replace(every, "operations: [skip_connect]"))
    with pytest.raises(SearchSpaceError, match="sample: got 2; nas-bench-201 has 1 genotypes"):
        read_candidates(config(str(tmp_path / "one.yaml"), sample=2))


def test_draws_of_a_space_end_where_nothing_new_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("robust_nas.workflows.rank_candidates.DRAWS", 30)
    text = (shipped_folder() / "nas_bench_201.yaml").read_text()
    every = "operations: [none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3]"
    assert every in text
    (tmp_path / "two.yaml").write_text(text.replace(every, "operations: [none, skip_connect]"))
    with pytest.raises(
        SearchSpaceError, match=r"sample: got 64; \d+ draws of nas-bench-201 gave \d+ different"
    ):
        read_candidates(config(str(tmp_path / "two.yaml"), sample=64))


def test_the_command_prints_a_table_or_json_and_resumes_by_its_folder(call):
    arguments = ("rank", "nas-bench-201", "--sample", "4", "--quiet", *FAST)
    done = call(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    record = json.loads(done.out)
    assert record["folder"] == "results/nas-bench-201-rank"
    assert len(record["ranking"]) == 4
    again = call("rank", "--resume", "results/nas-bench-201-rank", "--quiet")
    assert (again.code, again.err) == (0, "")
    for words in ("params", "macs", "spread", "rank in band", "shown              4 of 4"):
        assert words in again.out
    assert call(*arguments).code == 2
    wrong = call("rank", "nas-bench-201", "method.drawz=3")
    assert wrong.code == 2
    assert "method.drawz" in wrong.err
    assert call("rank", "data.limit=3").code == 2
