"""Damage to the files of finished jobs: in ten ways, by a seed, on a folder that is as it was afterwards."""

import json
import random
from contextlib import contextmanager

import yaml

WRONG = (None, "x", -1, [], {}, True, float("nan"), [["x"]], 1.5)


def kept(folder):
    """Return every file of a folder with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def restored(folder, before):
    """Put the files of a folder back to `before` at the end."""
    try:
        yield
    finally:
        for path in kept(folder):
            if path not in before:
                path.unlink()
        for path, data in before.items():
            if not path.is_file() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def damages(path, data, count):
    """Return `count` damaged contents of a file, of all kinds, by a seed."""
    draw = random.Random(f"{path.name} {len(data)}")  # noqa: S311 - which damage
    parse = _PARSERS.get(path.suffix)
    whole: list = [b"", b"{}", b"[]", b"null", b"7", data[: len(data) // 2], b"\xff\xfe\x00" + data[3:]]
    kinds = [*draw.sample(whole, len(whole)), *[None] * (0 if parse is None else 2 * len(whole))]
    kinds = draw.sample(kinds, len(kinds))  # two of three damaged within, where the file can be read
    found = []
    for number in range(count):
        data_or_none = kinds[number % len(kinds)]
        found.append(parse(data.decode(), draw) if data_or_none is None else data_or_none)
    return found


def _json(text, draw):
    return json.dumps(_changed(json.loads(text), draw)).encode()


def _lines(text, draw):
    lines = text.splitlines()
    number = draw.randrange(len(lines))
    lines[number] = json.dumps(_changed(json.loads(lines[number]), draw))
    return ("\n".join(lines) + "\n").encode()


def _yaml(text, draw):
    return yaml.safe_dump(_changed(yaml.safe_load(text), draw), sort_keys=False).encode()


_PARSERS = {".json": _json, ".jsonl": _lines, ".yaml": _yaml}


def _changed(tree, draw):
    """Return a tree in which one value is removed, or another; a container further in is as likely as its parent."""
    place = tree
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw.choice(keys)
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner) or draw.random() < 0.3:
            break
        place = inner
    if draw.random() < 0.5:
        del place[key]
    else:
        place[key] = draw.choice(WRONG)
    return tree
