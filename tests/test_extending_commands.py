"""The commands of the page on methods of one's own: each is run as it stands there, with small settings behind it."""

import re
import shlex
import shutil

import pytest
from cases import config
from extending import EXAMPLES, PAGE

import robust_nas
from robust_nas.export import latency

pytestmark = pytest.mark.slow

COMMANDS = re.findall(r"(?m)^    robust-nas (.+)$", PAGE.read_text())
ARCHITECTURE = re.search(r"(?m)^\{type: residual.*$", PAGE.read_text())
ALL = ["data.limit=100", "data.validation=0.2", "checkpoint_seconds=600"]
TRAINING = ["training.epochs=1", "training.validate_from=1", "training.validation_attack.steps=1"]
NETWORK = ["network.cells=4", "network.channels=2"]
SEARCH = ["search.cells=4", "search.channels=2", "space.changes.nodes=1"]
ONE_SHOT = ["search.epochs=2", "search.stage1_epochs=1"]
EVALUATION = ["evaluation.images=16"]
SMALL = {
    "train": [*ALL, *TRAINING, *NETWORK],
    "search": [*ALL, *SEARCH],
    "run": [
        *ALL,
        *TRAINING,
        *NETWORK,
        *SEARCH,
        *ONE_SHOT,
        *EVALUATION,
        "evaluation.suite=quick",
        "compression=null",
    ],
    "evaluate": EVALUATION,
    "compress": [*EVALUATION, "compression.max_loss=0.99"],
}


@pytest.fixture(scope="module")
def architecture():
    """ARNAS at a size for tests."""
    return robust_nas.load_architecture("arnas").resized(4, 2)


@pytest.fixture(scope="module")
def trained(architecture, tmp_path_factory):
    """The model that `robust-nas run quickstart` leaves, but for its size."""
    return robust_nas.train(config(), architecture, tmp_path_factory.mktemp("quickstart") / "model")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command, call, architecture, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "PACKAGES", ("none_such",))  # exports take most of the time of a compression
    for file, text in EXAMPLES.items():
        (tmp_path / file).write_text(text)
    (tmp_path / "mine.yaml").write_text(ARCHITECTURE[0])
    shutil.copytree(trained, tmp_path / "results" / "quickstart" / "model")
    (tmp_path / "small.yaml").write_text(architecture.to_yaml())
    verb, *arguments = shlex.split(command)
    small = [*SMALL[verb], "--quiet", "--out", "out"]
    if "arnas" in arguments:
        small += ["--architecture", "small.yaml"]  # the last one counts
    done = call(verb, *arguments, *small)
    assert done.code == 0, done.err
    files = re.findall(r"\w+\.py", command)
    assert files
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.yaml"))
    if "mine.yaml" not in arguments:  # else it is in the architecture
        assert all(str(tmp_path / file) in written for file in files)
