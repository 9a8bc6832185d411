"""What the verbs share: their options, progress on a terminal and off it, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from robust_nas.cli.completion import recipes, starting
from robust_nas.cli.shown_progress import Bars, Lines
from robust_nas.distributed import is_first
from robust_nas.errors import ConfigError
from robust_nas.run_folder import Mode, silent
from robust_nas.run_folder import Progress as Report
from robust_nas.workflows.places import PLACES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from robust_nas.workflows.config import JobConfig, RunConfig


def expanded(path: Path | None) -> Path | None:
    """Return a path option with `~` and variables as a config's paths have them; `--out=~/x` reaches us as it is."""
    from robust_nas.config import expand_path

    return None if path is None else expand_path(path)


def filled(text: str | None) -> str | None:
    """Refuse an option with an empty value, which an unset shell variable makes and which would mean none."""
    if text == "":
        raise typer.BadParameter("got an empty text; give it a value, or leave the option out")
    return text


def _not_empty(path: Path | None) -> Path | None:
    """Refuses `--out ""`, which an unset shell variable makes and which would mean the current folder."""
    if path is not None and str(path) in ("", "."):
        raise typer.BadParameter("name a folder of its own")
    return expanded(path)


def _allow(context: typer.Context, files: list[Path] | None) -> list[Path] | None:
    """Let the code of these files run for the rest of the command."""
    from robust_nas.user_code import allow_code

    context.with_resource(allow_code(files or ()))
    return files


_DOCUMENT: ContextVar[TextIO | None] = ContextVar("document", default=None)  # None: standard output as it is


def _alone(context: typer.Context, wanted: bool) -> bool:
    """Keep standard output for one document: what code of the user's own prints there goes to standard error."""
    if wanted and _DOCUMENT.get() is None:
        context.with_resource(_document_alone())
    return wanted


@contextmanager
def _document_alone() -> Iterator[None]:
    token = _DOCUMENT.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _DOCUMENT.reset(token)


Recipe = Annotated[
    str,
    typer.Argument(
        autocompletion=starting(recipes),
        help="A shipped recipe (quickstart, fashion, dsara-cifar10), a YAML file, or the folder of a run.",
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Config values, such as search.epochs=3.")
]


MODEL_HELP = "A model folder, or a run folder with one in model/, such as results/quickstart."


def out(verb: str) -> Any:
    """Return the option `--out` of a verb, whose help says where it writes without it (`workflows/places.py`)."""
    words = f"Where to write (default: {PLACES[verb].in_words()})."
    return typer.Option("--out", "-o", callback=_not_empty, help=words)


Resume = Annotated[
    bool, typer.Option("--resume", help="Continue what is there; start it if there is nothing.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")]
Json = Annotated[
    bool, typer.Option("--json", callback=_alone, help="Print the result as JSON on standard output.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Live = Annotated[bool, typer.Option("--live", help="Write report.html while it works; an open page follows.")]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", callback=_alone, help="Print the resolved config and stop.")
]

Module = Annotated[
    str | None,
    typer.Option(
        callback=filled,
        metavar="FILE.py:FUNCTION",
        help="Instead of a model folder: a Python file, which is run, and its function that builds the module.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(callback=expanded, help="Weights of the module, a safetensors file (default: as built)."),
]
OtherData = Annotated[
    bool,
    typer.Option("--other-data", help="Take images of another checksum than those of the training."),
]

AllowCode = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow-code",
        callback=_allow,
        help="A Python file that a folder names and that you trust; may be repeated.",
    ),
]

UNBOUNDED = 1_000_000  # columns: nothing is cut off a terminal


def mode_of(resume: bool, overwrite: bool) -> Mode:
    """What the two flags mean together. Raises `ConfigError` for both at once."""
    if resume and overwrite:
        raise ConfigError("--resume continues a run and --overwrite replaces it; give one of them")
    return "resume" if resume else "overwrite" if overwrite else "new"


def are_meant(other_data: bool, recipe: str | None, changes: Sequence[str]) -> bool:
    """Return whether other images than those of the training are meant: by an option, a recipe, or a change of data."""
    from robust_nas.workflows.training_images import names_data

    return other_data or recipe is not None or names_data(changes)


