"""The commands and Python blocks of README, tutorials and how-to pages work.

Every command has a verb, arguments and options that exist. Where a verb has `--print-config`, its config resolves with
the overrides of the page. README and the tutorials are run in their order, with the reductions of `REDUCED`; what is
not run is in `NOT_RUN`, with the reason. `test_extending_commands.py` runs the page on methods of one's own.
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

import robust_nas
from robust_nas.cli import app
from robust_nas.export import latency

# The reductions: overrides and options behind the page's own, by verb, and texts of Python blocks.
DATA = ["data.limit=100", "data.validation=0.2", "checkpoint_seconds=600"]
TRAINING = ["training.epochs=1", "training.validate_from=1", "training.validation_attack.steps=1"]
NETWORK = ["network.cells=4", "network.channels=2"]
SEARCH = [
    "search.cells=4",
    "search.channels=2",
    "search.epochs=2",
    "search.stage1_epochs=1",
    "space.changes.nodes=1",
]
QUICK = ["evaluation.suite=quick", "evaluation.images=8", "evaluation.findings=none"]
STUDY = [
    "seeds=1",
    "space.0.axes={widths.2: [16, 64]}",
    "data.limit=100",
    "training.epochs=1",
    "training.validate_every=1",
    "metrics.images=16",
    "guard.max_hours=24",
    "analysis.draws=200",
]
REDUCED = {
    "run": [*DATA, *TRAINING, *NETWORK, *SEARCH, *QUICK, "compression=null"],
    "search": [*DATA, *NETWORK, *SEARCH],
    "train": [*DATA, *TRAINING],
    "evaluate": QUICK,
    "compress": [
        *QUICK,
        "compression.max_loss=0.99",
        "compression.cstar.epochs=1",
        "compression.cstar.finetune_epochs=1",
        "--ratio=1.1",
    ],
    "attack run": ["--images", "4", "steps=2"],
    "defend": ["images=16"],
    "study run": STUDY,
}
REDUCED_TEXTS = {
    "README.md": ('"cascade", images=100', '"quick", images=8'),
    "tutorials/own-model.md": ('"quick", images=50', '"quick", images=8'),
    "how-to/configs.md": ("config =", "import robust_nas\n\nconfig ="),
    "how-to/defences.md": ('["quality=50"]', '["quality=50", "images=16"]'),
    "train_net.py": ("range(10)", "range(1)"),
    # the folder of the command above it: workers take ten seconds to start
    "tutorials/width-study.md": (
        "robust_nas.run_study(config)",
        '__import__("pathlib").Path("results/huang-width-last-ci")',
    ),
    "tutorials/own-images.md": (
        "enumerate(zip(images.pixels, images.labels))",
        "enumerate(zip(images.pixels[:150], images.labels))",
    ),
}
# What is not run, and why: flags, and where there is one the config, are checked all the same.
NOT_RUN = {
    r"README.md: .* search quickstart --seeds 3": "tests/cli/test_search_cli.py repeats a search",
    r"README.md: .* --suite autoattack": "minutes; tests/attacks/test_autoattack.py runs it",
    r"README.md: .* compare ": "trials in workers; tests/cli/test_compare_cli.py runs it",
    r"README.md: .* study run": "the tutorial on width runs it",
    r"README.md: .* evaluate --module": "the tutorial on own models runs it",
    r"README.md: .* rank ": "tests/workflows run it; its batches have a least size",
    r"tutorials/own-images.md: .* run flowers.yaml$": "the try before it is the same job with fewer images",
    r"tutorials/width-study.md: .* plan": "it times steps; tests/cli/test_study_cli.py runs it",
    r"tutorials/width-study.md: .* run huang.* --resume": "tests/cli/test_study_cli.py adds seeds",
    r"tutorials/width-study.md: .* run widths.yaml": "as the study above it; the Python block reads it",
    r"tutorials/logistic.md: ": "tests/statistics/test_logistic_tutorial.py runs the script",
    r"bash scripts/": "sets up the machine; what it calls is `run quickstart`, or this suite",
}
RUN_PAGES = [page for page in PAGES if page.parent.name != "how-to"]
RUN_HOW_TO = r"^how-to/(defences.*(jpeg|defended/model$)|configs.*schema|export.*/quickstart/model$)"
NOT_RUN_BLOCKS = {
    "how-to/comparisons.md": "nine trainings in workers; tests/studies runs one",
    "how-to/compression.md": "its folder and module are the reader's; tests/compression runs both",
    "how-to/export.md": "its images are the reader's; tests/export runs ONNX Runtime",
    "how-to/nni.md": "NNI may be absent; tests/integrations runs the bridge",
    "how-to/studies.md": "twelve trainings; the tutorial on width runs a study",
    "how-to/python.md": "its images are the reader's; tests/workflows/test_own_data.py makes these calls",
    "how-to/watching.md": "packages that are not there; test_watching_page.py runs them against imitations",
    "how-to/extending.md": "files; test_extending.py runs them",
}
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
    """The folder with the model that `robust-nas run quickstart` leaves, at a size for tests."""
    folder = tmp_path_factory.mktemp("quickstart") / "results" / "quickstart"
    config = robust_nas.load_config("quickstart", [*REDUCED["train"], "evaluation.images=8"])
    robust_nas.train(config, robust_nas.load_architecture("arnas").resized(4, 2), folder / "model")
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
        word in ("results/model", "results/random", "results/control")
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


def reason(command):
    """Return why a command is not run; empty where it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, str(command))), "")


