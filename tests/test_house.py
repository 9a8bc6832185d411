"""Rules of the house that a machine can check."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent


def imported(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (alias.name for alias in node.names)


def test_tests_import_no_tests():
    tests = {path.stem for path in TESTS.rglob("test_*.py")}
    found = [
        f"{path.relative_to(TESTS)} imports {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for name in imported(path)
        if tests & set(name.split("."))
    ]
    assert found == []


def test_files_of_tests_have_names_of_their_own():
    """Pytest puts every folder of tests on the path: of two modules of one name, one would be imported for both."""
    names = [path.stem for path in TESTS.rglob("*.py") if path.stem not in ("conftest", "__init__")]
    assert sorted(names) == sorted(set(names))


def test_no_stored_file_names_a_path_of_a_machine():
    stored = [
        path
        for folder in ("tests/fixtures", "results/reference", "docs", "search_spaces")
        for path in (TESTS.parent / folder).rglob("*")
    ]
    texts = [path for path in stored if path.suffix in (".json", ".jsonl", ".yaml", ".md", ".csv", ".html")]
    assert texts
    named = re.compile(r"(?<![\w.])/(tmp|home|root|work|Users)/\w")
    assert [str(path) for path in texts if named.search(path.read_text(encoding="utf-8"))] == []
