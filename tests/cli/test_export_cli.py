"""`robust-nas export`: its forms, its check, and its mistakes."""

import json

import pytest
from cases import config as run_config

import robust_nas
from robust_nas.workflows import export as job

NETWORK = robust_nas.ResidualArchitecture(name="small", stem=4, depths=(1,), widths=(4,))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return robust_nas.train(run_config(), NETWORK, tmp_path_factory.mktemp("export-cli") / "model")


def test_without_a_format_it_is_plain_source(call, model, tmp_path):
    done = call("export", model, "--out", tmp_path / "out", "--json", "-q")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {
        "folder": str(tmp_path / "out"),
        "forms": {"source": "network.py"},
        "check": None,
        "source": "network.py",
        "weights": "weights.pt",
    }


def test_the_check_prints_every_form_beside_the_model(call, model, tmp_path):
    done = call("export", model, "-f", "all", "--check", "--images", "20", "--out", tmp_path / "out", "-q")
    assert done.code == 0, done.err
    assert "20 test images, logits and clean accuracy" in done.out
    assert done.out.count("same") == 4
    assert "network.onnx" in done.out
    again = call(
        "export", model, "-f", "program", "--check", "--images", "20", "--out", tmp_path / "p", "--json"
    )
    found = json.loads(again.out)["check"]["program"]
    assert found["passes"]
    assert found["disagreement"] <= found["tolerance"] == 1e-4
    assert found["max_difference"] <= 1e-4 * found["largest_logit"]
    assert found["accuracy"] == found["model_accuracy"]
    assert (found["images"], found["file"]) == (20, "network.pt2")


@pytest.mark.parametrize("json_asked", [False, True])
def test_a_form_that_differs_is_exit_code_1(call, model, tmp_path, monkeypatch, json_asked):
    loaded = job._loaded

    def other(form, source):
        exported = loaded(form, source)
        # What is compared before the file gets its name is bytes; what the check reads is the file.
        return exported if isinstance(source, bytes) else lambda x: exported(x) + 1

    monkeypatch.setattr(job, "_loaded", other)
    arguments = ["export", model, "-f", "program", "--check", "--images", "9", "--out", tmp_path / "out"]
    done = call(*arguments, "--json") if json_asked else call(*arguments, "-q")
    assert done.code == 1
    assert "program computes other logits than the model" in done.err
    if json_asked:
        assert not json.loads(done.out)["check"]["program"]["passes"]
    else:
        assert "DIFFERS" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 2, "no model folder"),
        (["MODEL", "-f", "tflite"], 2, "got 'tflite'; allowed: source, onnx, program, hub, all"),
        (["MODEL", "data.limit=10"], 2, "say what --check runs on"),
        (["MODEL", "--recipe", "quickstart"], 2, "say what --check runs on"),
        (["MODEL", "--check", "--images", "0"], 2, "--images"),
        (["MODEL", "-f", "onnx", "--module", "nowhere.py:build"], 2, "got 'nowhere.py:build'"),
        (["nowhere", "--check"], 2, "nowhere"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_and_nothing_is_written(
    call, model, tmp_path, arguments, code, said
):
    done = call("export", *[str(model) if text == "MODEL" else text for text in arguments])
    assert done.code == code, done.err
    assert said in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []
    assert not (model / "export").exists()
