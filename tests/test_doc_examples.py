"""The commands and Python blocks of README, tutorials and how-to pages work.

Every command has a verb, arguments and options that exist. Where a verb has `--print-config`, its config resolves with
the overrides of the page. Every page is run from top to bottom in a folder of its own, with the reductions of
`page_tables.py`; what is not run is there too, with the reason. `test_extending_commands.py` runs the page on methods
of one's own.
"""

import re
import runpy
import shlex
import shutil
import sys
from functools import cache

import pytest
import typer
from examples_in_docs import PAGES, Block, Command, blocks, commands, name_of, parts
from package_files import ROOT
from page_tables import (
    MORE,
    NOT_RUN,
    NOT_RUN_BLOCKS,
    QUICK,
    REDUCED,
    TEXTS,
    reason,
    small_settings,
    texts_of,
    write_readers_files,
)

import robust_nas
from robust_nas.cli import app
from robust_nas.export import latency

SHIPPED = (
    "quickstart",
    "fashion",
    "dsara-cifar10",
    "huang-width-last",
    "flowers.yaml",
    "widths.yaml",
    "results/",
)
PRINTS = ("run", "search", "train", "evaluate", "compress", "defend", "compare", "study run")


@cache
def verbs():
    """Return every verb by its words."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {sub}": each for sub, each in inner.items()} if inner else {name: command}
    return found


def split(words):
    """Return the verb and the other words of a `robust-nas` command, also one under torchrun."""
    rest = words[words.index("robust_nas") + 1 :] if words[0] == "torchrun" else words[1:]
    two = " ".join(rest[:2])
    return (two, rest[2:]) if two in verbs() else (rest[0], rest[1:])


def flaws(words):
    """Return what is wrong with the options and the number of arguments of a command."""
    verb, rest = split(words)
    if verb not in verbs():
        return [f"no verb {verb!r}"]
    parameters = verbs()[verb].params
    options = {name: each for each in parameters for name in each.opts if name.startswith("-")}
    arguments, found, rest = [], [], list(rest)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            arguments.append(word)
        elif word.partition("=")[0] not in options:
            found.append(f"no option {word}")
        elif "=" not in word and not options[word].is_flag and not rest:
            found.append(f"{word} without a value")
        elif "=" not in word and not options[word].is_flag:
            rest.pop(0)
    needed = [each for each in parameters if each.required and not each.opts[0].startswith("-")]
    if len(arguments) < len(needed) and "--resume" not in words:
        found.append(f"{len(arguments)} arguments, {len(needed)} are needed")
    return found


def foreign_flaws(words):
    """Return what is wrong with a command of another program: files and extras that are not there, unknown flags."""
    text = (ROOT / "pyproject.toml").read_text()
    extras = [extra for word in words for extra in re.findall(r"robust-nas\[([\w,]+)\]", word)]
    found = [f"no extra {extra}" for extra in extras if f"\n{extra} = [" not in text]
    files = [word for word in words if word.startswith("scripts/") or word == "constraints.txt"]
    found += [f"no file {file}" for file in files if not (ROOT / file).exists()]
    for file in files:
        if words[0] == "python":
            flags = [word for word in words if word.startswith("--")]
            found += [f"no option {flag}" for flag in flags if f'"{flag}"' not in (ROOT / file).read_text()]
    return found


def is_template(command):
    return any(word in ("...", "MODEL", "RECIPE") for word in command.words)


@pytest.mark.parametrize("command", commands(), ids=str)
def test_verb_arguments_and_options_exist(command):
    ours = command.words[0] in ("robust-nas", "torchrun")
    if not is_template(command):
        assert (flaws(command.words) if ours else foreign_flaws(command.words)) == []


def test_a_wrong_command_is_found():
    assert flaws(shlex.split("robust-nas serch quickstart")) == ["no verb 'serch'"]
    assert "no option --sedes" in flaws(shlex.split("robust-nas search quickstart --sedes 3"))
    assert flaws(shlex.split("robust-nas search quickstart --seeds")) == ["--seeds without a value"]
    assert flaws(shlex.split("robust-nas search quickstart --seeds 3 --quiet a=b")) == []
    assert foreign_flaws(shlex.split("pip install 'robust-nas[nothing]' -c constraints.txt")) == [
        "no extra nothing"
    ]
    assert foreign_flaws(shlex.split("python scripts/evidence_rank.py nb201 --tabel x")) == [
        "no option --tabel"
    ]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The folder that `robust-nas run quickstart` leaves, at a size for tests."""
    folder = tmp_path_factory.mktemp("quickstart") / "results" / "quickstart"
    config = robust_nas.load_config("quickstart", [*REDUCED["run"], "reference=null"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(latency, "PACKAGES", ("none_such",))
        robust_nas.run(config, folder)
        reference = folder / "reference" / "model"
        robust_nas.train(config, robust_nas.load_architecture("wrn-10-1"), reference)
        options = [*QUICK, "compression.gdws.budgets=[0.5]"]
        robust_nas.compress(
            robust_nas.compression_config(reference, "gdws", options), reference, folder / "compressed"
        )
    return folder


@pytest.fixture
def workspace(quickstart, tmp_path, monkeypatch):
    """An empty folder with `results/quickstart` in it, and the files of its pages' blocks."""
    shutil.copytree(quickstart, tmp_path / "results" / "quickstart")
    monkeypatch.setattr(latency, "PACKAGES", ("none_such",))  # exports take most of the time of a compression
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [name for name in sys.modules if name in ("net", "train_net")]:
        monkeypatch.delitem(sys.modules, module)
    return tmp_path


def resolves(command):
    """Return whether a command prints its config and begins from what is there."""
    if command.words[0] != "robust-nas" or is_template(command) or "--resume" in command.words:
        return False
    verb, rest = split(command.words)
    there = [word for word in rest if word.startswith(SHIPPED)]
    own_files = any(re.search(r"\w\.(py|npz|csv)\b", word) for word in rest)
    missing = any(
        word in ("results/model", "results/random", "results/control", "results/flowers-wrn")
        or "compressed" in word
        or "defended" in word
        for word in rest
    )
    return verb in PRINTS and bool(there) and not own_files and not missing


@pytest.mark.slow
def test_the_config_of_every_command_resolves(workspace, call):
    (workspace / "flowers").mkdir()
    for block in blocks("yaml"):
        if block.file in ("flowers.yaml", "widths.yaml"):
            (workspace / block.file).write_text(block.text)
    (workspace / "random.yaml").write_text(robust_nas.load_architecture("arnas").to_yaml())
    asked = list(dict.fromkeys(command.words for command in commands() if resolves(command)))
    assert len(asked) > 25
    wrong = {}
    for words in asked:
        done = call(*words[1:], *([] if "--print-config" in words else ["--print-config"]))
        if done.code or "name:" not in done.out:
            wrong[shlex.join(words)] = done.err
    assert wrong == {}


def run_command(command, call, workspace):
    """Run a command of a page with its reductions."""
    verb, _ = split(command.words)
    words = [
        "--architecture=small.yaml" if word == "arnas" and verb == "train" else word
        for word in command.words[1:]
    ]
    words = [word for word in words if word != "--architecture" or "--architecture=small.yaml" not in words]
    done = call(*words, *small_settings(command, verb))
    assert done.code == 0, f"{command}: {done.err[-2000:]}"
    if command.output:
        (workspace / command.output).write_text(done.out)


def run_block(block, workspace):
    """Run a Python block of a page, or write the file that it is."""
    file = workspace / (block.file or "block.py")
    file.write_text(texts_of(block))
    if block.kind == "python" and (not block.file or block.file == "train_net.py"):
        runpy.run_path(str(file), run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_page_runs_from_top_to_bottom(page, workspace, call):
    (workspace / "small.yaml").write_text(robust_nas.load_architecture("arnas").resized(4, 2).to_yaml())
    if page.parent.name == "how-to":
        write_readers_files(workspace)
    for part in parts(page):
        if isinstance(part, Block):
            if part.kind == "yaml" or part.file or part.page not in NOT_RUN_BLOCKS:
                run_block(part, workspace)
        elif not reason(part) and not is_template(part):
            if part.words[1:3] == ("predict", "results/flowers/model"):
                part = Command(part.page, (*part.words[:2], "results/flowers-try/model", *part.words[3:]))
            if part.words[1:] == ("run", "quickstart"):
                shutil.rmtree(workspace / "results" / "quickstart")
            run_command(part, call, workspace)


@pytest.mark.parametrize("patterns", [MORE, NOT_RUN], ids=["reductions", "reasons"])
def test_every_pattern_is_about_a_command(patterns):
    assert [
        pattern for pattern in patterns if not any(re.search(pattern, str(each)) for each in commands())
    ] == []


def test_every_reduced_text_and_every_reason_is_about_a_block():
    found = blocks("python")
    unused = [
        place
        for place, (old, _) in TEXTS.items()
        if not any(old in each.text and place in (each.file, each.page) for each in found)
    ]
    assert unused == []
    assert NOT_RUN_BLOCKS.keys() <= {each.page for each in found}
