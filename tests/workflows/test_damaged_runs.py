"""Every record of a finished run, damaged: the verbs that read it name it in an error of ours, or make it again."""

import json
import os

import pytest
from cases import config as run_config
from damage import damages, kept, restored

import robust_nas
from robust_nas.config import to_yaml

COUNT = int(os.environ.get("DAMAGES", "1"))  # a file and verb; 36 were tried once
RECIPE = run_config(
    "network.channels=8",
    "evaluation.findings=none",
    "compression.cstar.ratios=[1.3]",
    "compression.cstar.epochs=1",
    "compression.cstar.finetune_epochs=1",
    "compression.cstar.baselines=[]",
    "compression.max_loss=0.9",
)
FINISHED = {  # the verbs, and the folders whose records they read
    "run": (["run", "recipe.yaml", "--out", "run", "--resume"], ["."]),
    "search": (["search", "recipe.yaml", "--out", "run/search", "--resume"], ["search"]),
    "train": (
        ["train", "recipe.yaml", "-a", "run/search", "--out", "run/model", "--resume"],
        ["model", "search"],
    ),
    "evaluate": (
        ["evaluate", "run/model", "--out", "run/evaluation", "--resume"],
        ["evaluation", "model"],
    ),
    "compress": (
        ["compress", "run/model", "--recipe", "recipe.yaml", "--out", "run/compressed", "--resume"],
        ["compressed", "model"],
    ),
    "export": (["export", "run/model", "--out", "exported", "--overwrite"], ["model", "evaluation"]),
    "count": (["count", "run/model"], ["model"]),
}
ENDS = (".json", ".safetensors")
UNFINISHED = [
    "compressed/validation",
    "compressed/cstar-1.3/admm",
    "compressed",
]  # what it reads of its parts


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a folder with a finished run, as of an earlier version: without the digests of its records."""
    root = tmp_path_factory.mktemp("damaged")
    (root / "recipe.yaml").write_text(to_yaml(RECIPE))
    robust_nas.run(RECIPE, root / "run")
    for path in root.rglob("result.json"):
        tree = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in tree.items() if key != "digests"}))
    return root, kept(root)


def records(root, folders):
    ends = (".json", ".jsonl", ".yaml")
    return [
        path
        for folder in folders
        for path in sorted((root / "run" / folder).iterdir())
        if path.suffix in ends and path.is_file()
    ]


def refused_or_redone(call, root, path, verb, arguments):
    found = call(*arguments, "--quiet") if verb not in ("export", "count") else call(*arguments)
    if found.code and path.name != "recipe.yaml":  # with other values that is another config
        assert found.err.startswith(("error: ", "warning: ")), (verb, path)
        assert path.name in found.err or str(path.parent.relative_to(root)) in found.err, (verb, found.err)


@pytest.mark.parametrize("verb", FINISHED)
def test_a_damaged_record_is_named_or_made_again(finished, call, monkeypatch, verb):
    root, before = finished
    monkeypatch.chdir(root)
    arguments, folders = FINISHED[verb]
    for path in records(root, folders):
        for data in damages(path, before[path], COUNT):
            with restored(root, before):
                path.write_bytes(data)
                refused_or_redone(call, root, path, verb, arguments)


def test_a_compression_that_goes_on_names_or_makes_again_what_it_finds(finished, call, monkeypatch):
    root, before = finished
    monkeypatch.chdir(root)
    arguments, _ = FINISHED["compress"]
    unfinished = {path: data for path, data in before.items() if path != root / "run/compressed/result.json"}
    with restored(root, before):
        (root / "run/compressed/result.json").unlink()
        for path in (path for folder in UNFINISHED for path in (root / "run" / folder).iterdir()):
            for data in (
                damages(path, before[path], COUNT) if path in unfinished and path.suffix in ENDS else ()
            ):
                with restored(root, unfinished):
                    path.write_bytes(data)
                    refused_or_redone(call, root, path, "compress", arguments)


def test_a_finished_run_of_another_model_is_not_shown(finished, call, monkeypatch):
    from safetensors.torch import load_file, save_file

    root, before = finished
    monkeypatch.chdir(root)
    arguments, _ = FINISHED["run"]
    assert call(*arguments, "--quiet").code == 0
    with restored(root, before):
        path = root / "run" / "model" / "model.safetensors"
        state = load_file(path)
        save_file({**state, "classifier.bias": state["classifier.bias"] + 1}, path, metadata={"format": "pt"})
        found = call(*arguments, "--quiet")
    assert found.code == 1
    assert "run/model: is not the model that run/evaluation is of" in found.err
