"""What may not be read is said to be so, what may not be written is shown, and SIGTERM is answered."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cases import CONFIG, config
from cli_outcome import Call
from run_configs import files

import robust_nas
from robust_nas.config import to_yaml
from robust_nas.errors import CheckpointError, RobustNASError

NETWORK = robust_nas.ResidualArchitecture(name="small", stem=4, depths=(1,), widths=(4,))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model and its evaluation."""
    folder = tmp_path_factory.mktemp("made")
    robust_nas.train(config(), NETWORK, folder / "model")
    robust_nas.run_evaluation(robust_nas.workflows.config.model_config(folder / "model"), folder / "model")
    return folder


@pytest.fixture
def closed(tmp_path: Path, without_override: None) -> Iterator[Path]:
    """Return a folder that nobody may read."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "words",
    [
        "evaluate {0}/model",
        "evaluate {0}",
        "export {0}/model",
        "compress {0}/model",
        "count {0}/model",
        "count {0}/a.yaml",
        "spaces show {0}/a.yaml",
        "search {0}/x.yaml",
        "run {0}/x.yaml",
        "study run {0}/s.yaml",
        "study status {0}/s",
        "study report {0}/s",
        "run quickstart --out {0}/r",
    ],
)
def test_what_may_not_be_read_is_said_to_be_so(words: str, call: Call, closed: Path) -> None:
    done = call(*words.format(closed).split())
    assert done.code in (1, 2)
    assert done.err.startswith(f"error: {closed}")
    assert "Permission denied" in done.err


def test_weights_that_may_not_be_read_are_no_damaged_file(
    made: Path, tmp_path: Path, without_override: None
) -> None:
    shutil.copytree(made / "model", tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").chmod(0)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read: Permission denied"):
        robust_nas.load_model(tmp_path / "m")


def test_a_finished_job_is_shown_where_nothing_may_be_written(
    made: Path, tmp_path: Path, call: Call, protect: Callable[[Path], None]
) -> None:
    fixed = tmp_path / "fixed"
    shutil.copytree(made, fixed)
    protect(fixed)
    before = files(fixed)
    recipe = fixed.with_name("recipe.yaml")
    recipe.write_text(to_yaml(CONFIG))
    fixed.with_name("small.yaml").write_text(NETWORK.to_yaml())
    done = call("evaluate", fixed / "model", "--resume", "--quiet")
    assert (done.code, "verdict" in done.out) == (0, True), done.err
    words = ("train", recipe, "--architecture", fixed.with_name("small.yaml"), "--out", fixed / "model")
    done = call(*words, "--resume", "--quiet")
    assert (done.code, "validation split" in done.out) == (0, True), done.err
    assert call(*words, "seed=6", "--resume").code == 2
    done = call("evaluate", fixed / "model", "--overwrite", "--quiet")
    assert (done.code, "cannot be written" in done.err) == (1, True)
    assert files(fixed) == before


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Answer SIGINT, which a shell's background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_signals_end_a_verb_with_a_sentence(
    number: signal.Signals, code: int, word: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), number)
        except Exception as error:
            raise RobustNASError("caught") from error

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("robust_nas.workflows.config.load_config", ended)
    done = call("search", "quickstart")
    assert done.code == code
    assert done.err.startswith(f"{word}; what was written stays, the last checkpoint too")
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_is_answered_where_a_library_makes_an_error_of_its_exception(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallowed(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:  # as torch.onnx does
            raise RobustNASError("torch cannot export this module") from error

    monkeypatch.setattr("robust_nas.workflows.config.load_config", swallowed)
    done = call("search", "quickstart")
    assert (done.code, done.err.partition(";")[0]) == (143, "terminated")
