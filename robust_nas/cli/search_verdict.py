"""Show the verdict on a search."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robust_nas.cli import common


def show(tree: Mapping[str, Any], folder: Path, *, briefly: bool = False) -> None:
    """Print the findings, a line each, and the word with its reasons and the next step, a command for this folder.

    Briefly: without the findings.
    """
    from robust_nas.workflows.search_verdict import FOLDER

    def here(entry: Mapping[str, Any]) -> dict[str, Any]:
        texts = {
            key: value.replace(FOLDER, shlex.quote(str(folder)))
            for key, value in entry.items()
            if key in TEXTS
        }
        return {**entry, **texts}

    findings = [here(finding) for finding in tree["findings"]]
    verdict = {**here(tree), "reasons": [here({"text": reason})["text"] for reason in tree["reasons"]]}
    done = [{**one, STEP: "" if one["status"] == "PASS" else one["next_step"]} for one in findings]
    if not briefly:
        common.print_findings(done, ("allowed", STEP))
    common.print_verdict("verdict on the search", verdict, [] if briefly else findings)


TEXTS = ("text", "next_step")
STEP = "what to do"
