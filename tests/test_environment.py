"""The record of what a result depends on."""

import json

import torch

from robust_nas.config import Options
from robust_nas.environment import environment


class Config(Options):
    seed: int = 0


def test_the_environment_names_versions_machine_and_config():
    found = environment(Config(), dataset="digits")
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["config_hash"] != environment(Config(seed=1))["config_hash"]
    assert found["dataset"] == "digits"
    assert {"robust_nas", "code", "python", "platform", "processor", "command"} <= found.keys()
    json.dumps(found)
