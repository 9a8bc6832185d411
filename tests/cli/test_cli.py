"""The command line: help, exit codes, machine output, and that it answers before torch is imported."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from cli_outcome import Call
from typer.testing import CliRunner

from robust_nas import __version__, count, load_architecture, load_config
from robust_nas.cli import app
from robust_nas.cli.count import input_shape
from robust_nas.cli.spaces import limits
from robust_nas.config import parse_yaml, to_dict, to_yaml
from robust_nas.errors import ConfigError
from robust_nas.spaces import architecture_from_text, load_space
from robust_nas.workflows.config import printed

VERBS = ["run", "search", "train", "evaluate", "export", "count"]
SUBVERBS = ["list", "show", "draw", "sample"]


@pytest.mark.parametrize("verb", [*[(verb,) for verb in VERBS], *[("spaces", verb) for verb in SUBVERBS]])
def test_every_verb_has_help_with_an_example(verb: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "Example: robust-nas " + " ".join(verb) in result.output


def test_help_names_every_verb_and_the_version_prints(call: Call) -> None:
    result = CliRunner().invoke(app, ["-h"])
    assert all(verb in result.output for verb in [*VERBS, "spaces"])
    assert call("--version") == (0, f"{__version__}\n", "")


def test_count_prints_the_published_figures_as_a_list(call: Call) -> None:
    done = call("count", "arnas", "darts_v2", "--input", "3x32x32", "--json")
    assert (done.code, done.err) == (0, "")
    assert [(row["name"], row["params"], row["macs"]) for row in json.loads(done.out)] == [
        ("arnas", 4_520_394, 1_240_151_040),
        ("darts_v2", 3_349_342, 528_359_040),
    ]
    assert isinstance(json.loads(call("count", "arnas", "--json").out), list)
    plain = call("count", "arnas").out
    assert "4,520,394" in plain
    assert "1,240.15 M" in plain


def test_residual_networks_are_counted_and_shown_by_name(call: Call, tmp_path: Path) -> None:
    done = call("count", "wrn-28-10", "wrn-34-r", "wrn_34_r", "arnas", "--json")
    assert (done.code, done.err) == (0, "")
    assert [(row["name"], row["params"]) for row in json.loads(done.out)] == [
        ("wrn-28-10", 36_479_194),
        ("wrn-34-r", 68_116_698),
        ("wrn-34-r", 68_116_698),
        ("arnas", 4_520_394),
    ]
    shown = call("spaces", "show", "wrn-16-4").out
    assert architecture_from_text(shown, "shown") == load_architecture("wrn-16-4")
    (tmp_path / "mine.yaml").write_text(shown)
    assert call("spaces", "show", "mine.yaml").out == shown
    assert call("spaces", "show", "wrn-34-r").out == call("spaces", "show", "wrn_34_r").out


def test_count_says_where_the_cost_sits_and_what_the_rules_say(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mlp.yaml").write_text("{type: mlp, name: small, depth: 2, width: 3}")
    rows = json.loads(call("count", "rrn-a1", "arnas", "mlp.yaml", "--json").out)
    for row in rows:
        for key in ("params", "macs"):
            assert sum(part[key] for part in row["stages"]) == row[key]
    names = [[part["name"] for part in row["stages"]] for row in rows]
    assert names == [["stem", "stage 1", "stage 2", "stage 3", "head"]] * 2 + [["stage 1", "stage 2", "head"]]
    assert [row["r_d"] for row in rows] == [pytest.approx(0.7), None, None]
    assert [row["wd_ratio"] for row in rows] == [pytest.approx(10.857, abs=1e-3), None, None]
    assert {rule["rule"]: rule["holds"] for rule in rows[0]["rules"]}["robustscaling"]
    assert rows[1]["rules"] == rows[2]["rules"] == []
    said = call("count", "wrn-34-r", "mlp.yaml").out
    for fragment in (
        "stage 3",
        "36.0 %",
        "8.2 %",
        "r_D = sum D / (sum D + sum W) = 0.238",
        "2 hidden layers of 3",
    ):
        assert fragment in said
    assert (
        said.index("68,116,698")
        < said.index("5-5-5 blocks")
        < said.index("rule wd_ratio: 96.000, does not hold")
    )


def test_count_takes_the_size_and_files(call: Call, tmp_path: Path) -> None:
    options = ("--input", "1x28x28", "--classes", 7, "--cells", 8, "--channels", 16, "--json")
    cost = count(load_architecture("arnas").resized(8, 16), (1, 28, 28), 7)
    (tmp_path / "architecture.yaml").write_text(load_architecture("arnas").to_yaml())
    for name in ("arnas", "architecture.yaml", tmp_path):
        (row,) = json.loads(call("count", name, *options).out)
        assert (row["name"], row["params"], row["macs"]) == ("arnas", *cost)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["count", "arnas", "--input", "32x32"], "got '32x32'; channels x height x width"),
        (["count", "arnas", "--input", "3x0x32"], "got '3x0x32'"),
        (["count", "arnas", "--input", "²x3x3"], "--input"),
        (["count", "arnas", "--input", "3x3x" + "9" * 5000], "--input"),
        (["count", "arnas", "--cells", "1"], "need at least 2 cells"),
        (["count", "arnas", "--cells", "999999999"], "at most 1000"),
        (["count", "arnas", "--cells", "0"], "--cells"),
        (["count", "nosuch"], "shipped: arnas, darts_v2"),
        (["count"], "Missing argument"),
        (["spaces", "show", "nosuch"], "'nosuch'"),
        (["spaces", "draw", "nosuch"], "'nosuch'"),
        (["spaces", "sample", "nosuch"], "shipped: darts, dsara"),
        (["spaces", "sample", "dsara", "--macs", "1G"], "LOW:HIGH is needed"),
        (["spaces", "sample", "dsara", "--macs", "2G:1G"], "LOW must be at most HIGH"),
        (["spaces", "sample", "dsara", "--macs", "nan:1G"], "LOW:HIGH is needed"),
        (["spaces", "sample", "dsara", "--macs", "1X:2X"], "LOW:HIGH is needed"),
        (["spaces", "sample", "dsara", "--seed", "-1"], "--seed"),
        (["spaces", "sample", "dsara", "--cells", "1"], "at least 2 cells"),
        (["run", "nosuch"], "recipes: dsara-cifar10"),
        (["run", "quickstart", "search.epoch=3"], "did you mean 'epochs'?"),
        (["run", "quickstart", "search.epochs"], "key.subkey=value"),
        (["run", "quickstart", "--resume", "--overwrite"], "give one of them"),
        (["train", "quickstart"], "--architecture"),
        (["train", "quickstart", "-a", "nosuch"], "shipped: arnas, darts_v2"),
        (["search", "quickstart", "--seeds", "0"], "--seeds"),
        (
            ["search", "quickstart", "--strategy", "nni"],
            "got 'nni'; allowed: dsara, darts, advrush, pc-darts, gdas, nni:darts, nni:gumbel-darts, nni:proxyless",
        ),
        (["evaluate", "."], "is no model folder"),
        (["count", "wrn-27-2"], "'wrn-27-2': depth 27 is not 6n + 4 with n >= 1; nearest: 22 and 28"),
        (["count", "arnas", "wrn-28-10", "--cells", "8"], "--cells 8: wrn-28-10 is a residual network"),
        (["count", "wrn-28-10", "--channels", "8"], "--channels 8: wrn-28-10 is a residual network"),
        (["spaces", "show", "wrn-27-2"], "nearest: 22 and 28"),
        (["spaces", "draw", "wrn-10-1"], "a residual network has no cells to draw"),
        (["spaces", "draw", "rrn-a1"], "a residual network has no cells to draw"),
        (["train", "quickstart", "-a", "wrn-10-0"], "the widening factor is 0"),
        (["train", "quickstart", "training.drop_path=0.2", "-a", "wrn-10-1"], "training.drop_path: got 0.2"),
        (["nosuchverb"], "nosuchverb"),
        (["run", "--nosuchoption"], "--nosuchoption"),
    ],
)
def test_bad_usage_is_exit_code_2_and_one_readable_answer(
    call: Call, arguments: list[str], fragment: str
) -> None:
    done = call(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert fragment in done.err
    assert "Traceback" not in done.err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["--recipe", "quickstart"]])
@pytest.mark.parametrize("verb", ["evaluate", "compress", "export"])
def test_a_folder_without_a_model_is_bad_usage_for_every_verb_that_reads_one(
    call: Call, tmp_path: Path, verb: str, arguments: list[str]
) -> None:
    done = call(verb, tmp_path, *arguments, *(["--check"] if arguments and verb == "export" else []))
    assert done.code == 2
    assert "no model folder" in done.err


def test_a_damaged_model_is_a_failure(call: Call, tmp_path: Path) -> None:
    for name in ("architecture.yaml", "model.json", "model.safetensors"):
        (tmp_path / name).write_text("{")
    done = call("export", tmp_path)
    assert done.code == 1
    assert done.err.startswith("error: ")


def test_every_verb_has_an_example_and_json() -> None:
    def verbs(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from verbs(inner, f"{path} {name}")
        if not hasattr(command, "commands"):
            yield path, command

    found = dict(verbs(typer.main.get_command(app), "robust-nas"))
    assert "robust-nas study export" in found
    for path, command in found.items():
        assert "--json" in [option for parameter in command.params for option in parameter.opts], path
        assert path in command.help, path


def test_the_printed_config_is_the_config(call: Call, tmp_path: Path) -> None:
    for verb in (["run"], ["search"], ["train"]):
        done = call(*verb, "quickstart", "search.epochs=3", "search.attack.eps=8/255", "--print-config")
        assert (done.code, done.err) == (0, "")
        (tmp_path / "printed.yaml").write_text(done.out)
        config = load_config("quickstart", ["search.epochs=3", "search.attack.eps=8/255"])
        assert load_config(tmp_path / "printed.yaml") == config
        assert done.out == printed(config)


def test_spaces_list_and_show(call: Call, tmp_path: Path) -> None:
    assert json.loads(call("spaces", "list", "--json").out) == {
        "spaces": ["darts", "dsara", "nas-bench-201"],
        "architectures": ["arnas", "darts_v2", *(f"rrn-a{n}" for n in (1, 2, 3, 4)), "wrn-34-r"]
        + [f"wrn-a{n}" for n in (1, 2, 3, 4)],
    }
    text = call("spaces", "list").out
    assert "accurate, reduce," in text
    assert "4,520,394" in text
    assert "5-5-5 blocks, 320-640-512 channels" in text
    assert "wrn-D-k" in text
    assert architecture_from_text(call("spaces", "show", "arnas").out, "shown") == load_architecture("arnas")
    (tmp_path / "space.yaml").write_text(call("spaces", "show", "dsara").out)
    assert load_space(tmp_path / "space.yaml") == load_space("dsara")
    assert call("spaces", "show", "space.yaml").out == call("spaces", "show", "dsara").out
    (tmp_path / "architecture.yaml").write_text(load_architecture("arnas").to_yaml())
    assert call("spaces", "show", tmp_path).out == call("spaces", "show", "arnas").out


@pytest.mark.usefixtures("rendered")
def test_spaces_draw_writes_both_pictures(call: Call, tmp_path: Path) -> None:
    done = call("spaces", "draw", "arnas", "--out", tmp_path / "cells")
    assert done.code == 0
    for path in done.out.split():
        assert Path(path).stat().st_size > 500
    assert {path.suffix for path in tmp_path.iterdir()} >= {".png", ".svg"}


def test_spaces_sample_is_seeded_within_budget_and_overwrites_nothing(call: Call, tmp_path: Path) -> None:
    arguments = ("spaces", "sample", "dsara", "--cells", 6, "--channels", 8, "--macs", "3M:30M", "--seed", 4)
    first = call(*arguments)
    assert first.code == 0
    drawn = architecture_from_text(first.out, "drawn")
    assert 3e6 <= count(drawn).macs <= 30e6
    assert (drawn.cells, drawn.channels) == (6, 8)
    assert call(*arguments).out == first.out
    assert call(*arguments, "--out", "random.yaml").code == 0
    assert load_architecture(tmp_path / "random.yaml") == drawn
    again = call(*arguments, "--out", "random.yaml")
    assert again.code == 2
    assert "exists already" in again.err
    assert call(*arguments, "--out", "none/random.yaml").code == 1


def test_small_parsers() -> None:
    assert input_shape("1X28x9") == (1, 28, 9)
    assert limits("--macs", "0.5G:600m") == (0.5e9, 600e6)
    assert limits("--macs", None) is None
    with pytest.raises(ConfigError):
        limits("--macs", "")


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


HEAVY = """
import sys
import robust_nas.cli
heavy = {"torch", "numpy", "matplotlib", "networkx", "sklearn", "safetensors", "robust_nas.workflows.pipeline"}
print(sorted(heavy & set(sys.modules)))
"""


def test_the_command_line_imports_nothing_heavy(tmp_path: Path) -> None:
    done = python(HEAVY, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n")


WRONG = """
import sys
from robust_nas.cli import main
sys.argv = ["robust-nas", *sys.argv[1:]]
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "quickstart", "search.epochs=-1"], 2),
        (["train", "quickstart", "training.los=3", "-a", "arnas"], 2),
        (["run", "quickstart", "--print-config"], 0),
        (["count", "arnas", "wrn-28-10", "--json"], 0),
    ],
)
def test_what_needs_no_torch_does_not_import_it(arguments: list[str], code: int, tmp_path: Path) -> None:
    done = python(WRONG, *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert ("error: " in done.stderr) == (code == 2)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_of_a_user_names_the_file(call: Call, tmp_path: Path) -> None:
    tree = to_dict(load_config("quickstart"))
    tree["search"]["epochs"] = "many"
    (tmp_path / "mine.yaml").write_text(to_yaml(tree))
    done = call("run", "mine.yaml")
    assert done.code == 2
    assert "mine.yaml: search.epochs: got 'many'" in done.err


def test_options_of_evaluate_are_taken_as_they_are(call: Call, tmp_path: Path) -> None:
    """`--data "set #2"` once read the folder `set`."""
    for name in ("set", "set #2", "2024", "yes", "null", "'a'"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.yaml").write_text("attacks: [{attack: {name: fgsm}}]")
        asked = ("--module", "net.py:build", "--data", name, "--suite", f"{name}.yaml", "--eps", "8/255")
        done = call("evaluate", *asked, "--print-config")
        assert done.code == 0, done.err
        tree = parse_yaml(done.out, "printed")
        assert (tree["data"]["name"], Path(tree["data"]["path"]).name) == ("image-folder", name)
        assert Path(tree["evaluation"]["suite"]).name == f"{name}.yaml"


def path_options(verbs: typer.Typer) -> Iterator[Any]:
    """The declaration of every path among the arguments and options of all verbs."""
    for command in verbs.registered_commands:
        for hint in get_type_hints(command.callback, include_extras=True).values():
            kind, *declared = get_args(hint) if hasattr(hint, "__metadata__") else (None,)
            if Path in (kind, *get_args(kind)):
                yield declared[0]
    for group in verbs.registered_groups:
        if group.typer_instance is not None:
            yield from path_options(group.typer_instance)


def test_every_path_option_of_every_verb_reads_a_tilde_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out=~/x`, which a shell leaves alone, once made a folder called `~`."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "/place")
    found = list(path_options(app))
    for option in found:
        assert option.callback(Path("~/x")) == Path("/home/me/x")
        assert option.callback(Path("$PLACE/x")) == Path("/place/x")
    assert len(found) > 12


def test_a_tilde_in_a_path_makes_no_folder_of_that_name(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert call("spaces", "sample", "dsara", "--out=~/a.yaml").code == 0
    assert (tmp_path / "home" / "a.yaml").is_file()
    assert call("count", "~/a.yaml").code == call("spaces", "show", "~/a.yaml").code == 0
    refused = call("spaces", "sample", "dsara", "--out=$NOT_SET/a.yaml")
    assert (refused.code, "'$NOT_SET'" in refused.err) == (2, True)
    assert not any(path.name in ("~", "$NOT_SET") for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("verb", ["evaluate", "compress", "export"])
def test_help_says_that_module_runs_the_file(verb: str) -> None:
    result = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "300"})
    assert "which is run" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "m", "--recipe", ""),
        ("evaluate", "m", "--data="),
        ("evaluate", "m", "--eps", ""),
        ("compress", "m", "--method", ""),
        ("export", "m", "--recipe", ""),
        ("search", "quickstart", "--strategy", ""),
        ("spaces", "sample", "dsara", "--macs", ""),
        ("study", "run", "huang-width-last", "--ray-address", ""),
    ],
)
def test_an_option_of_an_unset_variable_is_refused(call: Call, arguments: tuple[str, ...]) -> None:
    outcome = call(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "got an empty text" in outcome.err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_failure(closed: str, tmp_path: Path) -> None:
    command = f'exec "$0" -m robust_nas spaces sample dsara --out random.yaml {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "random.yaml").read_text().startswith("schema_version")


def test_a_current_folder_that_was_removed_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    command = 'rmdir "$PWD"; exec "$0" -m robust_nas run quickstart'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: the current folder was removed"
