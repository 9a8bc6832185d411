"""`robust-nas evaluate` of a module from a user's own file, end to end."""

import json
from pathlib import Path

import pytest
import torch
from cli_outcome import Call
from safetensors.torch import save_file
from torch import nn

SOURCE = """
from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn

from part import Scaled  # a neighbour of this file


@dataclass
class Size:
    classes: int = 10


def build():
    torch.manual_seed(0)
    return Scaled(nn.Sequential(nn.Flatten(), nn.Linear(64, Size().classes)), 1.0)


def softmax():
    return nn.Sequential(build(), nn.Softmax(1))


def more():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12))


def prints():
    print("built")
    os.chdir("/")
    return build()


def doubles():
    torch.set_default_dtype(torch.float64)
    return build()


def nothing():
    return 3


def fails():
    raise KeyError("backbone")


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


def meta():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10, device="meta"))


def wrong_shape():
    return nn.Sequential(nn.Flatten(), nn.Linear(63, 10))


value = 4
"""
PART = """
from torch import nn


class Scaled(nn.Module):
    def __init__(self, network, scale):
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x):
        return self.scale * self.network(x)
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A folder with the user's file, its neighbour, and weights of a linear classifier of the digits."""
    from robust_nas import DataOptions, load_dataset

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "net.py").write_text(SOURCE)
    (folder / "part.py").write_text(PART)
    train = load_dataset(DataOptions(name="digits"), seed=0).train
    x, y = train.pixels.float().flatten(1) / 255, nn.functional.one_hot(train.labels, 10).float()
    weight = torch.linalg.solve(x.T @ x + torch.eye(64), x.T @ (y - 0.1)).T  # ridge regression
    save_file(
        {"network.1.weight": 10 * weight.contiguous(), "network.1.bias": torch.zeros(10)},
        folder / "weights.safetensors",
    )
    return folder


def options(net: Path, function: str = "build", *more: object) -> list[object]:
    start = ["evaluate", "--module", f"{net / 'net.py'}:{function}", "--data", "digits", "--eps", "0.1"]
    return [*start, "--suite", "quick", "--images", "16", "device=cpu", *more]


WEIGHTS = ("--weights", "mine/weights.safetensors")


@pytest.mark.usefixtures("rendered")
def test_a_module_is_evaluated_end_to_end(call: Call, net: Path, tmp_path: Path) -> None:
    done = call(*options(net, "build", *WEIGHTS, "--quiet"))
    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "results" / "net-evaluation"
    tree = json.loads((folder / "evaluation.json").read_text())
    assert tree["clean"]["accuracy"] > 0.8  # those were the weights, and not those that it was built with
    assert tree["robust"]["images"] == 16
    assert tree["model"].endswith("mine/net.py:build")
    assert tree["threat_model"] == {"norm": "linf", "eps": 0.1, "box": [0.0, 1.0]}
    for fragment in (
        "pgd-20",
        "worst case",
        "verdict: ",
        tree["verdict"]["status"],
        "active test",
        "evaluation.json",
        "eps 0.1, suite quick",
    ):
        assert fragment in done.out
    for reason in tree["verdict"]["reasons"]:
        assert reason in done.out
    assert (folder / "figures" / "evaluation.png").stat().st_size > 1000
    # Again: the folder is there.
    again = call(*options(net, "build", *WEIGHTS))
    assert again.code == 2
    assert "--resume" in again.err
    shown = {"folder": "results/net-evaluation", **tree}
    found = call(*options(net, "build", *WEIGHTS, "--resume", "--json"))
    assert found.out == json.dumps(shown, indent=2) + "\n"
    other = call(*options(net, "build", "--resume"))  # without the weights it is another model
    assert other.code == 2
    assert "different: digest" in other.err


def test_a_module_that_prints_and_changes_folder_leaves_one_document_in_the_usual_folder(
    call: Call, net: Path, tmp_path: Path
) -> None:
    done = call(*options(net, "prints", "--quiet", "--json"))
    assert json.loads(done.out)["robust"]["images"] == 16
    assert done.err == "built\n"
    assert (tmp_path / "results" / "net-evaluation" / "evaluation.json").is_file()
    assert Path.cwd() == tmp_path


