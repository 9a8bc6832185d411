"""NAS-RobBench-201 (Wu et al., ICLR 2024) as its project page has it: `NAS-RobBench-201_html.json` and `ops.json`.

    acc={"": ["cifar10#val_acc", ...], "0": [0.77, ...], "2": 0, ...}

A JavaScript assignment of JSON, or the JSON alone. The key "" holds the columns; an id has a list of numbers, or the id
of an isomorphic network that has one. `ops.json` is the list of codes by id, six digits each, as `arch=[...]` or JSON.
Columns are called as in the CSV form: `cifar10#val_acc` is `advtrain/cifar10/val_acc`. `acc.json` of the same page
(Jung et al., ICLR 2023; standard training, eps 1/255) has the same form: `cifar10#clean` is
`stdtrain_eps1/cifar10/clean`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from robust_nas.config import AbsolutePath
from robust_nas.errors import ArchitectureError, DataError
from robust_nas.search.tables.files import number, read_text
from robust_nas.search.tables.nas_bench_201 import SIZE, SPACE, genotype_of
from robust_nas.search.tables.reader import TableReader
from robust_nas.search.tables.table import Entry, Table
from robust_nas.spaces import load_space

CODES = ("ops.json", "ops.json.gz")
_ASSIGNED = re.compile(r"\s*(?:(?:var|let|const)\s+)?[A-Za-z_]\w*\s*=")
_ADVERSARIAL = re.compile(r".+/(val_|autoattack)")  # columns of networks that were trained adversarially


class NASRobBench201(TableReader):
    """The JSON of the project page."""

    form: ClassVar[str] = 'JSON or acc={...} with the columns under the key ""'
    where: ClassVar[str] = "the project page of NAS-RobBench-201 (TT2408/nasrobbench201hp on GitHub, files/)"

    name: Literal["nas-robbench-201"] = "nas-robbench-201"
    codes: AbsolutePath | None = None  # the file of architecture codes; None: ops.json next to the table

    @classmethod
    def recognises(cls, head: str) -> bool:
        """Return whether it is a mapping, assigned or alone."""
        return _json_of(head).startswith("{")

    def read(self, path: Path) -> Table:
        """Return the table of a file, with the codes of the other one."""
        tree = _parsed(path)
        columns = tree.get("") if isinstance(tree, dict) else None
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise DataError(f'{path}: a mapping with the columns under the key "" is needed')
        rows = {id_: row for id_, row in tree.items() if isinstance(row, list) and id_ != ""}
        aliases = {id_: str(row) for id_, row in tree.items() if not isinstance(row, list)}
        names = [name.replace("#", "/") for name in columns]
        adversarial = all(_ADVERSARIAL.match(name) for name in names)
        names = [f"{'advtrain' if adversarial else 'stdtrain_eps1'}/{name}" for name in names]
        entries = _entries(path, names, rows, self._codes(path))
        return Table.of(str(path), load_space(SPACE), SIZE, names, entries, aliases)

    def _codes(self, path: Path) -> list[Any]:
        """Return the codes by id. Raises `DataError` where there are none."""
        places = [Path(self.codes)] if self.codes else [path.with_name(name) for name in CODES]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise DataError(
                f"{places[0]}: there is no such file; {path.name} has ids alone; ops.json of the project page, "
                "next to it or named by codes, holds their architectures"
            )
        codes = _parsed(file)
        if not isinstance(codes, list):
            raise DataError(f"{file}: a list of codes by id is needed, got {type(codes).__name__}")
        return codes


def _entries(
    path: Path, columns: list[str], rows: Mapping[str, list[Any]], codes: list[Any]
) -> Iterator[Entry]:
    for id_, row in rows.items():
        place = f"{path}: id {id_[:100]!r}"
        if not id_.isdecimal() or int(id_) >= len(codes):
            raise DataError(f"{place}: has no code; ids are 0..{len(codes) - 1}")
        if len(row) != len(columns):
            raise DataError(f"{place}: has {len(row)} numbers; {len(columns)} are needed")
        try:
            genotype = genotype_of(str(codes[int(id_)]))
        except ArchitectureError as error:
            raise DataError(f"{place}: {error}") from None
        values = [number(value, place, name) for name, value in zip(columns, row, strict=True)]
        yield Entry(id_, genotype, values, place)


def _json_of(text: str) -> str:
    """Return the JSON of a text: all of it, or what is assigned to a name."""
    return _ASSIGNED.sub("", text, count=1).strip() if _ASSIGNED.match(text) else text.strip()


def _parsed(path: Path) -> Any:
    try:
        return json.loads(_json_of(read_text(path)).rstrip(";"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON: {error}") from None
