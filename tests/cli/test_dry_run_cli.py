"""`--dry-run`: a table or a document of what would be done, and no folder."""

import json
from pathlib import Path

from cli_outcome import Call

from robust_nas.config import to_yaml

SETTINGS = (
    *("data.limit=100", "training.epochs=2", "training.batch_size=32", "training.auxiliary_weight=0"),
    *("training.drop_path=0", "device=cpu", "--dry-run"),
)


def test_a_dry_run_prints_what_would_be_done_and_writes_nothing(call: Call, tmp_path: Path) -> None:
    network, out = tmp_path / "mlp.yaml", tmp_path / "m"
    network.write_text(to_yaml({"type": "mlp", "name": "mlp", "depth": 1, "width": 8}))
    done = call("train", "quickstart", "-a", network, *SETTINGS, "--out", out)
    assert (done.code, "nothing was written" in done.out, str(out) in done.out) == (0, True, True), done.err
    done = call("train", "quickstart", "-a", network, *SETTINGS, "--out", out, "--json")
    tree = json.loads(done.out)
    assert [(job["job"], job["epochs"], job["batch_size"]) for job in tree["jobs"]] == [("train", 2, 32)]
    assert tree["estimate"]["without"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["mlp.yaml"]
