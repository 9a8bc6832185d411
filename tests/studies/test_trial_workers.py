"""What the workers of a study share before they are forked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_study import environment, small_study

from robust_nas.studies.run.runner import plan_study
from robust_nas.studies.run.trial import payload_of

FORKED = """
import json, os, sys
from pathlib import Path
from unittest.mock import patch
import torch
from robust_nas.studies.run.trial import prepare, run_trial

def asked(*_):
    sys.exit("a GPU was asked for, which no fork bears")

payload = json.loads(sys.argv[1])
with patch.multiple(torch.cuda, _lazy_init=asked, is_available=asked, device_count=asked):
    prepare(payload)
assert len(os.listdir("/proc/self/task")) == 1, "a thread was started"
before = set(sys.modules)
print(run_trial(payload, Path(sys.argv[2]))["trial"])
late = sys.modules.keys() - before
assert late.isdisjoint({"sklearn", "torch._dynamo", "scipy", "pandas", "sympy"}), late
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_what_a_trial_imports_and_reads_is_ready_for_a_fork_without_threads_or_gpus(tmp_path: Path) -> None:
    config = small_study()
    trial = plan_study(config)[0].trials[0][1]
    folder = tmp_path / trial.id
    folder.mkdir()
    words = [sys.executable, "-c", FORKED, json.dumps(payload_of(trial, config, "cpu")), str(folder)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{trial.id}\n", 0), done.stderr