def run_command(command, call, workspace):
    """Run a command of a page with the reductions of its verb."""
    verb, _ = split(command.words)
    small = [] if "--print-config" in command.words or "--module" in command.words else REDUCED.get(verb, [])
    if "--module" in command.words:
        small = ["evaluation.findings=none", "evaluation.suite=quick"]
    words = [
        "--architecture=small.yaml" if word == "arnas" and verb == "train" else word
        for word in command.words[1:]
    ]
    words = [word for word in words if word != "--architecture" or "--architecture=small.yaml" not in words]
    done = call(*words, *small)
    assert done.code == 0, f"{command}: {done.err[-2000:]}"
    if command.output:
        (workspace / command.output).write_text(done.out)


def run_block(block, workspace):
    """Run a Python block of a page, or write the file that it is."""
    text = block.text
    for place in (block.file, block.page):
        if place in REDUCED_TEXTS:
            old, new = REDUCED_TEXTS[place]
            text = text.replace(old, new)
    file = workspace / (block.file or "block.py")
    file.write_text(text)
    if block.kind == "python" and block.file != "net.py":
        runpy.run_path(str(file), run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES, ids=name_of)
def test_the_page_runs_from_top_to_bottom(page, workspace, call):
    (workspace / "small.yaml").write_text(robust_nas.load_architecture("arnas").resized(4, 2).to_yaml())
    done = 0
    for part in parts(page):
        if isinstance(part, Block):
            run_block(part, workspace)
        elif isinstance(part, Command) and not reason(part):
            if part.words[1:3] == ("predict", "results/flowers/model"):
                part = Command(part.page, (*part.words[:2], "results/flowers-try/model", *part.words[3:]))
            if part.words[1:] == ("run", "quickstart"):
                shutil.rmtree(workspace / "results" / "quickstart")
            run_command(part, call, workspace)
        else:
            continue
        done += 1
    assert done > 0 or page.stem == "logistic"


@pytest.mark.slow
def test_short_commands_of_the_how_to_pages_run(workspace, call):
    chosen = [each for each in commands() if re.search(RUN_HOW_TO, str(each))]
    assert len(chosen) >= 4
    for command in chosen:
        run_command(command, call, workspace)


@pytest.mark.slow
def test_a_python_block_of_the_how_to_pages_runs_or_says_why_not(workspace):
    ran = 0
    for block in blocks("python"):
        if block.page.startswith("how-to") and not block.file:
            compile(block.text, block.page, "exec")
            if block.page not in NOT_RUN_BLOCKS:
                run_block(block, workspace)
                ran += 1
    assert ran == 2


def test_every_reason_is_about_a_command():
    unused = [pattern for pattern in NOT_RUN if not any(re.search(pattern, str(each)) for each in commands())]
    assert unused == []


def test_every_reduced_text_is_in_a_block():
    places = [(place, old) for place, (old, _) in REDUCED_TEXTS.items()]
    unused = [
        place
        for place, old in places
        if not any(old in each.text and place in (each.file, each.page) for each in blocks("python"))
    ]
    assert unused == []