def test_a_module_that_sets_a_default_of_torch_is_refused(call: Call, net: Path, tmp_path: Path) -> None:
    done = call(*options(net, "doubles"))
    assert done.code == 2
    assert "sets torch's default to torch.float64 (was torch.float32)" in done.err
    assert torch.get_default_dtype() == torch.float32
    assert not (tmp_path / "results").exists()


TRAINED = (
    "warning: net.py:build was not trained by robust_nas, which made this split: it may have been trained"
)
AS_BUILT = "warning: no weights were given for net.py:build: unless its function loads some, they are random"


def test_what_a_reader_has_to_know_is_printed_and_recorded(call: Call, net: Path, tmp_path: Path) -> None:
    done = call(*options(net, "build", *WEIGHTS, "--quiet", "--out", tmp_path / "out"))
    tree = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert "tested: 16 of the 360 test images of digits (split by robust_nas, for want of" in done.out
    assert TRAINED in done.out
    assert AS_BUILT not in done.out
    assert tree["weights"] == "weights.safetensors"
    assert [warning["text"] for warning in tree["warnings"]] == [TRAINED_TEXT]
    width = 100 * tree["robust"]["precision"]["width"]
    needed = tree["robust"]["precision"]["images"]
    assert (
        f"its 95 % interval is {width:.1f} points wide; about {needed:,} images would give 6 points"
        in done.out
    )
    assert ", the test set has 360" in done.out
    assert f"  next: {tree['verdict']['next_step']}" in done.out
    assert f"for a paper: {tree['sentence']}" in done.out
    assert "The model net was evaluated on 16 of the 360 test images of digits" in tree["sentence"]
    assert TRAINED_TEXT in tree["sentence"]
    gaps = [finding for finding in tree["findings"] if finding["status"] == "NOT RUN"]
    assert gaps
    for finding in gaps:
        assert f"{finding['name']}: {finding['text']}" in done.out


TRAINED_TEXT = (
    "net.py:build was not trained by robust_nas, which made this split: it may have been trained on most of these test "
    "images, and its accuracies may be too high"
)


def test_random_weights_and_other_classes_are_warned_of(call: Call, net: Path, tmp_path: Path) -> None:
    done = call(*options(net, "build", "--quiet", "--out", tmp_path / "out"))
    assert AS_BUILT in done.out
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["weights"] == "as built"
    done = call(*options(net, "more", "--quiet", "--out", tmp_path / "more"))
    assert "warning: the model has 12 classes, digits has 10: a further one can be an answer" in done.out


def test_json_prints_the_tree_and_nothing_else(call: Call, net: Path, tmp_path: Path) -> None:
    done = call(*options(net, "build", *WEIGHTS, "--json", "--out", tmp_path / "out"))
    assert done.code == 0
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert json.loads(done.out) == {"folder": str(tmp_path / "out"), **record}
    assert "evaluate: clean: " in done.err  # progress goes beside it


@pytest.mark.parametrize(
    ("function", "verdict", "code"), [("softmax", "UNRELIABLE", 1), ("build", "INCONCLUSIVE", 0)]
)
def test_strict_exits_with_1_where_the_verdict_is_unreliable(
    call: Call, net: Path, tmp_path: Path, function: str, verdict: str, code: int
) -> None:
    weights = WEIGHTS if function == "build" else ()
    done = call(*options(net, function, *weights, "--strict", "--quiet", "--out", tmp_path / "out"))
    assert f"verdict: {verdict}" in done.out
    assert done.code == code
    assert ("error: the verdict is UNRELIABLE (--strict)" in done.err) == (code == 1)
    lenient = call(*options(net, function, *weights, "--quiet", "--out", tmp_path / "lenient"))
    assert lenient.code == 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("biuld", "has no function 'biuld'"),
        ("value", "has no function 'value'"),
        ("nothing", "built int; a torch.nn.Module is needed"),
        ("fails", "fails: KeyError: 'backbone'"),
        ("lazy", "1.weight has no shape yet; give the model a batch"),
        ("meta", "1.weight is on the meta device and has no values; build the model on a real device"),
        ("not a name", "an existing Python file and a function in it are needed"),
    ],
)
def test_a_module_that_is_none(call: Call, net: Path, tmp_path: Path, function: str, message: str) -> None:
    refused(call(*options(net, function)), 2, message)
    assert not (tmp_path / "results").exists()


