"""`robust-nas spaces`: list, show, draw, sample and import search spaces and their architectures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robust_nas.cli import common
from robust_nas.cli.count import Cells, Channels, Classes, Input, input_shape
from robust_nas.errors import ConfigError, RunExistsError

if TYPE_CHECKING:
    from robust_nas.spaces import Architecture

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", callback=common.expanded, help="Write the YAML here instead of printing it."),
]

app = typer.Typer(
    help="List, show, draw, sample and import search spaces and architectures.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command("list")
def list_all(json: common.Json = False) -> None:
    """List the shipped search spaces and architectures.

    Example: [bold]robust-nas spaces list[/bold]
    """
    from robust_nas.spaces import count, load_architecture, load_space, names_in_words, shipped_names

    spaces = [load_space(name) for name in shipped_names()]
    architectures = [load_architecture(name) for name in shipped_names("architectures")]
    if json:
        common.print_json(
            {"spaces": [s.name for s in spaces], "architectures": [a.name for a in architectures]}
        )
        return
    common.table(
        "search spaces",
        ("name", "cell kinds", "nodes", "operations", "filters", "search", "final"),
        [
            [
                space.name,
                ", ".join(space.kinds),
                str(space.nodes),
                str(len(space.operations)),
                ":".join(map(str, space.layout.filters)),
                f"{space.search.cells} cells, {space.search.channels} ch.",
                f"{space.network.cells} cells, {space.network.channels} ch.",
            ]
            for space in spaces
        ],
    )
    costs = [(a, count(a)) for a in architectures]
    common.table(
        "architectures (input 3x32x32, 10 classes)",
        ("name", "type", "size", "params", "MACs"),
        [[a.name, a.type, a.describe(), f"{c.params:,}", f"{c.macs / 1e6:,.2f} M"] for a, c in costs],
    )
    print(f"and by name: {names_in_words()}")


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(help="A space or an architecture: shipped name, a family's name (wrn-D-k), or file."),
    ],
    allow_code: common.AllowCode = None,
    json: common.Json = False,
) -> None:
    """Print a space or an architecture as the YAML it is read from.

    Example: [bold]robust-nas spaces show arnas[/bold]
    """
    from robust_nas.config import to_dict, to_yaml
    from robust_nas.spaces import is_shipped, load_architecture, load_space

    known = is_shipped("architectures", name) or (not is_shipped("", name) and _is_architecture(name))
    found = load_architecture(name) if known else load_space(name)
    if json:
        common.print_json(to_dict(found))
        return
    typer.echo(to_yaml(found), nl=False)


def _is_architecture(path: str) -> bool:
    from robust_nas.config import existing_file, expand_path, read_yaml
    from robust_nas.spaces import named_architecture

    if expand_path(path).is_dir():
        return True
    if (file := existing_file(path)) is not None:  # keys that spaces alone have
        return {"nodes", "edges_per_node", "operations", "search"}.isdisjoint(read_yaml(file))
    return named_architecture(path) is not None


@app.command("import")
def import_one(
    file: Annotated[
        Path,
        typer.Argument(
            callback=common.expanded,
            help="Genotype(...) text (a genotypes.py, a log), or a NAS-Bench-201 string.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(callback=common.filled, help="Which genotype, where the file holds several.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            callback=common.filled,
            help="Its search space, a name or a file (default: by its kinds of cells).",
        ),
    ] = None,
    cells: Cells = None,
    channels: Channels = None,
    out: Out = None,
    allow_code: common.AllowCode = None,
    json: common.Json = False,
) -> None:
    """Turn published cells into an architecture file; the text is parsed and checked, never executed.

    Example: [bold]robust-nas spaces import genotypes.py --name PC_DARTS_cifar --out pc_darts.yaml[/bold]

    In Python: robust_nas.spaces.import_architecture(pathlib.Path("genotypes.py"), name="PC_DARTS_cifar")
    """
    from robust_nas.spaces import import_architecture

    _refuse_taken(out)
    found = import_architecture(file, name=name, space=space, cells=cells, channels=channels)
    if found.mismatch:
        common.say(f"note: it is not of the space {found.space.name}: {found.mismatch}")
    _write_or_print(found.architecture, out, json)


@app.command()
def draw(
    architecture: Annotated[
        str, typer.Argument(help="A shipped name, a YAML file, or a folder that holds one.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", callback=common.expanded, help="Stem of the files (default: <name>-cells)."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    allow_code: common.AllowCode = None,
    json: common.Json = False,
) -> None:
    """Draw the cells of an architecture as PNG and SVG, with their edges as CSV.

    Example: [bold]robust-nas spaces draw arnas --out arnas[/bold]

    In Python: robust_nas.draw_architecture(robust_nas.load_architecture("arnas"), pathlib.Path("arnas"))
    """
    from robust_nas.spaces import is_shipped, load_architecture
    from robust_nas.workflows.search import draw_architecture

    if is_shipped("", architecture):
        raise ConfigError(f"{architecture} is a search space; draw an architecture of it (`spaces sample`)")
    found = load_architecture(architecture)
    stem = out or Path(f"{found.name}-cells")
    if not stem.name:
        raise ConfigError(
            f"--out: got {str(stem)!r}; the stem of the files is needed, such as drawings/arnas"
        )
    taken = [
        path
        for path in (stem.with_name(stem.name + end) for end in (".png", ".svg", ".csv"))
        if path.exists()
    ]
    if taken and not overwrite:
        raise RunExistsError(
            f"{taken[0]}: exists already; replace it with --overwrite, or choose another --out"
        )
    caption = f"{found.name}: {found.describe()}"
    paths = draw_architecture(found, stem, caption=caption)
    if json:
        common.print_json({"files": [str(path) for path in paths]})
        return
    for path in paths:
        print(path)


@app.command()
def sample(
    space: Annotated[str, typer.Argument(help="A shipped space or a YAML file.")],
    macs: Annotated[
        str | None, typer.Option(callback=common.filled, help="Accepted MACs as LOW:HIGH, such as 0.5G:0.6G.")
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(callback=common.filled, help="Accepted parameters as LOW:HIGH, such as 3M:4M."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.", min=0)] = 0,
    input: Input = "3x32x32",
    classes: Classes = 10,
    cells: Cells = None,
    channels: Channels = None,
    out: Out = None,
    allow_code: common.AllowCode = None,
    json: common.Json = False,
) -> None:
    """Draw a random architecture of a space within a budget: the control that a search needs.

    Example: [bold]robust-nas spaces sample dsara --macs 1.2G:1.3G --seed 1 --out random.yaml[/bold]

    In Python: robust_nas.sample(robust_nas.load_space("dsara"), 1, macs=(1.2e9, 1.3e9))
    """
    from robust_nas.spaces import Size, load_space
    from robust_nas.spaces import sample as draw_one

    found = load_space(space)
    size = Size(cells=cells or found.network.cells, channels=channels or found.network.channels)
    architecture = draw_one(
        found,
        seed,
        macs=limits("--macs", macs),
        params=limits("--params", params),
        size=size,
        input_shape=input_shape(input),
        classes=classes,
    )
    _write_or_print(architecture, out, json)


def _refuse_taken(out: Path | None) -> None:
    """Raise `RunExistsError` for a file that is there."""
    if out is not None and out.exists():
        raise RunExistsError(f"{out}: exists already; choose another file")


def _write_or_print(architecture: Architecture, out: Path | None, json: bool) -> None:
    """Write the YAML of an architecture to a new file and print its name, or print the YAML, or the JSON."""
    from robust_nas.config import to_dict
    from robust_nas.run_folder import write_atomic

    _refuse_taken(out)
    if out is not None:
        write_atomic(out, architecture.to_yaml().encode())
    if json:
        common.print_json(to_dict(architecture))
    elif out is not None:
        print(out)
    else:
        typer.echo(architecture.to_yaml(), nl=False)


def limits(option: str, text: str | None) -> tuple[float, float] | None:
    """Return the two numbers of a text such as `0.5G:0.6G`. Raises `ConfigError`."""
    if text is None:
        return None
    from robust_nas.search.window import parse_window

    try:
        return parse_window(text)
    except ValueError as error:
        raise ConfigError(f"{option}: got {text!r}; {error}") from None
