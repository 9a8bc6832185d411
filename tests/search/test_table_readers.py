"""Readers of tables, on small tables of every form: classes, aliases, absent values, joins, and clear errors."""

import itertools
import json
import math
import re

import numpy as np
import pytest
from small_search import searched
from small_tables import (
    CODES,
    COLUMN,
    ROBUST,
    WRITERS,
    cells_csv,
    darts_csv,
    latency_csv,
    project_page,
    robust_csv,
    write,
)

from robust_nas.errors import ArchitectureError, ConfigError, DataError
from robust_nas.search import EVALUATORS, TABLES, RandomSearch, load_table, load_with_latency
from robust_nas.spaces import load_architecture, load_space, sample
from robust_nas.spaces.isomorphism import isomorphism_class
from robust_nas.spaces.nas_bench_201 import string_of


def test_every_reader_has_a_small_table():
    assert set(WRITERS) == set(TABLES.built_in)


@pytest.mark.parametrize("name", WRITERS)
def test_every_reader_recognises_its_form_alone(name, tmp_path):
    table = load_table(WRITERS[name](tmp_path))
    head = WRITERS[name](tmp_path).read_bytes()
    if head[:2] != b"\x1f\x8b":
        text = head.decode()
        assert [each for each in TABLES.built_in if TABLES.get(each).recognises(text)] == [name]
    assert TABLES.get(name).form
    again = load_table(table.source, name)
    assert again.classes == table.classes
    assert all(
        np.array_equal(again.columns[each], table.columns[each], equal_nan=True) for each in table.columns
    )


@pytest.mark.parametrize("name", WRITERS)
def test_every_row_is_found_by_its_network(name, tmp_path):
    table = load_table(WRITERS[name](tmp_path))
    column = next(iter(table.columns))
    for row in range(len(table)):
        architecture = table.architecture(row)
        assert (architecture.cells, architecture.channels) == (table.size.cells, table.size.channels)
        assert table.class_of(architecture.resized(cells=5, channels=4)) == table.classes[row]
        assert table.row_of(table.ids[row]) == row
        if math.isfinite(table.columns[column][row]):
            assert table.value(table.classes[row], column) == table.columns[column][row]


def test_rows_of_one_class_are_averaged(tmp_path):
    table = load_table(robust_csv(tmp_path))
    assert len(table) == 3
    assert table.column(COLUMN).tolist() == pytest.approx([0.41, 0.10, 0.45])
    assert table.row_of("7") == table.row_of("0") == table.row_of(string_of(CODES[1])) == 0


def test_the_project_page_has_aliases_and_names_columns_as_the_csv_does(tmp_path):
    table = load_table(project_page(tmp_path))
    assert table.value(table.classes[0], COLUMN) == ROBUST[0]
    assert table.row_of("1") == table.row_of("0")
    (tmp_path / "ops.json").rename(tmp_path / "other.json")
    with pytest.raises(DataError, match=r"ops\.json of the project page"):
        load_table(table.source)
    assert load_table(table.source, codes=str(tmp_path / "other.json")).classes == table.classes
    standard = write(tmp_path / "acc.json", json.dumps({"": ["cifar10#clean"], "3": [0.9]}))
    assert list(load_table(standard, codes=str(tmp_path / "other.json")).columns) == [
        "stdtrain_eps1/cifar10/clean"
    ]


def test_disconnected_cells_have_no_latency(tmp_path):
    table = load_table(latency_csv(tmp_path))
    assert table.column("pixel3_ms").tolist() == pytest.approx([5.0, math.nan, 30.0], nan_ok=True)
    assert not table.has(table.classes[1], "fpga_ms")
    with pytest.raises(DataError, match="14: fpga_ms is absent"):
        table.value(table.classes[1], "fpga_ms")


