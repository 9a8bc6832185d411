"""The commands and blocks of README, tutorials and how-to pages, read as a reader would copy them."""

import re
import shlex
from dataclasses import dataclass

from package_files import ROOT

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs/tutorials").glob("*.md")),
    *sorted((ROOT / "docs/how-to").glob("*.md")),
]
PROGRAMS = "robust-nas|torchrun|pip|python|bash|ray|srun|sbatch|apt-get|ssh|export|source"


@dataclass(frozen=True)
class Command:
    """One command line: its words, and the file that its output goes to."""

    page: str
    words: tuple[str, ...]
    output: str = ""

    def __str__(self):
        return f"{self.page}: {shlex.join(self.words)}"


@dataclass(frozen=True)
class Block:
    """A fenced block of Python or YAML; `file` is the name in a comment on its first line, if there is one."""

    page: str
    kind: str
    text: str
    file: str


def name_of(page):
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


def command(page, line):
    """Return a line as a command; a comment behind it is left out."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    words = [words[0].removeprefix(".venv/bin/"), *words[1:]]
    output = ""
    if ">" in words:
        output = words[words.index(">") + 1]
        words = words[: words.index(">")]
    return Command(name_of(page), tuple(words), output)


def parts(page):
    """Yield the commands and blocks of a page in their order."""
    text = page.read_text().replace("\\\n", " ")
    pattern = re.compile(
        r"(?ms)^```(?P<kind>\w*)\n(?P<body>.*?)^```$"
        rf"|^    (?P<line>(?:\.venv/bin/)?(?:{PROGRAMS}) [^\n]*)$"
        r"|^\|[^|\n]*\| `(?P<cell>robust-nas [^`\n]*)` \|$"
    )
    for match in pattern.finditer(text):
        if match["kind"] == "bash":
            yield from (
                command(page, line) for line in match["body"].splitlines() if line.strip() and line[0] != "#"
            )
        elif match["kind"] in ("python", "yaml"):
            named = re.match(r"# ([\w-]+\.(?:py|yaml))\n", match["body"])
            yield Block(name_of(page), match["kind"], match["body"], named[1] if named else "")
        elif line := match["line"] or match["cell"]:
            yield command(page, line)


def commands():
    """Return every command of every page, in order."""
    return [part for page in PAGES for part in parts(page) if isinstance(part, Command)]


def blocks(kind):
    """Return every block of a kind, of every page, in order."""
    found = [part for page in PAGES for part in parts(page) if isinstance(part, Block)]
    return [block for block in found if block.kind == kind]
