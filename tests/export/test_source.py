"""Plain-Python export: the same logits with torch alone, and nothing of a foreign file in the code."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robust_nas.errors import RunError, RunExistsError
from robust_nas.export import export_source
from robust_nas.nets import Model, ModelDescription, build_network
from robust_nas.spaces import (
    Architecture,
    EnsembleArchitecture,
    MLPArchitecture,
    ResidualArchitecture,
    Size,
    load_architecture,
    load_space,
    sample,
)

SHAPE = (1, 9, 8)


CELLS = sample(load_space("dsara"), 3, size=Size(cells=4, channels=3))
RESIDUAL = ResidualArchitecture(name="found", stem=3, depths=(2, 1, 1), widths=(3, 5, 5))
ROBUST = ResidualArchitecture(
    name="found", block="robust-res", depths=(2, 1), widths=(16, 24), scales=3, activation="silu"
)
MLP = MLPArchitecture(name="found", depth=2, width=5, activation="softplus", initialisation="ntk")
ENSEMBLE = EnsembleArchitecture(name="found", member=CELLS, particles=2)
FAMILIES = {"cells": CELLS, "residual": RESIDUAL, "robust-res": ROBUST, "mlp": MLP, "ensemble": ENSEMBLE}
every_family = pytest.mark.parametrize("architecture", FAMILIES.values(), ids=FAMILIES.keys())


def make(
    name: str = "found",
    class_names: tuple[str, ...] = ("a", "b", "c"),
    architecture: Architecture = CELLS,
) -> Model:
    architecture = architecture.model_copy(update={"name": name})
    description = ModelDescription(input_shape=SHAPE, class_names=class_names, mean=(1 / 3,), std=(8 / 255,))
    network = build_network(
        architecture, input_shape=SHAPE, classes=len(class_names), mean=(1 / 3,), std=(8 / 255,), seed=2
    )
    with torch.no_grad():
        network.train()(torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0)))
    return Model(network.eval(), architecture, description)


ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("robust_nas", "safetensors", "pydantic", "yaml", "typer"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch
known = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import network
new = {name.split(".")[0] for name in set(sys.modules) - known} - {"network"}
assert new <= set(sys.stdlib_module_names) | {"torch"}, new
with torch.no_grad():
    torch.save(network.load()(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""


@every_family
def test_the_exported_file_computes_identical_logits_with_torch_alone(
    tmp_path: Path, architecture: Architecture
) -> None:
    model = make(architecture=architecture)
    source, weights = export_source(model, tmp_path / "export")
    assert (source.name, weights.name) == ("network.py", "weights.pt")
    assert "robust_nas" not in "".join(line for line in source.read_text().splitlines() if "import" in line)
    x = torch.rand(5, *SHAPE)
    torch.save(x, tmp_path / "x.pt")
    arguments = [str(tmp_path / "export"), str(tmp_path / "x.pt"), str(tmp_path / "logits.pt")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), model.network(x))


def test_a_second_export_replaces_the_first_only_when_told_to(tmp_path: Path) -> None:
    first = export_source(make(), tmp_path)[0].read_bytes()
    with pytest.raises(RunExistsError, match="replace it with --overwrite"):
        export_source(make(), tmp_path)
    assert export_source(make(), tmp_path, overwrite=True)[0].read_bytes() == first


def test_an_export_killed_before_its_weights_can_be_repeated(tmp_path: Path) -> None:
    _, weights = export_source(make(), tmp_path)
    weights.unlink()
    assert export_source(make(), tmp_path, overwrite=True)[1].is_file()


@pytest.mark.parametrize("name", ["network.py", "weights.pt"])
def test_a_foreign_file_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match="exists already and was not written by this export"):
        export_source(make(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        export_source(make(), tmp_path / "file" / "export")


@every_family
def test_names_of_foreign_files_are_literals_and_never_code(
    tmp_path: Path, architecture: Architecture
) -> None:
    mark = tmp_path / "ran"
    attack = f'""";open({str(mark)!r}, "w");"""'
    model = make(attack, (attack, "'''", "\\", "\n", "{x}", "\ud800"), architecture)  # past the checks
    source, _ = export_source(model, tmp_path / "export")
    names: dict[str, object] = {"__name__": "network", "__file__": str(source)}
    exec(compile(source.read_text(), "network.py", "exec"), names)  # noqa: S102
    assert not mark.exists()
    assert names["NAME"] == attack
    assert names["CLASS_NAMES"] == list(model.description.class_names)


def test_the_published_architectures_export(tmp_path: Path) -> None:
    for name in ("arnas", "darts_v2"):
        architecture = load_architecture(name).resized(8, 4)
        description = ModelDescription(
            input_shape=(3, 16, 16), class_names=("a", "b"), mean=(0.0,) * 3, std=(1.0,) * 3
        )
        network = build_network(architecture, input_shape=(3, 16, 16), classes=2).eval()
        assert export_source(Model(network, architecture, description), tmp_path / name)[0].is_file()
