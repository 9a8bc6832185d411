"""What the pages name exists: links, files of the repository, and modules of the package with their contents."""

import importlib
import re
from pathlib import Path

import pytest

from robust_nas.workflows.export import FILES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "robust_nas"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACES = {"docs", "robust_nas", "scripts", "search_spaces", "tests"}
ROOMS = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
NO_MODULES = {"losses", "hooks", "steps", "schedules", "strategies", "evaluators", "proxies", "activations"}
NO_MODULES |= {
    "rankings",
    "families",
    "datasets",
    "checks",
    "compressors",
    "designs",
    "rules",
    "tables",
    "search_findings",
    "distillers",
    "loggers",
}  # groups of entry points

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@every_page
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if ":" not in target and not (page.parent / target).exists()]
    assert missing == []


@every_page
def test_every_file_of_the_repository_that_is_named_exists(page):
    missing = []
    for path in re.findall(r"(?<![\w/.*<{(-])[\w.-]+(?:/[\w.-]*\w)+(?![\w*<-])", page.read_text()):
        first = path.partition("/")[0]
        own = first in PLACES or path.startswith("results/reference/")
        code = first in ROOMS and path.endswith(".py") and Path(path).name not in FILES.values()
        if own and not any((place / path).exists() for place in (ROOT, page.parent)):
            missing.append(path)
        if code and not (PACKAGE / path).exists():
            missing.append(path)
    assert missing == []


def now(page):
    """Return the text of a page, without what its tables say was."""
    return re.sub(r"(?m)^  \| .*? \| (.*)\|$", r"\1", page.read_text())


@every_page
def test_every_module_and_name_of_the_package_exists(page):
    missing = []
    for name in set(re.findall(r"\brobust_nas((?:\.[A-Za-z_]\w*)+)", now(page))):
        found = importlib.import_module("robust_nas")
        path = "robust_nas"
        for part in name.split(".")[1:]:
            path += f".{part}"
            if not hasattr(found, part):
                try:
                    importlib.import_module(path)
                except ImportError:
                    break
            found = getattr(found, part)
        else:
            continue
        if name.split(".")[1] not in NO_MODULES:
            missing.append(f"robust_nas{name}")
    assert missing == []


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            targets = re.findall(r"\]\(([^)\s#:]+\.md)[^)]*\)", page.read_text())
            waiting += [(page.parent / target).resolve() for target in targets]
    assert sorted(str(page.relative_to(ROOT)) for page in set(PAGES) - reached) == []


def test_the_site_has_every_page_once():
    named = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(named) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES[2:])
