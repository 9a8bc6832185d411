"""Extensions that fail, that take back, or that name an attack twice; and what a request from before them gets."""

import pytest
from cases import config

import robust_nas
from robust_nas import user_code
from robust_nas.config import read_yaml, to_yaml_dict
from robust_nas.errors import AttackError, CodeRefusedError, RunError, RunExistsError
from robust_nas.nets import read_model
from robust_nas.record_log import RecordLog
from robust_nas.workflows import compress_measures
from robust_nas.workflows.config import EvaluationConfig
from robust_nas.workflows.evaluate import evaluate_job

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
SQUARE = "evaluation.attacks=[{attack: {name: square, queries: 3}}]"
GRADIENT = "evaluation.attacks=[{attack: {name: square, queries: 3}}, {attack: {name: fgsm}}]"
BLACK_BOX = """
import torch

class BlackBox(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, x):
        if x.requires_grad:
            raise RuntimeError("no gradient here")
        return self.linear(x.flatten(1))

def build():
    torch.manual_seed(0)
    return BlackBox()
"""


@pytest.fixture
def evaluate(tmp_path):
    (tmp_path / "net.py").write_text(BLACK_BOX)

    def evaluate(*overrides):
        asked = config("evaluation.images=12", "evaluation.findings=none", SQUARE, *overrides)
        return robust_nas.run_evaluation(
            asked,
            f"{tmp_path / 'net.py'}:build",
            tmp_path / "out",
            mode="resume",
            allow_code=[tmp_path / "net.py"],
        )

    return evaluate


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_extension_that_fails_leaves_the_finished_evaluation(evaluate, tmp_path):
    first = evaluate()
    before = contents(tmp_path / "out")
    with pytest.raises(AttackError, match="no gradient here"):
        evaluate("evaluation.images=20", GRADIENT)  # after the images of the first attack were done
    assert contents(tmp_path / "out") == before
    assert evaluate() == first
    assert evaluate("evaluation.images=20")["clean"]["images"] == 20


def test_an_extension_without_room_for_its_records_continues(evaluate, tmp_path, monkeypatch):
    evaluate()
    real, saved = RecordLog.append, []

    def append(log, name, record):
        saved.append(name)
        if len(saved) == 2:
            raise RunError("the disk is full")
        real(log, name, record)

    monkeypatch.setattr(RecordLog, "append", append)
    with pytest.raises(RunError, match="disk is full"):
        evaluate("evaluation.images=20")
    assert not (tmp_path / "out" / "result.json").exists()
    assert evaluate()["clean"]["images"] == 20  # it is asked for by the folder now


def test_a_request_from_before_gets_its_findings(evaluate, tmp_path):
    asked = ("budget", "none", "budget", "full", "budget")
    counts = [len(evaluate(f"evaluation.findings={findings}")["findings"]) for findings in asked]
    assert counts[1] == 0
    assert counts[0] == counts[2] > 0
    assert read_yaml(tmp_path / "out" / "config.yaml")["evaluation"]["findings"] == "full"


def test_an_attack_that_is_named_twice_runs_twice_and_each_keeps_its_share(evaluate):
    square = "{attack: {name: square, queries: 3}, images: %s}"
    first = f"evaluation.attacks=[{square % 6}, {square % 9}]"
    evaluate("evaluation.findings=none", first)
    again = evaluate(first, "evaluation.images=20")
    assert [row["images"] for row in again["attacks"]] == [6, 9]
    third = evaluate(
        f"evaluation.attacks=[{', '.join([square % 9, square % 6, square % 9])}]", "evaluation.images=20"
    )
    assert [row["images"] for row in third["attacks"]] == [6, 9, 9]


def test_more_images_than_there_are_is_all_of_them(evaluate, tmp_path):
    found = evaluate("evaluation.images=9000")
    before = contents(tmp_path / "out" / "figures")
    for images in ("null", "400"):
        assert evaluate(f"evaluation.images={images}") == found
    assert contents(tmp_path / "out" / "figures") == before
    with pytest.raises(RunExistsError, match="got 300; it took 360 images"):
        evaluate("evaluation.images=300")


def test_the_recipe_is_of_what_the_folder_does(evaluate, tmp_path):
    for images, done in ((12, 12), (20, 20), (12, 20)):
        evaluate(f"evaluation.images={images}")
        assert read_yaml(tmp_path / "out" / "recipe.yaml")["evaluation"]["images"] == done


ATTACK = """
from robust_nas.attacks import Square

class {0}(Square):
    \"\"\"A test's own.\"\"\"
"""


def test_an_extension_of_a_folder_with_code_names_the_file_that_is_not_allowed(tmp_path, monkeypatch):
    model = robust_nas.train(config("training.epochs=1"), TINY, tmp_path / "model")
    files = [tmp_path / "first.py", tmp_path / "second.py"]

    def evaluate(file, *allowed):
        with user_code.allow_code(allowed):
            own = f"evaluation.attacks=[{{attack: {{name: '{file}:{file.stem.title()}', queries: 2}}}}]"
            asked = config("evaluation.images=8", "evaluation.findings=none", own)
            return robust_nas.run_evaluation(asked, model, tmp_path / "out", mode="resume")

    for file in files:
        file.write_text(ATTACK.format(file.stem.title()))
    evaluate(files[0], files[0])
    monkeypatch.setattr(user_code, "_LOADED", {})  # as in another process
    with pytest.raises(CodeRefusedError, match=r"allow it with --allow-code first\.py"):
        evaluate(files[1], files[1])
    assert len(evaluate(files[1], *files)["attacks"]) == 2


def test_a_compression_takes_the_protocol_of_an_extended_evaluation_for_its_own(tmp_path):
    model = robust_nas.train(config("training.epochs=1"), TINY, tmp_path / "model")
    asked = [config(f"evaluation.images={images}", "evaluation.findings=none", SQUARE) for images in (8, 12)]
    for each in asked:
        robust_nas.run_evaluation(each, model, mode="resume")
    stored = compress_measures.without_paths(read_yaml(model / "evaluation" / "config.yaml"))
    digest = read_model(model).digest
    found = [
        compress_measures.without_paths(to_yaml_dict(evaluate_job(EvaluationConfig.of(each), "", digest)))
        for each in asked
    ]
    assert [each == stored for each in found] == [False, True]
