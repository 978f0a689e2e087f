import numpy as np
import pytest

from oneformer_jax.data.task_text import encode, prompt_rows, prompt_table, task_tokens
from oneformer_jax.errors import SpecError

# Token ids of OpenAI's CLIP tokenizer.
SEMANTIC = [49406, 518, 10549, 533, 29119, 1550, 49407]
INSTANCE = [49406, 518, 10549, 533, 34572, 49407]
PANOPTIC = [49406, 518, 10549, 533, 1072, 24755, 49407]


@pytest.mark.tao(34, 35)
@pytest.mark.parametrize("pad", [0, 49407])
def test_task_tokens(pad: int) -> None:
    tokens = task_tokens(pad, 77)
    assert tokens.shape == (3, 77)
    for row, real in zip(tokens.tolist(), (SEMANTIC, INSTANCE, PANOPTIC), strict=True):
        assert row == real + [pad] * (77 - len(real))


def test_task_texts_that_do_not_fit_are_refused() -> None:
    assert task_tokens(0, 7).shape == (3, 7)
    with pytest.raises(SpecError, match="need 7 tokens"):
        task_tokens(0, 6)


def test_prompt_table_is_cut_to_the_longest_row() -> None:
    assert prompt_table(["person", "traffic light"]).tolist() == [
        [49406, 320, 1125, 593, 320, 2533, 49407, 0],
        [49406, 320, 1125, 593, 320, 3399, 1395, 49407],
        [49406, 320, 29119, 1550, 1125, 49407, 0, 0],
        [49406, 550, 34572, 1125, 49407, 0, 0, 0],
        [49406, 320, 1072, 24755, 1125, 49407, 0, 0],
    ]


def test_long_names_keep_their_end_token() -> None:
    table = prompt_table(["very " * 100 + "long"])
    assert table.shape == (4, 77)
    assert table[0, -1] == 49407
    assert prompt_table(["very " * 100 + "long"], context_length=10).shape == (4, 10)


@pytest.mark.parametrize(
    ("text", "same"), [("caf&amp;eacute;", "café"), ("A  Photo\n", "a photo"), ("âœ” no problem", "✔ no problem")]
)
def test_texts_are_cleaned_before_they_are_tokenised(text: str, same: str) -> None:
    assert encode(text) == encode(same)


def test_prompts_are_ordered_cut_and_filled() -> None:
    assert prompt_rows([4, 1, 4], 2, 10, 5).tolist() == [1, 4, 4, 12, 12]
    assert prompt_rows(np.array([4, 1, 4], np.int32), 0, 10, 2).tolist() == [1, 4]
    assert prompt_rows([], 1, 10, 2).tolist() == [11, 11]
