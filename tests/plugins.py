"""A package with an entry point, as `pip install` leaves it, for the tests of plugins."""

from importlib.metadata import entry_points


def install(monkeypatch, folder, registry, name, value):
    """Install the modules of `folder` as a package whose entry point `name` is `value`, until the test ends."""
    info = folder / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.group}]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(registry, "_found", {})
    found = {entry.name: entry for entry in entry_points(group=registry.group)}
    monkeypatch.setitem(registry.__dict__, "_plugins", found)  # what the registry has looked up before
