"""What mkdocs does with the links that leave docs/: it copies the files, so that the pages have the same links built.

A page says `../../scripts/launch/slurm.sbatch`, which works on a git host; the site has `repository/scripts/...`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

LINK = re.compile(r"\]\(((?:\.\./)+[^)\s#]+)")
COPIES = "repository"  # folder of the site


def outside(page: Path, target: str, docs: Path) -> str | None:
    """Return the path of a link's file from the repository's root where it is not in docs/, else None."""
    found = Path(os.path.normpath(page.parent / target))
    return None if found.is_relative_to(docs) else found.relative_to(docs.parent).as_posix()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that a page links to."""
    from mkdocs.structure.files import File

    docs = Path(config.docs_dir)
    for file in list(files.documentation_pages()):
        page = docs / file.src_uri
        for target in LINK.findall(file.content_string):
            path = outside(page, target, docs)
            if path and f"{COPIES}/{path}" not in files.src_uris:
                files.append(File.generated(config, f"{COPIES}/{path}", abs_src_path=str(docs.parent / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the text of a page with links to the copies."""
    docs = Path(config.docs_dir)
    source = docs / page.file.src_uri

    def to_copy(match: re.Match[str]) -> str:
        path = outside(source, match[1], docs)
        if path is None:
            return match[0]
        return f"]({os.path.relpath(docs / COPIES / path, source.parent)}"

    return LINK.sub(to_copy, markdown)
