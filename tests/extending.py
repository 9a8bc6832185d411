"""The examples of docs/how-to/extending.md, which the tests of plugins run as they stand on the page."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "extending.md"
EXAMPLES = {
    match["file"]: match["text"]
    for match in re.finditer(r"```python\n# (?P<file>\w+\.py)\n(?P<text>.*?)```", PAGE.read_text(), re.DOTALL)
}


def example(file):
    """Return the source of an example."""
    return EXAMPLES[file]