def refused(done: object, code: int, message: str) -> None:
    assert done.code == code  # type: ignore[attr-defined]
    err: str = done.err  # type: ignore[attr-defined]
    assert done.out == ""  # type: ignore[attr-defined]
    assert message in err
    assert "Traceback" not in err
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1


@pytest.mark.parametrize("text", ["def build(:", "import nosuchpackage", "raise SystemExit(3)", "1 / 0"])
def test_a_file_that_cannot_be_run(call: Call, net: Path, text: str) -> None:
    (net / "net.py").write_text(text)
    refused(call(*options(net)), 2, "fails: ")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"network.1.weight": torch.zeros(10, 63), "network.1.bias": torch.zeros(10)}, "[10, 63]"),
        ({"network.1.weight": torch.zeros(10, 64)}, "network.1.bias is missing"),
        (
            {"network.1.weight": torch.zeros(10, 64), "network.1.bias": torch.zeros(10), "x": torch.zeros(1)},
            "x is foreign",
        ),
        ({"network.1.weight": torch.zeros(10, 64).half(), "network.1.bias": torch.zeros(10)}, "F16"),
    ],
)
def test_weights_of_another_module(
    call: Call, net: Path, tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    save_file(tensors, net / "weights.safetensors")
    refused(call(*options(net, "build", *WEIGHTS)), 1, message)
    assert not (tmp_path / "results").exists()


def test_weights_that_are_no_safetensors_file(call: Call, net: Path) -> None:
    (net / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    refused(call(*options(net, "build", *WEIGHTS)), 1, "no safetensors file")
    (net / "weights.safetensors").unlink()
    refused(call(*options(net, "build", *WEIGHTS)), 1, "no such file")


def test_a_module_that_does_not_take_these_images(call: Call, net: Path) -> None:
    done = call(*options(net, "wrong_shape", "--quiet"))
    refused(done, 1, "the model cannot take images of shape (1, 8, 8)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--weights", "w.safetensors", "folder"], "--weights goes with --module"),
        (["evaluate"], "name a model folder, or a module"),
        (["evaluate", "nowhere"], "nowhere: is no model folder; it does not exist"),
        (["evaluate", "results/model", "--module", "net.py:build"], "results/model"),
        (["evaluate", "--module", "net.py:build", "--eps", "0.1"], "name the images that the module takes"),
        (["evaluate", "--module", "no.py:build", "--eps", "0.1", "--data", "digits"], "existing Python file"),
        (["evaluate", "--module", "mine/net.py:build", "--data", "digits"], "--eps is missing"),
        (["evaluate", "--module", "mine/net.py:build", "--data", "digits", "--eps", "x"], "'x'"),
        (["evaluate", "--module", "mine/net.py:build", "--data", "no/folder", "--eps", "0.1"], "no folder"),
        (
            ["evaluate", "--module", "mine/net.py:build", "--data", "digits", "--eps", "0.1", "--suite", "x"],
            "'x'",
        ),
    ],
)
def test_mistakes_on_the_command_line(
    call: Call, net: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = call(*arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not (tmp_path / "results").exists()


def test_the_printed_config_names_the_suite(call: Call, net: Path) -> None:
    done = call(*options(net, "build", "--norm", "l2", "--print-config"))
    assert (done.code, done.err) == (0, "")
    for line in ("  suite: quick", "    norm: l2", "    eps: 0.1", "  images: 16", "name: net"):
        assert line in [printed.partition("  # ")[0] for printed in done.out.splitlines()]


def test_weights_for_a_type_that_the_file_format_does_not_have(call: Call, net: Path) -> None:
    source = (net / "net.py").read_text()
    buffer = 'net.register_buffer("f", torch.zeros(2, dtype=torch.complex64))'
    more = f"def complex_buffer():\n    net = build()\n    {buffer}\n    return net\n"
    (net / "net.py").write_text(f"{source}\n\n{more}")
    refused(call(*options(net, "complex_buffer", *WEIGHTS)), 1, "f is missing")
