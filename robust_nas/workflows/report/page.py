"""The page of every report: one template and one style, and figures of a folder inside it.

All texts are escaped by the template. An SVG file is not trusted: it is parsed, refused where it holds more than
drawing, and written again, with ids that are the figure's own and without links out of the page.
"""

from __future__ import annotations

import base64
import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robust_nas.errors import RunError

LARGEST_PNG = 400_000  # bytes
_DRAWING = frozenset(
    {
        *(
            "svg",
            "g",
            "path",
            "defs",
            "use",
            "text",
            "tspan",
            "clipPath",
            "rect",
            "circle",
            "line",
            "polyline",
        ),
        *(
            "polygon",
            "ellipse",
            "image",
            "style",
            "title",
            "desc",
            "linearGradient",
            "radialGradient",
            "stop",
        ),
        *("marker", "pattern", "mask", "symbol"),
    }
)
_NAMED = re.compile(r"url\(\s*['\"]?#([^)'\"]+)['\"]?\s*\)")


@cache
def environment(*folders: Path) -> Environment:
    """Return the environment of templates in these folders, and of the page's own; everything is escaped."""
    loader = ChoiceLoader([FileSystemLoader(folder) for folder in (*folders, Path(__file__).parent)])
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def picture(path: Path, prefix: str) -> Markup:
    """Return a figure's file as an element of a page. Raise `RunError` for one that may not be in it."""
    if path.suffix == ".svg":
        return inline(path, prefix)
    data = path.read_bytes()
    if not data.startswith(b"\x89PNG") or len(data) > LARGEST_PNG:
        raise RunError(f"{path.name}: is no PNG of at most {LARGEST_PNG} bytes")
    text = base64.b64encode(data).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(path.stem, text)


def inline(path: Path, prefix: str) -> Markup:
    """Return an SVG file as an element of a page: ids made the figure's own, no metadata, a third wider at most.

    Raises `RunError` for a file that is no SVG, and for one that holds scripts or links out of the page.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    start = text.find("<svg")
    try:
        root = ElementTree.fromstring(text[start:])  # noqa: S314 - without a DOCTYPE: no entities
    except ElementTree.ParseError as error:
        raise RunError(f"{path.name}: is no SVG: {error}") from None
    _refuse_more_than_drawing(root, path.name)
    _rename(root, prefix)
    width = re.fullmatch(r"([0-9.]+)pt", root.get("width") or "")
    if width is not None:
        points = float(width[1])
        root.set("style", f"width: 100%; max-width: {1.35 * points:g}pt; min-width: min(620px, {points:g}pt)")
        del root.attrib["width"], root.attrib["height"]
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - written from checked elements


def _refuse_more_than_drawing(root: ElementTree.Element, name: str) -> None:
    """Remove namespaces and metadata; raise `RunError` where anything else than drawing is left."""
    for parent in root.iter():
        for child in [one for one in parent if _local(one.tag) == "metadata"]:
            parent.remove(child)
    for element in root.iter():
        tag = element.tag = _local(element.tag)
        if tag not in _DRAWING:
            raise RunError(f"{name}: is not shown: it holds a {str(tag)[:40]!r}, which is no drawing")
        attributes = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update(attributes)
        texts = [*attributes.values(), element.text or ""] if tag == "style" else list(attributes.values())
        for key, value in attributes.items():
            inside = value.startswith(("#", "data:image/png;base64,"))
            if key.lower().startswith("on") or (key in ("href", "src") and not inside):
                raise RunError(f"{name}: is not shown: its {key!r} leads out of the page")
        if any("@import" in text or "url(" in _NAMED.sub("", text) for text in texts):
            raise RunError(f"{name}: is not shown: its style leads out of the page")


def _rename(root: ElementTree.Element, prefix: str) -> None:
    """Make the ids of a drawing its own, and what refers to them."""
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{prefix}-{value}")
            elif key == "href" and value.startswith("#"):
                element.set(key, f"#{prefix}-{value[1:]}")
            elif "url(" in value:
                element.set(key, _NAMED.sub(rf"url(#{prefix}-\1)", value))


def _local(name: Any) -> str:
    """Return a name without its namespace; what is no element is `comment`."""
    return name.rpartition("}")[2] if isinstance(name, str) else "comment"
