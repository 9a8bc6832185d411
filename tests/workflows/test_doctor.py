"""`doctor`: a stripped environment is named thing by thing, each with what adds it; a whole one is ok."""

import json
import os
import shutil
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from plugins import install

from robust_nas.attacks import ATTACKS, Attack
from robust_nas.data.fashion_mnist import FashionMNIST
from robust_nas.errors import ConfigError
from robust_nas.registry import Registry
from robust_nas.workflows import doctor as module
from robust_nas.workflows.doctor import doctor

REQUIRES = (
    "torch>=2.10",
    "numpy>=1.26",
    "ray>=2.60; extra == 'ray'",
    "onnx>=1.18; extra == 'export'",
    "robust-nas[ray]; extra == 'dev'",
    "ruff; extra == 'dev'",
)


@pytest.fixture
def installed(monkeypatch):
    """The packages that are there, with their versions; a test changes them."""
    versions = {"torch": "2.13.0+cpu", "numpy": "2.1.0", "ray": "2.60.1", "onnx": "1.19"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(module.metadata, "requires", lambda name: list(REQUIRES))
    monkeypatch.setattr(module.metadata, "version", version)
    extras = SimpleNamespace(get_all=lambda key: ["ray", "export", "dev"])
    monkeypatch.setattr(module.metadata, "metadata", lambda name: extras)
    return versions


def by_name(folder="."):
    return {finding.what: finding for finding in doctor(folder)}


def test_what_is_there_is_ok(installed, tmp_path):
    found = by_name(tmp_path)
    assert {
        "python",
        "packages",
        "torch",
        "cores",
        "extra ray",
        "extra export",
        "data digits",
    } <= found.keys()
    assert not any(one.state == "missing" for name, one in found.items() if not name.startswith("data "))
    assert not any(one.needed for one in found.values())
    assert "extra dev" not in found


def test_each_missing_thing_is_named_with_what_adds_it(installed, tmp_path, monkeypatch):
    del installed["ray"]
    installed["onnx"] = "1.2"
    del installed["numpy"]
    monkeypatch.setattr(FashionMNIST, "default_path", tmp_path / "none")
    monkeypatch.setattr(module, "allocator", lambda: "system")
    found = by_name(tmp_path)
    assert found["extra ray"][1:] == ("missing", "ray is not installed", found["extra ray"].remedy, False)
    assert "pip install -c constraints.txt 'robust-nas[ray]'" in found["extra ray"].remedy
    assert found["extra export"].found == "onnx 1.2, >=1.18 is needed"
    assert found["package numpy"].needed
    assert "numpy>=1.26" in found["package numpy"].remedy
    assert found["data fashion-mnist"].state == "missing"
    assert "apt-get install dataset-fashion-mnist" in found["data fashion-mnist"].remedy
    assert "tcmalloc" in found["allocator"].remedy


def test_torch_that_cannot_be_imported_is_needed(installed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = by_name(tmp_path)
    assert (found["torch"].state, found["torch"].needed) == ("missing", True)
    assert "pip install" in found["torch"].remedy


def test_a_package_that_is_run_from_its_folder_says_so(tmp_path, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "requires", absent)
    assert "is not installed" in by_name(tmp_path)["packages"].found


def test_a_full_disk_and_a_folder_without_permission(installed, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert by_name(tmp_path / "not" / "there")["disk"].state == "note"
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    assert by_name(tmp_path)["disk"].state == "missing"


def test_the_command_prints_each_and_fails_where_a_needed_one_is_missing(installed, call):
    done = call("doctor")
    assert done.code == 0, done.err
    assert "extra ray" in done.out
    del installed["numpy"]
    done = call("doctor", "--json")
    assert done.code == 1
    rows = json.loads(done.out)
    assert [row["what"] for row in rows if row["needed"]] == ["package numpy"]


def test_plugins_are_listed_with_their_packages_and_what_is_wrong_with_them(tmp_path, monkeypatch):
    code = "from robust_nas.attacks import Attack\n\nclass Corners(Attack):\n    pass\n"
    for name, value, text in (("corners", "good:Corners", code), ("torn", "torn:Corners", "import nowhere")):
        (tmp_path / f"{value.partition(':')[0]}.py").write_text(text)
        install(monkeypatch, tmp_path, ATTACKS, name, value)
    install(
        monkeypatch,
        tmp_path,
        Registry("attack", Attack, "", {}, group="robust_nas.attack"),
        "lost",
        "good:Corners",
    )
    found = by_name(tmp_path)
    assert found["plugin corners"][1:3] == ("ok", "attack: good:Corners of corners_good 1.0")
    assert found["plugin torn"].state == "note"
    assert "torn:Corners cannot be imported: No module named 'nowhere'" in found["plugin torn"].found
    assert "did you mean 'robust_nas.attacks'" in found["plugin lost"].found


def test_a_reader_that_cannot_be_made_hides_no_other(installed, tmp_path, monkeypatch):
    get = module.DATASETS.get

    def broken(name):
        if name == "digits":
            raise ConfigError("dataset 'digits': its plugin cannot be imported")
        return get(name)

    monkeypatch.setattr(module.DATASETS, "get", broken)
    found = by_name(tmp_path)
    assert found["data digits"].state == "note"
    assert "cannot be imported" in found["data digits"].found
    assert "data fashion-mnist" in found
