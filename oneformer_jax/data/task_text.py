"""Texts that enter the model, as CLIP tokens: the task, the prompts of the classes and the filler prompts.

Texts and their order are those of Jain et al. 2023, section 3.1. Everything is tokenised offline, once a run.
"""

import html
from collections.abc import Sequence

import ftfy
import numpy as np
from jaxtyping import Int32

from oneformer_jax.data import byte_pairs
from oneformer_jax.errors import SpecError
from oneformer_jax.tasks import TASKS

FILLERS = ("a semantic photo", "an instance photo", "a panoptic photo")


def encode(text: str) -> list[int]:
    """CLIP token ids of a text between its start (49406) and end (49407) tokens, cleaned as CLIP cleans it."""
    cleaned = html.unescape(html.unescape(ftfy.fix_text(text)))
    return [byte_pairs.START, *byte_pairs.encode(cleaned), byte_pairs.END]


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
    rows = [row if len(row) <= context_length else [*row[: context_length - 1], byte_pairs.END] for row in rows]
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
