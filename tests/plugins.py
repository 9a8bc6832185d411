"""A package with an entry point, as `pip install` leaves it, for the tests of plugins."""

import sys
from importlib.metadata import entry_points


def install(monkeypatch, folder, registry, name, value):
    """Install the modules of `folder` as a package whose entry point `name` is `value`, until the test ends."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.group}]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(folder)
    module = value.partition(":")[0]
    monkeypatch.setitem(sys.modules, module, None)
    del sys.modules[module]  # another test's, which comes back; what this test imports goes
    monkeypatch.setattr(registry, "_found", {})
    found = {entry.name: entry for entry in entry_points(group=registry.group)}
    monkeypatch.setitem(registry.__dict__, "_plugins", found)  # what the registry has looked up before
