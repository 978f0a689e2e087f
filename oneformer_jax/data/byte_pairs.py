"""CLIP's byte-pair encoding (Sennrich et al. 2016): lower-case text as ids of a published vocabulary, offline."""

import functools
import gzip
import math
import re
import unicodedata
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

START, END = 49406, 49407
_MERGES = Path(__file__).parent / "clip" / "merges.txt.gz"
_WORD_END = "</w>"
_CONTRACTION = re.compile(r"'(?:[stmd]|re|ve|ll)")
# Of the kinds of characters: a run of letters, one numeral, or a run of anything else but white space.
_WORD = re.compile("L+|N|[^ LN]+")


def encode(text: str) -> list[int]:
    """Ids of a text, without start and end token. Upper case and the amount of white space make no difference."""
    return list(chain.from_iterable(map(_ids, _words(text.lower()))))


def _words(text: str) -> Iterator[str]:
    """What is encoded by itself."""
    kinds = "".join(" " if character.isspace() else unicodedata.category(character)[0] for character in text)
    position = 0
    while position < len(text):
        if found := _CONTRACTION.match(text, position) or _WORD.match(kinds, position):
            yield text[position : found.end()]
        position = found.end() if found else position + 1


@functools.cache
def _ids(word: str) -> tuple[int, ...]:
    letters, ranks, ids = _vocabulary()
    parts = [letters[byte] for byte in word.encode()]
    parts[-1] += _WORD_END
    while len(parts) > 1:
        rank, first = min((ranks.get(pair, math.inf), index) for index, pair in enumerate(pairwise(parts)))
        if rank == math.inf:
            break
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return tuple(ids[part] for part in parts)


@functools.cache
def _vocabulary() -> tuple[dict[int, str], dict[tuple[str, str], int], dict[str, int]]:
    """The letter of each byte, the rank of each merge and the id of each part of a word.

    The bytes that Latin-1 prints are their own letters and come first; the others get letters from U+0100 on.
    """
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    letters = {byte: chr(byte) for byte in printed} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    merges = [line.split(" ") for line in gzip.decompress(_MERGES.read_bytes()).decode().split("\n")]
    parts = [*letters.values(), *(letter + _WORD_END for letter in letters.values()), *map("".join, merges)]
    ranks = {(first, second): rank for rank, (first, second) in enumerate(merges)}
    return letters, ranks, {part: index for index, part in enumerate(parts)}
