"""Byte pairs beside the tokenizer of Hugging Face, which compiles the same rules from another description of them."""

import html

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples
from transformers import CLIPTokenizer

from oneformer_jax.data.task_text import _vocabulary, byte_pair_ids

NAMES = [
    "person",
    "Traffic Light",
    "dining-table",
    "don't they're we've I'm she'd it'll 'S",
    "rock'n'roll ''s !'t",
    "2nd 10,000 ½ Ⅷ ² 3.14",
    "café naïve Straße İstanbul ΣΊΣΥΦΟΣ",
    "中文 日本語 한국어 العربية हिन्दी ไทย",
    "🙂 👩‍👩‍👧 🇩🇪 ❤️",
    "a_b  C++ \t C# \u3000 \u200b &amp; <b> …",
]


@pytest.fixture(scope="module")
def reference() -> CLIPTokenizer:
    _, ranks, ids = _vocabulary()
    return CLIPTokenizer(vocab=ids | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}, merges=list(ranks))


def test_the_vocabulary_has_the_size_and_ids_that_clip_publishes() -> None:
    _, ranks, ids = _vocabulary()
    assert (len(ranks), len(ids)) == (48894, 49406)
    assert [ids[part] for part in ("!", "!</w>", "in", "a</w>", "photo</w>", "jekyll</w>")] == [
        *(0, 256, 512, 320, 1125, 49405),
    ]


@pytest.mark.parametrize("text", NAMES)
def test_names(text: str, reference: CLIPTokenizer) -> None:
    assert byte_pair_ids(text) == reference.encode(text.lower(), add_special_tokens=False)


# Without unassigned characters, which another version of Unicode may know.
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cn", "Cc", "Co"))) | st.lists(
    st.sampled_from(" ".join(NAMES).split(" "))
).map(" ".join)


@settings(max_examples=examples(500))
@given(text=TEXTS)
def test_any_text(text: str, reference: CLIPTokenizer) -> None:
    cleaned = html.unescape(html.unescape(ftfy.fix_text(text)))
    # CLIP lowers the whole text, which writes the last letter of ΣΊΣΥΦΟΣ as ς; Hugging Face lowers letter by letter.
    assert byte_pair_ids(cleaned) == reference.encode(cleaned.lower(), add_special_tokens=False)
