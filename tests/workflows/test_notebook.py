"""The notebook of the examples: it has no outputs, and its cells run in their order, here with small settings."""

import json

import pytest
from cases import config
from package_files import ROOT

import robust_nas
from robust_nas.workflows.config import load_config

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_there_is_one():
    assert [path.name for path in NOTEBOOKS] == ["first-search.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_cells_run_in_their_order(path, tmp_path, monkeypatch):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["language"]) == (4, "python")
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    asked = []

    def small(recipe, overrides):
        asked.append(load_config(recipe, overrides))  # what the notebook asks for is a config
        return config("name=first", "search.epochs=1", "search.stage1_epochs=1", "data.limit=60")

    monkeypatch.setattr(robust_nas, "load_config", small)
    monkeypatch.chdir(tmp_path)
    names = {}
    for number, cell in enumerate(cells):
        lines = [line for line in cell["source"] if not line.startswith("%")]
        exec(compile("".join(lines), f"cell {number}", "exec"), names)  # noqa: S102 - our own notebook
    assert [one.name for one in asked] == ["first"]
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"first-search", "first-model"}
    assert len(robust_nas.runs("results")) == 2
