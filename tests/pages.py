"""A strict reader of our HTML pages: balanced, self-contained, nothing that runs."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "hr"}
LARGEST = 3_000_000  # bytes


class Page(HTMLParser):
    """The elements, links and visible text of a page; it fails where a tag is not closed in its place."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.ids, self.links, self.words, self.attributes = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self._seen(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._seen(tag, attrs)

    def handle_endtag(self, tag):
        last = self.open.pop() if self.open else None
        assert last == tag, f"</{tag}> closes {last}, line {self.getpos()[0]}"

    def handle_data(self, data):
        self.words.append(data)

    def _seen(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.ids += [value for key, value in attrs if key == "id"]
        self.links += [
            value for key, value in attrs if key in ("href", "xlink:href", "src", "action", "data")
        ]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read_page(path):
    """Return a page that is whole, opens offline, runs nothing, and is not too large."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert len(text.encode()) < LARGEST
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for tag, key, value in page.attributes:
        assert not key.startswith("on"), (tag, key)
        if key not in ("aria-label", "alt"):  # texts
            assert not re.search(r"https?://|javascript:", value), (tag, key, value)
    assert not re.search(r"@import|url\((?!#)", text)
    return page
