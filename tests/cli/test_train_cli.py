"""`robust-nas train`: its table counts epochs from 1 and names the attack of the validation."""

from pathlib import Path

import pytest
from cli_outcome import Call

from robust_nas.config import to_yaml
from robust_nas.run_folder import read_json

SETTINGS = (
    "data.limit=100",
    "training.epochs=2",
    "training.batch_size=32",
    "training.auxiliary_weight=0",
    "training.drop_path=0",
    "device=cpu",
)


@pytest.mark.usefixtures("rendered")
def test_the_kept_epoch_is_counted_from_one_in_table_and_figure(call: Call, tmp_path: Path) -> None:
    network = tmp_path / "mlp.yaml"
    network.write_text(to_yaml({"type": "mlp", "name": "mlp", "depth": 1, "width": 8}))
    done = call("train", "quickstart", "-a", network, *SETTINGS, "--out", tmp_path / "m", "--quiet")
    assert done.code == 0, done.err
    kept = read_json(tmp_path / "m" / "result.json")["epoch"]
    assert kept in (0, 1)
    assert f"{kept + 1} of 2" in done.out
    assert "robust (val., pgd)" in done.out
    assert f"kept: epoch {kept + 1} of 2" in (tmp_path / "m" / "figures" / "training.svg").read_text()


def test_an_eps_that_an_override_of_the_threat_model_leaves_is_warned_of(call: Call) -> None:
    kept = "leaves attacks with an eps of their own as they are: training.loss.attack (0.12)"
    done = call("train", "quickstart", "threat_model.eps=0.15", "--print-config")
    assert done.err == f"warning: threat_model.eps=0.15 {kept}\n"
    for more in ((), ("threat_model.eps=0.1",), ("threat_model.eps=0.2", "training.loss.attack.eps=0.2")):
        assert call("train", "quickstart", *more, "--print-config").err == ""
