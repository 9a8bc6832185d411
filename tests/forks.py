"""Processes that are forks of one which has imported what takes seconds; each is a process of its own but for that.

The server of a pytest process starts with the first fork and ends with pytest.
"""

import multiprocessing
import os
import traceback
from multiprocessing import forkserver

import pytest

from robust_nas.distributed import may_print
from robust_nas.errors import RobustNASError

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = [  # what the verbs import on the way too, once for all forks
    "robust_nas",
    "torch",
    "torch._dynamo",
    "torch.distributed",
    "torch.export",
    "sklearn.datasets",
    "matplotlib.pyplot",
    "networkx",
    "safetensors.torch",
    "pytest",
    "hypothesis",
    "robust_nas.cli",
    "robust_nas.workflows.pipeline",
    "robust_nas.workflows.compress_measures",
    "robust_nas.search.one_shot.loop",
    "robust_nas.nets.supernet",
    "robust_nas.nets.model",
    "robust_nas.training.loop",
    "robust_nas.evaluation.protocol",
    "robust_nas.evaluation.sanity",
    "robust_nas.export.source",
    "robust_nas.export.program",
    "robust_nas.compression.gdws_network",
    "robust_nas.studies.run.measure",
    "robust_nas.studies.report.page",
    "robust_nas.studies.report.analysis",
]
CONTEXT.set_forkserver_preload(PRELOADED)
SECONDS = 300  # after which a process hangs


def start(log, function, *arguments, **environment):
    """Start `function(*arguments)` of a test file in a fork, which prints to the file `log`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")  # a fork with a pool of threads hangs
        patched.setenv("MKL_NUM_THREADS", "1")
        forkserver.ensure_running()
    process = CONTEXT.Process(target=_work, args=(str(log), environment, function, arguments))
    process.start()
    return process


def end(process):
    """Wait for a process and return its exit code, negative where a signal ended it."""
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


def exit_code(log, function, *arguments):
    """Return how `function(*arguments)` ended in a fork."""
    return end(start(log, function, *arguments))


def run(log, function, *arguments):
    """Run `function(*arguments)` in a fork, which has to end well."""
    assert exit_code(log, function, *arguments) == 0, log.read_text()


def _work(log, environment, function, arguments):
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    try:
        function(*arguments)
    except RobustNASError as error:
        if may_print(error):
            print(f"error: {error}", flush=True)
        os._exit(error.exit_code)
    except BaseException:  # whatever it is, the test that waits shall see it
        traceback.print_exc()
        os._exit(1)
