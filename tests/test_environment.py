"""The record of what a result depends on."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robust_nas import environment as module
from robust_nas.config import Options
from robust_nas.environment import _code_version, environment

ALLOCATOR = Path(__file__).parents[1] / "scripts" / "allocator.sh"


class Config(Options):
    seed: int = 0


def test_the_environment_names_versions_machine_and_config():
    found = environment(Config(), dataset="digits")
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["config_hash"] != environment(Config(seed=1))["config_hash"]
    assert found["dataset"] == "digits"
    assert {"robust_nas", "code", "python", "platform", "processor", "command"} <= found.keys()
    json.dumps(found)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/usr/bin/robust-nas", ["robust-nas"]),
        (str(Path(module.__file__).with_name("__main__.py")), ["robust-nas"]),
        ("/usr/lib/pytest/__main__.py", ["python", "-m", "pytest"]),
    ],
)
def test_the_record_has_the_command_as_it_would_be_typed(program, words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "train", "quickstart"])
    assert environment(Config())["command"] == [*words, "train", "quickstart"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4.5.9", "tcmalloc"),
        ("/usr/lib/libtcmalloc.so.4", "tcmalloc"),
        ("/opt/lib/libjemalloc.so.2", "jemalloc"),
        ("/home/tcmalloc/libc.so.6", "system"),
        (None, "unknown"),
    ],
)
def test_the_record_names_the_allocator(file, name, tmp_path, monkeypatch):
    maps = tmp_path / "maps"
    if file is not None:
        maps.write_text(
            f"7f8c4000-7f8d2000 r-xp 00000000 fe:00 5121   {file}\n7ffd1000-7ffd4000 rw-p 0 00:00 0  [stack]\n"
        )
    monkeypatch.setattr("robust_nas.environment.MAPS", maps)
    assert environment(Config())["allocator"] == name


LINES = (
    "libtcmalloc_minimal.so.4 (libc6,x86-64) => {library}\n\tlibtcmalloc_minimal.so.4 (libc6) => /other.so"
)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's linker")
@pytest.mark.parametrize(
    ("listed", "given", "found"),
    [
        ("{library}", None, "{library}"),
        ("{library}", "", ""),  # the user's own choice, also that of none
        ("{library}", "{own}", "{own}"),
        ("/no/such/libtcmalloc_minimal.so.4", None, None),
        (None, None, None),
    ],
)
def test_scripts_preload_tcmalloc_where_it_is_and_nothing_else_is_chosen(listed, given, found, tmp_path):
    loaded = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    libraries = {  # any that a shell can load
        name: next(file for file in loaded if Path(file).name.startswith(start))
        for name, start in (("library", "libm.so"), ("own", "libc.so"))
    }

    def filled(text):
        return None if text is None else text.format(**libraries)

    linker = tmp_path / "ldconfig"
    lines = "" if listed is None else LINES.format(library=filled(listed))
    linker.write_text(f"#!/bin/sh\nprintf '%s\\n' '{lines}'\n")
    linker.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | (
        {} if given is None else {"LD_PRELOAD": filled(given)}
    )
    script = (
        'set -euo pipefail; source "$0"; [ -z "${LD_PRELOAD+set}" ] && echo none || echo "<$LD_PRELOAD>"; set'
    )
    done = subprocess.run(
        ["bash", "-c", script, str(ALLOCATOR)], env=variables, capture_output=True, text=True, check=True
    )
    first, _, rest = done.stdout.partition("\n")
    assert first == ("none" if found is None else f"<{filled(found)}>")
    assert done.stderr == ""
    assert "\nallocator=" not in rest


def test_git_is_asked_without_a_lock_that_a_kill_would_leave(monkeypatch):
    _code_version.cache_clear()
    asked, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, **more: asked.append(words) or run(words, **more))
    first = environment(Config())
    assert all("--no-optional-locks" in words for words in asked if Path(words[0]).name == "git")
    calls = len(asked)
    assert environment(Config()) == first
    assert len(asked) == calls  # once a process: trials of a study are many and short


FAULTS = """
import resource, sys
from robust_nas.environment import keep_freed_memory
print(keep_freed_memory())
import torch

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        several = [torch.ones(2**18) for _ in range(4)]  # 1 MiB each
        del several
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(4)
print(faults(50))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
@pytest.mark.parametrize(("variables", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_freed_memory_is_kept_for_the_next_tensor_unless_the_user_tunes_it(variables, kept):
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))
    }
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=clean | variables, capture_output=True, text=True, check=True
    )
    said, faults = done.stdout.split()
    assert said == str(kept)
    assert (int(faults) < 1000) == kept  # a fault a page of 4 KiB: 50,000 of them else
