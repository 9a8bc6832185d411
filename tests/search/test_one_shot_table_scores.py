"""Rows of a table by the edge weights of a search: what they pick, and the lines that show it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from small_tables import COLUMN, darts_csv, robust_csv

from robust_nas.search import load_table
from robust_nas.spaces import Edge


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[2] / "scripts" / "one_shot_table_scores.py"
    spec = importlib.util.spec_from_file_location("one_shot_table_scores", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alphas_of(architecture, space, weight=0.6, sources=False):
    """Return edge weights in which an architecture's own operations are the best."""
    rest = (1 - weight) / (len(space.operations) - 1)
    softmax = {kind: [[rest] * len(space.operations) for _ in space.edges] for kind in space.kinds}
    kept = {
        kind: [[0.01] * len(space.sources_of(node)) for node in range(space.nodes)] for kind in space.kinds
    }
    for cell in architecture.genotype:
        for number, node in enumerate(cell.nodes):
            for operation, source in node:
                column = space.operations.index(operation)
                softmax[cell.kind][space.edges.index((number, source))][column] = weight
                kept[cell.kind][number][list(space.sources_of(number)).index(source)] = 0.5
    found = {"operations": list(space.operations), "softmax": softmax}
    return {**found, "sources": kept} if sources else found


@pytest.mark.parametrize("write", [robust_csv, darts_csv])
def test_a_row_has_the_sum_of_the_log_weights_of_its_edges(script, tmp_path, write):
    table = load_table(str(write(tmp_path)))
    for row in range(len(table)):
        own = table.architecture(row)
        scores = script.row_scores(table, alphas_of(own, table.space))
        edges = sum(len(node) for cell in own.genotype for node in cell.nodes)
        assert scores.argmax() == row
        assert scores[row] == pytest.approx(edges * np.log(0.6))
        with_sources = script.row_scores(table, alphas_of(own, table.space, sources=True))
        assert with_sources[row] == pytest.approx(edges * np.log(0.6 * 0.5))


def test_the_best_row_and_the_arg_max_have_their_truth(script, tmp_path):
    table = load_table(str(robust_csv(tmp_path)))
    truth = table.column(COLUMN)
    best = int(truth.argmax())
    scores = script.row_scores(table, alphas_of(table.architecture(best), table.space))
    found = script.picked(table, truth, range(len(table)), scores)
    assert found == {
        "rows": len(table),
        "best": table.ids[best],
        "truth": truth.max(),
        "worse": pytest.approx(1 - 1 / len(table)),
    }
    some = [row for row in range(len(table)) if row != best]
    assert script.picked(table, truth, some, scores[some])["truth"] < truth.max()
    own = table.architecture(best)
    assert script.arg_max(table, COLUMN, own) == {"in_table": True, "truth": truth.max()}
    mixed = [
        [Edge("nor_conv_1x1" if source else "nor_conv_3x3", source) for source in range(node + 1)]
        for node in range(3)
    ]
    absent = table.space.architecture("absent", {table.space.kinds[0]: mixed})
    assert script.arg_max(table, COLUMN, absent) == {"in_table": False, "truth": None}


def test_records_are_lines_of_the_tables(script):
    picked = {"rows": 3, "truth": 0.451, "worse": 0.5, "cpu_seconds": 90, "epochs": 7}
    assert script.line("darts", {**picked, "arg_max": {"in_table": False, "truth": None}}) == (
        "| darts | 7 | 1.5 | 3 | 45.1 | 50 | not in the table |"
    )
    tau = {"value": 0.25, "low": -0.1, "high": 0.5}
    kendall = {"params": tau, "alphas": {"value": None, "low": None, "high": None}}
    shown = script.line("gdas", {"rows": 4, "epochs": 2, "cpu_seconds": 60, "kendall": kendall})
    assert shown == "| gdas | 2 | 1.0 | 4 | +0.25 (-0.10 to +0.50) | - | - |"
    for head, line in zip(script.HEADS.values(), (script.line("a", {**picked}), shown), strict=True):
        assert head.splitlines()[0].count("|") == line.count("|")
