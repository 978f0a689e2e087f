"""Texts that enter the model, as CLIP tokens: the task, the prompts of the classes and the filler prompts.

Texts and their order are those of Jain et al. 2023, section 3.1. Everything is tokenised offline, once a run, by CLIP's
byte-pair encoding (Sennrich et al. 2016): lower-case text as ids of a published vocabulary.
"""

import functools
import gzip
import html
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

import ftfy
import numpy as np
from jaxtyping import Int32

from oneformer_jax.errors import SpecError
from oneformer_jax.tasks import TASKS

START, END = 49406, 49407
FILLERS = ("a semantic photo", "an instance photo", "a panoptic photo")

_MERGES = Path(__file__).parent / "clip" / "merges.txt.gz"
_WORD_END = "</w>"
_CONTRACTION = re.compile(r"'(?:[stmd]|re|ve|ll)")
# Of the kinds of characters: a run of letters, one numeral, or a run of anything else but white space.
_WORD = re.compile("L+|N|[^ LN]+")


def encode(text: str) -> list[int]:
    """CLIP token ids of a text between its start (49406) and end (49407) tokens, cleaned as CLIP cleans it."""
    cleaned = html.unescape(html.unescape(ftfy.fix_text(text)))
    return [START, *byte_pair_ids(cleaned), END]


def task_tokens(pad_id: int, length: int) -> Int32[np.ndarray, "3 length"]:
    """`The task is ...` for each of `TASKS`, padded with `pad_id`: the raw ids are the task MLP's input.

    The pad id belongs to the weights: 0 in the original and in Hugging Face's conversion, 49407 in TAO.
    Raises SpecError: `length` is too short to distinguish the tasks.
    """
    rows = [encode(f"The task is {task}") for task in TASKS]
    longest = max(map(len, rows))
    if length < longest:
        raise SpecError(f"task texts need {longest} tokens, but task_seq_len is {length}", where="dataset.task_seq_len")
    return np.array([row + [pad_id] * (length - len(row)) for row in rows], np.int32)


def prompt_table(names: Sequence[str], context_length: int = 77) -> Int32[np.ndarray, "n length"]:
    """Tokens of all prompts: rows 0..K-1 are `a photo with a {name}`, row K + i is the filler of task i.

    Rows are padded with 0 and cut to the longest real length: the text encoder is causal and read at the end token,
    so columns behind it change nothing. Longer texts lose their last words, as in CLIP.
    """
    rows = [encode(text) for text in (*(f"a photo with a {name}" for name in names), *FILLERS)]
    rows = [row if len(row) <= context_length else [*row[: context_length - 1], END] for row in rows]
    length = max(map(len, rows))
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int32)


def prompt_rows(
    classes: Sequence[int] | Int32[np.ndarray, " n"], task: int, num_classes: int, num_prompts: int
) -> Int32[np.ndarray, " p"]:
    """Rows of the prompt table for one image: one per object ordered by class, cut at `num_prompts`, then fillers."""
    rows = np.full(num_prompts, num_classes + task, np.int32)
    objects = np.sort(np.asarray(classes, np.int32))[:num_prompts]
    rows[: len(objects)] = objects
    return rows


def byte_pair_ids(text: str) -> list[int]:
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
