"""Show the verdict on a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_nas.cli import common


def show(tree: Mapping[str, Any]) -> None:
    """Print the findings, a line each, and the word with its reasons and the next step."""
    from rich.table import Table
    from rich.text import Text

    out = common.console()
    if tree["findings"]:
        shown = Table(title=None, show_edge=False, pad_edge=False, box=None)
        for name in ("", "finding", "number", "allowed", "what to do"):
            shown.add_column(name, justify="right" if name == "number" else "left", overflow="fold")
        for finding in tree["findings"]:
            value = finding["value"]
            passed = finding["status"] == "PASS"
            shown.add_row(
                Text(finding["status"], style=common.STYLES[finding["status"]]),
                Text(finding["name"]),
                "" if value is None else f"{value:.4g}",
                Text(finding["allowed"]),
                Text("" if passed else finding["next_step"]),
            )
        common.print_table(shown)
    word = tree["status"]
    out.print(Text.assemble("verdict on the search: ", (word, common.STYLES[word])))
    for reason in tree["reasons"]:
        out.print(Text(f"  {reason}"), soft_wrap=True)
    if tree["next_step"]:
        out.print(Text(f"  next: {tree['next_step']}"), soft_wrap=True)
    for finding in tree["findings"]:
        reason = f"{finding['name']}: {finding['text']}"
        if finding["status"] != "PASS" and reason not in tree["reasons"]:
            out.print(Text(f"{finding['status']}: {reason}"), soft_wrap=True)
