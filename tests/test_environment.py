"""The record of what a result depends on."""

import json
import subprocess
from pathlib import Path

import torch

from robust_nas.config import Options
from robust_nas.environment import _code_version, environment


class Config(Options):
    seed: int = 0


def test_the_environment_names_versions_machine_and_config():
    found = environment(Config(), dataset="digits")
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["config_hash"] != environment(Config(seed=1))["config_hash"]
    assert found["dataset"] == "digits"
    assert {"robust_nas", "code", "python", "platform", "processor", "command"} <= found.keys()
    json.dumps(found)


def test_git_is_asked_without_a_lock_that_a_kill_would_leave(monkeypatch):
    _code_version.cache_clear()
    asked, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, **more: asked.append(words) or run(words, **more))
    first = environment(Config())
    assert all("--no-optional-locks" in words for words in asked if Path(words[0]).name == "git")
    calls = len(asked)
    assert environment(Config()) == first
    assert len(asked) == calls  # once a process: trials of a study are many and short