def resolve(
    recipe: str, overrides: list[str] | None, print_config: bool, strategy: str | None = None
) -> RunConfig:
    """The config of a recipe; with `print_config` it is printed and the program ends.

    Warn of attacks that keep an eps of their own where an override changes the threat model's.
    """
    from robust_nas.workflows.config import kept_eps, load_config

    config = load_config(recipe, overrides or (), strategy=strategy)
    keys = {text: text.partition("=")[0].strip() for text in overrides or ()}
    changed = [text for text, key in keys.items() if key.endswith("threat_model.eps")]
    if changed:
        others = [text for text, key in keys.items() if key.rpartition(".")[2] != "eps"]
        with suppress(ConfigError):  # a recipe that has no threat model without the override
            kept = kept_eps(config, load_config(recipe, others, strategy=strategy))
            if kept:
                say(
                    f"warning: {changed[-1]} leaves attacks with an eps of their own as they are: {', '.join(kept)}"
                )
    if print_config:
        print_and_exit(config)
    return config


def print_and_exit(config: JobConfig) -> NoReturn:
    """Print a resolved config as YAML on standard output, and end the program."""
    from robust_nas.workflows.config import printed

    typer.echo(printed(config), file=_DOCUMENT.get(), nl=False)
    raise typer.Exit


def resumed(recipe: str, out: Path | None, resume: bool) -> Path | None:
    """Return `--out`, or the folder that is named in the place of a recipe and is to be resumed; None: the usual."""
    return Path(recipe) if resume and out is None and Path(recipe).is_dir() else out


def say(message: str) -> None:
    """A line for people, on standard error; of several ranks the first says it."""
    if is_first():
        typer.echo(message, err=True)


def print_json(tree: object) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(tree, indent=2), file=_DOCUMENT.get())


@contextmanager
def progress(quiet: bool, live: bool = False) -> Iterator[Report]:
    """Show how far jobs are, as `_shown`; `live` also rewrites the report of the folder that they work in."""
    with _shown(quiet) as shown:
        if not live:
            yield shown
            return
        from robust_nas.workflows.report.live import following

        with following(shown, say=say) as followed:
            yield followed


@contextmanager
def _shown(quiet: bool) -> Iterator[Report]:
    """Bars with rate and time left on a terminal, plain lines elsewhere, nothing when quiet; on standard error."""
    if quiet or not is_first():
        yield silent
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        with Progress(
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True),
        ) as bars:
            yield Bars(bars)
    else:
        yield Lines(say)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output; the first column is left-aligned, the others right."""
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for index, name in enumerate(header):
        shown.add_column(Text(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    console().print(Text(title, style="bold"), soft_wrap=True)
    print_table(shown)


def console() -> Console:
    """Return the console of standard output. What is not ours is printed as `Text`, never parsed as markup."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def print_table(shown: Table) -> None:
    """Print a table: folded to the width of a terminal, and nothing cut or folded elsewhere."""
    out = console()
    if not sys.stdout.isatty():
        out.width = max(out.measure(shown, options=out.options.update(max_width=UNBOUNDED)).maximum, 1)
    out.print(shown)


def percent(value: float) -> str:
    """A share as per cent with one decimal."""
    return f"{100 * value:.1f} %"


def accuracy_rows(tree: Mapping[str, Any]) -> list[list[str]]:
    """The rows of the evaluation table: name, how many it broke of how many, accuracy, interval, images, seconds."""
    from robust_nas.figures import evaluation_bars

    seconds = ["", *(f"{attack['seconds']:.1f}" for attack in tree["attacks"]), f"{tree['seconds']:.1f}"]
    return [
        [
            bar["label"],
            "" if bar["attacked"] is None else f"{bar['broken']} of {bar['attacked']}",
            percent(bar["accuracy"]),
            f"{100 * bar['low']:.1f} .. {100 * bar['high']:.1f}",
            str(bar["images"]),
            time_taken,
        ]
        for bar, time_taken in zip(evaluation_bars(tree), seconds, strict=True)
    ]


