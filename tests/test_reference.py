"""The generated reference is up to date, and has every key of every config, every method and every command."""

import re

import make_reference
import pytest
import reference_commands
import typer
from all_registries import CONFIGS, REGISTRIES, named, reachable
from package_files import ROOT

from robust_nas.cli import app
from robust_nas.descriptions import description

FOLDER = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def pages():
    return make_reference.Pages()


@pytest.fixture(scope="module")
def written(pages):
    return pages.all()


def test_the_pages_are_as_the_code_writes_them(written):
    stale = make_reference.out_of_date(written, FOLDER)
    assert not stale, f"out of date: {', '.join(stale)}; run scripts/make_reference.py"


def test_a_page_that_was_edited_removed_or_is_no_longer_written_is_out_of_date(written, tmp_path):
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert make_reference.out_of_date(written, tmp_path) == []
    (tmp_path / "glossary.md").write_text("# Glossary\n")  # by hand
    (tmp_path / "old.md").write_text(make_reference.GENERATED)
    (tmp_path / "command-line.md").unlink()
    (tmp_path / "options/losses.md").write_text(written["options/losses.md"] + "more\n")
    assert make_reference.out_of_date(written, tmp_path) == ["command-line.md", "old.md", "options/losses.md"]


def test_every_registry_and_every_file_of_the_package_is_in_the_reference():
    defined = {
        name
        for path in (ROOT / "robust_nas").rglob("*.py")
        for name in re.findall(r"(?m)^([A-Z_]+) = Registry\(", path.read_text())
    }
    assert sorted(each.partition(":")[2] for each in REGISTRIES) == sorted(defined)
    assert set(CONFIGS) <= make_reference.FILES.keys()


def rows_of(text, heading):
    """Return the rows of the table below a heading, by their first cell."""
    below = re.split(rf"(?m)^#+ {re.escape(heading)}$", text, maxsplit=1)[1]
    section = re.split(r"(?m)^#+ ", below, maxsplit=1)[0]
    return {row[0].strip("` "): row for row in re.findall(r"(?m)^\| ([^|]+) \|(.*)\|$", section)}


def test_every_key_of_every_model_is_described(pages, written):
    """A method's page has the keys that all of its kind have once, at its head."""
    models = reachable([named(target) for target in make_reference.FILES])
    models += [registry.get(name) for registry in pages.registries for name in registry.built_in]
    missing, count = [], 0
    for model in reachable(models):
        page, heading = pages.places[model]
        rows = rows_of(written[page], heading)
        if page != make_reference.CONFIGURATION and heading not in ("Keys of all", model.__name__):
            rows = {**rows_of(written[page], "Keys of all"), **rows}
        for key in model.model_fields:
            count += 1
            words = reference_commands.cell(description(model, key))
            if key not in rows or not words or not rows[key][1].rstrip().endswith(f"| {words}"):
                missing.append(f"{model.__name__}.{key}")
    assert missing == []
    assert count > 1000


def test_a_changed_default_of_a_method_is_in_its_own_table(written):
    assert "| `keep` | `best`, `last` | `last` |" in rows_text(written["options/attacks.md"], "fgsm-rs")
    assert "`fold`" not in rows_text(written["options/attacks.md"], "pgd")


def rows_text(text, heading):
    return "\n".join(f"| {key} |{rest}|" for key, rest in rows_of(text, heading).values())


def test_every_command_option_and_argument_has_a_row_with_its_help(written):
    text, seen = written["command-line.md"], 0
    group = typer.main.get_command(app)
    commands = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        commands |= {f"{name} {sub}": each for sub, each in inner.items()} if inner else {name: command}
    for name, command in commands.items():
        section = re.split(rf"(?m)^##+ {name}$", text, maxsplit=1)[1]
        section = re.split(r"(?m)^##+ ", section, maxsplit=1)[0]
        assert f"robust-nas {name}" in section
        for parameter in command.params:
            if parameter.name == "help":
                continue
            shown = [f"`{each}`" for each in parameter.opts if each.startswith("-")]
            assert all(each in section for each in shown), (name, parameter.name)
            assert parameter.help, (name, parameter.name)
            assert reference_commands.cell(parameter.help) in section, (name, parameter.name)
            seen += 1
    assert seen > 150
