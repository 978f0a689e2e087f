"""Damaged copies of files: by their bytes, and where they are JSON or YAML by their structure too."""

import json
import random
from collections.abc import Callable
from typing import Any

import yaml

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 255, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", "x", "\0", "a\0b", "../../x", "~", "~nobody/x", "[/x]", "\x1b[31m", "é", "\ud800", "x" * 5000, "1", "1e9"),
    *([], {}, [[]], [None], [1, "x"], {"": 1}, {"id": 1}, [0] * 300, "${results_dir}", "${${x}}", "${x", "???", "0x1f"),
]
CHUNKS = [
    *(b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"{", b"[", b"]", b"}", b'"', b"'"),
    *(
        b"\n",
        b"\r",
        b":",
        b"&a ",
        b"*a",
        b"!!",
        b"<<: ",
        b"${",
        b"}",
        b"%",
        b"PK\x03\x04",
        b"\x89PNG",
        b"\x80\x04",
        b".",
    ),
    *(b"[" * 2000, b"(" * 2000, b"a: " * 500, b"0" * 5000, b"\xed\xa0\x80", b"\xef\xbb\xbf", b"1e999", b"NaN", b"null"),
]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One of the many things that may happen to a file."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [of_bytes]
    if content[:1] in b"[{":
        ways += [of_json] * 2
    elif content.isascii() and b": " in content[:200]:
        ways += [of_yaml]
    result = content
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        result = rng.choice(ways)(result, rng)
    return result


def of_bytes(content: bytes, rng: random.Random) -> bytes:
    """Cut, changed, doubled or with something put in."""
    start = rng.randrange(len(content) + 1)
    length = rng.choice((1, 1, 2, 4, 8, 64, 1000))
    end = min(len(content), start + length)
    match rng.randrange(7):
        case 0:
            return content[:start]
        case 1:
            return content[start:]
        case 2:
            return content[:start] + content[end:]
        case 3:
            return content[:start] + rng.choice(CHUNKS) + content[start:]
        case 4:
            return content[:start] + rng.choice(CHUNKS) + content[end:]
        case 5:
            return content[:end] + content[start:]
        case _:
            flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in content[start:end])
            return content[:start] + flipped + content[end:]


def of_json(content: bytes, rng: random.Random) -> bytes:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return of_bytes(content, rng)
    return json.dumps(_changed(data, rng)).encode()


def of_yaml(content: bytes, rng: random.Random) -> bytes:
    try:
        data = yaml.safe_load(content)
        return yaml.safe_dump(_changed(data, rng)).encode()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return of_bytes(content, rng)


def _changed(data: Any, rng: random.Random) -> Any:
    """Data with one value replaced, moved, left out or put in."""
    places = list(_places(data))
    if not places or rng.random() < 0.02:
        return rng.choice(ODD)
    place, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del place[key]
        case 1:
            other, name = rng.choice(places)
            place[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else other[name:][:1]))
        case 2 if isinstance(place, dict):
            place[rng.choice(["", "future", "\0", "x" * 300])] = rng.choice(ODD)
        case 2:
            place.insert(key, rng.choice(ODD))
        case 3:
            place[key] = [place[key]] if rng.random() < 0.5 else {"x": place[key]}
        case _:
            place[key] = rng.choice(ODD)
    return data


def _places(data: Any) -> Any:
    if isinstance(data, dict):
        for name, value in data.items():
            yield data, name
            yield from _places(value)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield data, index
            yield from _places(value)