ACCURACY_HEADER = ("after", "broke", "still right", "95 % interval", "images", "seconds")
STYLES = {
    "PASS": "green",
    "WARN": "yellow",
    "FAIL": "bold red",
    "NOT RUN": "dim",
    "RELIABLE": "bold green",
    "INCONCLUSIVE": "bold yellow",
    "UNRELIABLE": "bold red",
    "CONCLUSIVE": "bold green",
    "FAILED": "bold red",
}


def show_evidence(tree: Mapping[str, Any]) -> None:
    """Print what was tested, how precise the figure is, findings and verdict, and a sentence for a paper.

    The record may be of an earlier version, which lacks some of it.
    """
    show_warnings(tree)
    if precision := tree["robust"].get("precision"):
        print(_precision(tree, precision))
    show_findings(tree)
    if "sentence" in tree:
        print(f"for a paper: {tree['sentence']}")


def show_warnings(tree: Mapping[str, Any]) -> None:
    """Print which images were tested, and what a reader must know before the figures are believed."""
    if tested := tree.get("tested"):
        print(f"tested: {tested['text']}")
    for before in tree.get("extended", ()):
        images = "all images" if before["images"] is None else f"{before['images']} images"
        attacks = "1 attack" if before["attacks"] == 1 else f"{before['attacks']} attacks"
        print(f"extended: before, {images} and {attacks} (findings: {before['findings']})")
    for warning in tree.get("warnings", ()):
        print(f"warning: {warning['text']}; {warning['advice']}")
    for note in tree.get("notes", ()):
        print(f"note: {note}")


def _precision(tree: Mapping[str, Any], precision: Mapping[str, Any]) -> str:
    """Return how wide the interval of the worst case is, and how many images would make it narrow."""
    robust, width = tree["robust"], f"{100 * precision['width']:.1f}"
    said = f"worst case: {percent(robust['accuracy'])}, its 95 % interval is {width} points wide"
    if precision["width"] <= precision["target"]:
        return said
    available = tree.get("tested", {}).get("available")
    enough = available is None or available >= precision["images"]
    there = "" if enough else f", the test set has {available:,}"
    return (
        f"{said}; about {precision['images']:,} images would give {100 * precision['target']:g} points{there}"
    )


def show_findings(tree: Mapping[str, Any]) -> None:
    """Print the findings that were measured, a line each, the verdict with its reasons, and what else is no PASS."""
    from robust_nas.evaluation.verdict import status_of

    verdict = tree["verdict"]
    # What was not run has no number: its one line is the reason, under the verdict.
    measured = [finding for finding in tree["findings"] if finding["status"] != "NOT RUN"]
    print_findings(measured, ("images", "allowed"))
    print_verdict("verdict", {**verdict, "word": status_of(verdict)}, tree["findings"])


def print_findings(findings: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print a line a finding: status, name, number, and its values of these keys."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=None, show_edge=False, pad_edge=False, box=None)
    for name in ("", "finding", "number", *columns):
        shown.add_column(name, justify="right" if name in ("number", "images") else "left", overflow="fold")
    for finding in findings:
        value = finding["value"]
        shown.add_row(
            Text(finding["status"], style=STYLES[finding["status"]]),
            Text(finding["name"]),
            "" if value is None else f"{value:.4g}",
            *(Text(str(finding[key] or "")) for key in columns),
        )
    if findings:
        print_table(shown)


def print_verdict(title: str, verdict: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> None:
    """Print the word of a verdict, its reasons and the next step, and what else is no PASS."""
    from rich.text import Text

    out, word, reasons = console(), verdict.get("word", verdict["status"]), verdict["reasons"]
    out.print(Text.assemble(f"{title}: ", (word, STYLES[verdict["status"]])))
    lines = [f"  {reason}" for reason in reasons]
    lines += [f"  next: {verdict['next_step']}"] if verdict.get("next_step") else []
    rest = [(one["status"], f"{one['name']}: {one['text']}") for one in findings if one["status"] != "PASS"]
    for line in [*lines, *(f"{status}: {reason}" for status, reason in rest if reason not in reasons)]:
        out.print(Text(line), soft_wrap=True)
