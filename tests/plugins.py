"""A package with an entry point, as `pip install` leaves it, for the tests of plugins."""

import sys
from importlib.metadata import entry_points

from robust_nas.registry import Registry


def install(monkeypatch, folder, registry, name, value):
    """Install the modules of `folder` as a package whose entry point `name` is `value`, until the test ends."""
    package = f"{name}_{value.partition(':')[0]}".replace("-", "_")
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.group}]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(folder)
    module = value.partition(":")[0]
    monkeypatch.setitem(sys.modules, module, None)
    del sys.modules[module]  # another test's, which comes back; what this test imports goes
    monkeypatch.setattr(registry, "_found", {})
    monkeypatch.setattr("robust_nas.registry._installed", entry_points)  # what was looked up before
    monkeypatch.setitem(registry.__dict__, "_plugins", Registry._plugins.func(registry))
