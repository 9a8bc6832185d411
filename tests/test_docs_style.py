"""The pages keep the rules of their English: short lines, short paragraphs, none of the words that are ruled out.

A line of text has at most 120 characters; tables, code, headings, images and a link that is longer by itself are free.
A paragraph, or an item of a list, has at most four such lines. CHANGELOG.md is history and keeps its form.
"""

import re

import pytest
from package_files import ROOT

WIDTH, LINES = 120, 4
WORDS = r"beside|told|said of|stands|anew|whole way|what is left of"  # a stand-in is none of them
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "results/reference/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
ITEM = re.compile(r" *([-*]|\d+\.) ")
FREE = ("|", "#", "![", "<!--", ":::")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_lines(text):
    """Yield the number and the text of every line outside code and tables; None where a paragraph ends."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r" *(```|~~~)", line)
        if fence or mark:
            fence = None if fence and line.strip() == fence else fence or mark[1]
            yield number, None
        elif not line.strip() or line.startswith(("    ", *FREE)) or line.lstrip().startswith("|"):
            yield number, None
        else:
            yield number, line


def paragraphs(text):
    """Yield the number of the first line and the lines of every paragraph and item of a list."""
    first, lines = 0, []
    for number, line in [*text_lines(text), (0, None)]:
        if lines and (line is None or ITEM.match(line)):
            yield first, lines
            lines = []
        if line is not None:
            first = first if lines else number
            lines.append(line)


def breaches(text):
    """Return what breaks the rules, each with the number of its line."""
    found = []
    for number, line in text_lines(text):
        if line and len(line) > WIDTH and " " in re.sub(r"\[[^\]]*\]\([^)]*\)|`[^`]*`", "", line).strip():
            found.append(f"line {number} has {len(line)} characters")
    for number, lines in paragraphs(text):
        if len(lines) > LINES:
            found.append(f"the paragraph at line {number} has {len(lines)} lines")
    for number, line in enumerate(text.splitlines(), 1):
        words = re.findall(rf"(?i)\b({WORDS})\b", re.sub(r"`[^`]*`", "", line))
        found += [f"line {number} has {word!r}" for word in words]
    return found


@every_page
def test_a_page_keeps_the_rules(page):
    assert breaches(page.read_text()) == []


def test_what_breaks_a_rule_is_found():
    long = "word " * 25
    assert breaches(f"{long}\n") == ["line 1 has 125 characters"]
    assert breaches(f"| {long} |\n\n```\n{long}\n```\n\n    {long}\n\n# {long}\n") == []
    assert breaches("a\n" * 4 + "\n" + "b\n" * 5) == ["the paragraph at line 6 has 5 lines"]
    assert breaches("- a\n  a\n  a\n- b\n  b\n  b\n") == []
    assert breaches("text\n- a\n" + "  a\n" * 4) == ["the paragraph at line 2 has 5 lines"]
    assert breaches("It stands\n| beside | `told` |\n") == ["line 1 has 'stands'", "line 2 has 'beside'"]
    assert breaches(f"[{'x' * 60}]({'y' * 80})\n") == []
