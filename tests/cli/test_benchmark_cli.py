"""`robust-nas benchmark scores` on a small table."""

import csv
import json
import subprocess
import sys

import pytest
from cli_outcome import outcome
from small_tables import COLUMN, cells_csv, write

from robust_nas.spaces.nas_bench_201 import string_of

CODES = ("000300", "333333", "222222", "444444", "133333", "000200", "030300")
VALUES = (0.40, 0.47, 0.43, 0.30, 0.46, 0.35, 0.41)


@pytest.fixture
def table(tmp_path):
    return cells_csv(tmp_path / "table.csv.gz", {COLUMN: VALUES}, CODES)


def scores(table, *more):
    return outcome("benchmark", "scores", "--table", str(table), "--column", COLUMN, "--draws", "50", *more)