@pytest.mark.parametrize("value", [0, -1.5])
def test_a_latency_of_zero_is_refused(value, tmp_path):
    with pytest.raises(DataError, match=r"latency\.csv: line 5: fpga_ms: got .* above 0"):
        load_table(latency_csv(tmp_path, fpga_ms=(1, 1, 1, value)))


def test_tables_join_by_class(tmp_path):
    robust, latency = robust_csv(tmp_path), latency_csv(tmp_path)
    for device in ("pixel3", "pixel3_ms"):
        table = load_with_latency(robust, latency, device)
        assert table.column("latency_ms").tolist() == pytest.approx([5.0, math.nan, 30.0], nan_ok=True)
    with pytest.raises(ConfigError, match="no device 'toaster'; it has pixel3, fpga"):
        load_with_latency(robust, latency, "toaster")
    with pytest.raises(ConfigError, match=r"is a table of nas-bench-201; .* is one of darts"):
        load_with_latency(darts_csv(tmp_path), latency, "fpga")
    table = load_table(robust)
    with pytest.raises(ConfigError, match="already has a column"):
        table.joined(table, {COLUMN: COLUMN})


def test_a_class_without_a_row_has_no_value(tmp_path):
    table = load_table(robust_csv(tmp_path))
    other = isomorphism_class(load_architecture(string_of("222222")))
    assert not table.has(other, COLUMN)
    with pytest.raises(DataError, match="has no row of the class"):
        table.value(other, COLUMN)
    with pytest.raises(DataError, match="has no row for '99'"):
        table.row_of("99")
    with pytest.raises(ConfigError, match=re.escape(f"no column 'val_pgd_8'; it has {COLUMN}")):
        table.column("val_pgd_8")
    with pytest.raises(ArchitectureError, match="is not of nas-bench-201"):
        table.class_of(sample(load_space("darts"), 0))
    with pytest.raises(ArchitectureError, match="is not of nas-bench-201"):
        table.class_of(load_architecture("wrn-28-10"))


