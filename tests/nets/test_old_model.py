"""Model folders written at commit 2cc88f5 (where the loss was called `pgd`) load, answer alike and are exported."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from robust_nas.export.source import export_source
from robust_nas.nets import read_model
from robust_nas.spaces import count, load_architecture

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "old_model"
every_model = pytest.mark.parametrize("name", ["cells", "residual"])


@every_model
def test_an_old_model_gives_the_logits_that_it_gave(name: str) -> None:
    stored = load_file(FOLDER / name / "logits.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            logits = read_model(FOLDER / name).network(stored["images"])
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(logits, stored["logits"], rtol=1e-6, atol=1e-6)


@every_model
def test_an_old_architecture_reads_and_writes_as_before(name: str) -> None:
    path = FOLDER / name / "architecture.yaml"
    architecture = load_architecture(FOLDER / name)
    assert architecture.to_yaml() == path.read_text()
    network = read_model(FOLDER / name).network
    assert count(architecture, (1, 8, 8), 10).params == sum(map(torch.numel, network.parameters()))


@every_model
def test_an_old_model_is_exported(name: str, tmp_path: Path) -> None:
    model = read_model(FOLDER / name)
    source, weights = export_source(model, tmp_path)  # compares the logits
    assert source.is_file()
    assert weights.is_file()


def test_the_old_configs_are_here_for_the_evaluation() -> None:
    assert "name: pgd\n" in (FOLDER / "cells" / "config.yaml").read_text()
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 100_000
