"""Load configs that were broken at random: each loads, or is refused by an error of ours that says where.

    .venv/bin/python scripts/stress_configs.py [--count 10000] [--seed 0]

Every case takes a config that ships (of a run, search, training, evaluation, compression, export or study; a search
space, an architecture, a suite of attacks), breaks its tree, its text or its overrides in one to three places, and
loads it as the verb does. A fault is an exception that is not ours, a warning, a message of more than 20,000
characters, a message that names neither the file, the override nor the key, or a config whose print does not read back
as itself. Prints a summary; exit code 1 where there is a fault.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robust_nas.attacks import ThreatModel
from robust_nas.config import Options, check, to_dict, to_yaml
from robust_nas.errors import MAX_MESSAGE, RobustNASError
from robust_nas.evaluation.options import SUITES, load_suite
from robust_nas.spaces import files, load_architecture, load_space
from robust_nas.studies.config import PRESETS, StudyConfig, load_study
from robust_nas.workflows.compression_config import compression_config
from robust_nas.workflows.config import (
    FOLDER,
    EvaluationConfig,
    RunConfig,
    load_config,
    model_config,
    module_config,
    printed,
)
from robust_nas.yaml_reader import parse_yaml

Loaded = Options | tuple[Any, ...]
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 0.5, -0.5, 1e-30, 1e300, 10**12, 2**63, 10**299, "", " ", "~", "null", "yes",
    "off", "008", "064", "1:30", "0x1F", "0b1", "1_000", "1e3", "8/255", "8/0", "nan", ".inf", "2024-01-01", "2024",
    "é\u202e🙂", "a\nb", "a: b", "set #2", "[", "{}", "x.py:f", "/", "~nobody/x", "$NOTHING/x", "../..", "a\\b", "[/x]",
    "%s {0}", "x" * 3000, [], {}, [[]], [{}], {"": 1}, {"name": None}, {"name": "pgd"}, {"name": 3}, [0] * 300,
    ["x"] * 300, [{"x": 1}] * 300, {f"key-{number}": number for number in range(300)},
)  # fmt: skip
TEXTS = (
    "\t", "\0", "&a ", "*a ", "!!python/name:os.system ", "<<: {a: 1}\n", "---\n", "- ", "? ", ": ", "#", "'", '"', "[",
    "}", "|\n", "%YAML 3\n", "\ufeff", "\u2028", "0", "[" * 300, "9" * 400, "x: " * 50,
)  # fmt: skip


@dataclass
class Findings:
    """What the cases gave."""

    kinds: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by kind
    longest: int = 0  # message, in characters
    slowest: float = 0.0  # seconds of one case
    faults: list[str] = field(default_factory=list)


@dataclass
class Case:
    """One broken config: the text of its file, its overrides, and the words of which a message has to name one."""

    text: str
    overrides: list[str]
    named: set[str]


def _run(file: Path, overrides: list[str]) -> Loaded:
    return load_config(file, overrides)


def _search(file: Path, overrides: list[str]) -> Loaded:
    return load_config(file, overrides, strategy="random")


def _in_model_folder(file: Path) -> Path:
    (file.parent / "model").mkdir(exist_ok=True)
    (file.parent / "model" / "recipe.yaml").write_bytes(file.read_bytes())
    return file.parent / "model"


def _evaluate(file: Path, overrides: list[str]) -> Loaded:
    return model_config(_in_model_folder(file), overrides)


def _module(file: Path, overrides: list[str]) -> Loaded:
    return module_config("net", ["data.name=digits", "evaluation.threat_model.eps=0.1", *overrides])


def _compress(file: Path, overrides: list[str]) -> Loaded:
    return compression_config(_in_model_folder(file), None, overrides)


def _compress_by_method(file: Path, overrides: list[str]) -> Loaded:
    return compression_config(_in_model_folder(file), "cstar+gdws", overrides)


def _study(file: Path, overrides: list[str]) -> Loaded:
    return load_study(file, overrides, size="ci")


def _space(file: Path, overrides: list[str]) -> Loaded:
    return load_space(file)


def _architecture(file: Path, overrides: list[str]) -> Loaded:
    return load_architecture(file)


def _suite(file: Path, overrides: list[str]) -> Loaded:
    return load_suite(str(file), ThreatModel(eps=0.1), ("results/a",))


Load = Callable[[Path, list[str]], Loaded]
RECIPES = sorted(FOLDER.glob("*.yaml"))
KINDS: dict[str, tuple[Load, list[Path]]] = {
    "run": (_run, RECIPES),
    "search": (_search, RECIPES),
    "train": (_run, RECIPES),
    "evaluate": (_evaluate, RECIPES),
    "evaluate --module": (_module, RECIPES),
    "compress": (_compress, RECIPES),
    "compress --method": (_compress_by_method, RECIPES),
    "export --check": (_evaluate, RECIPES),
    "study": (_study, sorted(PRESETS.glob("*.yaml"))),
    "search space": (_space, sorted(files.folder().glob("*.yaml"))),
    "architecture": (_architecture, sorted((files.folder() / "architectures").glob("*.yaml"))),
    "suite": (_suite, sorted(SUITES.glob("*.yaml"))),
}
IN_MODEL_FOLDERS = ("evaluate", "compress", "compress --method", "export --check")
WITHOUT_OVERRIDES = ("search space", "architecture", "suite")


def places(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every node of a tree but its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def broken(kind: str, tree: dict[str, Any], draw: random.Random) -> Case:
    """Return the config of a kind, broken in one to three places."""
    tree, overrides, named = copy.deepcopy(tree), [], {"config.yaml", "recipe.yaml", "override"}
    ways = ["value", "value", "key", "gone", "twice", "moved"]
    ways += [] if kind in WITHOUT_OVERRIDES else ["override", "override", "override", "nested"]
    if kind == "evaluate --module":
        ways, tree = ["override", "nested"], {"data": tree["data"], "evaluation": tree["evaluation"]}
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        path = draw.choice(list(places(tree)) or [()])
        if not path:
            break
        way, junk = draw.choice(ways), draw.choice(JUNK)
        named |= {str(path[-1]), str(path[0])}
        if way == "override":
            value = junk if isinstance(junk, str) else to_yaml({"a": junk})[3:].strip()
            overrides.append(f"{'.'.join(map(str, path))}={value}")
        elif way == "nested":
            overrides.append(
                f"{'.'.join(map(str, path * draw.choice((1, 2, 400))))}={'[' * draw.choice((1, 1500))}"
            )
        else:
            _break(tree, path, way, junk, draw)
    text = to_yaml(tree)
    if draw.random() < 0.15:
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(text) + 1)
            text = draw.choice(
                (text[:at], text[:at] + draw.choice(TEXTS) + text[at:], text[:at] + text[at + 1 :])
            )
    return Case(text, overrides, named)


def _break(tree: Any, path: tuple[str | int, ...], way: str, junk: Any, draw: random.Random) -> None:
    """Break one place of a tree."""
    *outer, last = path
    node: Any = tree
    for key in outer:
        node = node[key]
    if way == "key" and isinstance(node, dict):
        node[draw.choice((f"{last}s", "", str(last).upper(), "x" * 3000, "~", "name"))] = node.pop(last)
    elif way == "gone":
        node.pop(last)
    elif way == "twice" and isinstance(node, list):
        node.extend(copy.deepcopy(node[-1:]) * draw.choice((1, 300)))
    elif way == "moved":
        node[last] = copy.deepcopy(tree)
    else:
        node[last] = copy.deepcopy(junk)


def run_cases(count: int, seed: int, folder: Path) -> Findings:
    """Load `count` broken configs in `folder`; the same seed makes the same cases."""
    draw, found, file = random.Random(seed), Findings(), folder / "config.yaml"  # noqa: S311 - no secret
    trees: dict[tuple[Path, bool], Any] = {}
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        load, sources = KINDS[kind]
        source = draw.choice(sources)
        resolved = kind in IN_MODEL_FOLDERS  # as a training writes it
        if (source, resolved) not in trees:
            text = to_yaml(load_config(source)) if resolved else source.read_text(encoding="utf-8")
            trees[source, resolved] = parse_yaml(text, str(source))
        case = broken(kind, trees[source, resolved], draw)
        file.write_text(case.text, encoding="utf-8", errors="replace")
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fault = _fault(load, file, case, kind, found)
        found.slowest = max(found.slowest, time.perf_counter() - began)
        found.kinds[kind] += 1
        if fault:
            found.faults.append(f"case {number}, {kind}, {source.name} {case.overrides!r:.300}: {fault:.600}")
    return found


def _fault(load: Load, file: Path, case: Case, kind: str, found: Findings) -> str | None:
    """Return what is wrong with how a case was answered."""
    try:
        loaded = load(file, case.overrides)
    except RobustNASError as error:
        message = str(error)
        found.refused[kind] += 1
        found.longest = max(found.longest, len(message))
        if len(message) > MAX_MESSAGE:
            return f"a message of {len(message)} characters"
        return None if any(word in message for word in case.named) else f"names nothing: {message}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return _other_print(loaded)


def _other_print(loaded: Loaded) -> str | None:
    """Return why a config that loaded does not read back from its print as itself."""
    if isinstance(loaded, tuple):
        return None
    text = (
        printed(loaded) if isinstance(loaded, RunConfig | EvaluationConfig | StudyConfig) else to_yaml(loaded)
    )
    try:
        again = check(type(loaded), parse_yaml(text, "its print"), "its print")
    except Exception as error:
        return f"its print is refused: {type(error).__name__}: {error}"
    return None if to_dict(again) == to_dict(loaded) else "its print reads back as another config"


def main() -> int:
    """Run the cases and print the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = run_cases(given.count, given.seed, Path(folder))
    for kind, cases in found.kinds.items():
        print(f"{kind:<18} {cases:>6} configs, {found.refused[kind]:>6} refused")
    print(f"{'faults':<18} {len(found.faults):>6}")
    print(f"longest message    {found.longest:>6} characters; slowest case {found.slowest:.2f} s")
    print(f"{given.count} configs, seed {given.seed}, {time.perf_counter() - began:.0f} s")
    for fault in found.faults[:40]:
        print(fault, file=sys.stderr)
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