BAD = {
    "no such form": ("x.csv", "a,b\n1,2\n", "in the form of no known table"),
    "NaN": ("x.csv", f"arch_id,arch_str,v\n0,{string_of(CODES[0])},nan\n", "line 2: v: got 'nan'; a finite"),
    "empty": ("x.csv", f"arch_id,arch_str,v\n0,{string_of(CODES[0])},\n", "line 2: v: got ''"),
    "cells": ("x.csv", f"arch_id,arch_str,v\n0,{string_of(CODES[0])}\n", "line 2: has 2 cells; 3 are needed"),
    "string": ("x.csv", "arch_id,arch_str,v\n0,|none~0|,1\n", "line 2: arch_str: got '|none~0|'"),
    "twice": ("x.csv", f"arch_id,arch_str,v\n{f'0,{string_of(CODES[0])},1' + chr(10)}" * 2, "line 3: "),
    "id twice": (
        "x.csv",
        f"arch_id,arch_str,v\n0,{string_of(CODES[0])},1\n0,{string_of(CODES[3])},1\n",
        "line 3: id '0' comes twice",
    ),
    "columns twice": ("x.csv", "arch_id,arch_str,v,v\n", "two columns of one name"),
    "no rows": ("x.csv", "arch_id,arch_str,v\n", "has 0 rows"),
    "no JSON": ("x.json", "acc={1:2", "is no JSON"),
    "no columns": ("x.json", '{"1": [2]}', 'columns under the key ""'),
    "no code": ("x.json", '{"": ["c#val_acc"], "9": [1]}', "id '9': has no code; ids are 0..3"),
    "a wrong length": ("x.json", '{"": ["c#val_acc"], "0": [1, 2]}', "id '0': has 2 numbers; 1 are needed"),
    "JSON NaN": ("x.json", '{"": ["c#val_acc"], "0": [NaN]}', "id '0': advtrain/c/val_acc: got 'nan'"),
    "alias": (
        "x.json",
        '{"": ["c#val_acc"], "0": [1], "1": 3}',
        "id '1' is an alias of '3', which has no row",
    ),
    "not UTF-8": ("x.csv", b"arch_id,arch_str,v\n\xff", "is no text in UTF-8"),
    "half a gzip": ("x.csv.gz", b"\x1f\x8b\x08\x00", "cannot be read"),
    "nothing": ("x.csv", "", "in the form of no known table"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_their_place(case, tmp_path):
    name, content, message = BAD[case]
    project_page(tmp_path)  # whose codes the JSON needs
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load_table(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        load_table(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('""skip_connect""', '""leap""', "is no network of darts"),
        ('"[2, 3, 4, 5]"', '"[2, 3]"', "line 2: normal_concat: got [2, 3]"),
        ('"[[', '"[', "line 2: normal: is no JSON"),
        ("0,16,8", "0,0,8", "line 2: cells and channels"),
        ("1,16,8", "1,32,8", "networks of several sizes"),
    ],
)
def test_networks_of_another_space_are_refused(old, new, message, tmp_path):
    path = darts_csv(tmp_path, rows=12)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=re.escape(message)):
        load_table(path)


def test_the_evaluator_looks_up_the_class(tmp_path):
    options = {"file": str(robust_csv(tmp_path)), "column": COLUMN}
    evaluator = EVALUATORS.make("table", **options, latency=str(latency_csv(tmp_path)), device="pixel3")
    one, dead, other = (load_architecture(string_of(code)) for code in (CODES[1], CODES[2], "222222"))
    assert [evaluator.knows(each) for each in (one, dead, other)] == [True, False, False]
    small = one.resized(cells=3, channels=4)
    assert evaluator.evaluate(small, None) == (
        pytest.approx(0.41),
        {"value": pytest.approx(0.41), "latency_ms": 5.0},
    )
    lower = EVALUATORS.make("table", **options, higher_is_better=False)
    assert lower.evaluate(one, None) == (
        pytest.approx(-0.41),
        {"value": pytest.approx(0.41), "latency_ms": None},
    )
    assert lower.knows(dead)
    assert lower.table() is lower.table()
    with pytest.raises(ArchitectureError, match="is not of nas-bench-201"):
        lower.knows(sample(load_space("darts"), 0))
    with pytest.raises(ConfigError, match="needed together"):
        EVALUATORS.make("table", **options, device="pixel3")
    with pytest.raises(DataError, match="cannot be read"):
        EVALUATORS.make("table", file=str(tmp_path / "none"), column="v").knows(one)


def test_a_search_on_a_table_finds_the_best_of_its_candidates(tmp_path):
    codes = ["".join(digits) for digits in itertools.product("013", repeat=6)]
    path = cells_csv(tmp_path / "all.csv", {"v": [code.count("3") for code in codes]}, codes)
    evaluator = EVALUATORS.make("table", file=str(path), column="v")
    space = load_space("nas-bench-201", {"operations": ["none", "skip_connect", "nor_conv_3x3"]})
    strategy = RandomSearch(cells=3, channels=2, evaluations=6, evaluator=evaluator)
    outcome, records = searched(tmp_path / "run", strategy, space=space)
    best = max(record["score"] for record in records)
    assert evaluator.evaluate(outcome.architecture, None).score == best
    assert all(set(evaluator.columns) <= record.keys() for record in records)
    assert evaluator.label == "table v"


def test_a_table_that_changed_is_read_again(tmp_path):
    path = cells_csv(tmp_path / "t.csv", {"v": (1, 1, 1, 1)})
    evaluator = EVALUATORS.make("table", file=str(path), column="v")
    one = load_architecture(string_of(CODES[0]))
    before = evaluator.evaluate(one, None).score
    cells_csv(path, {"v": (2.5, 2.5, 1, 1)})
    assert (before, evaluator.evaluate(one, None).score) == (1, 2.5)
