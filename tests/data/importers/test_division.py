"""Which pictures validate: a share of them, always the same, whole groups where names show some."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneformer_jax.data.importers.division import divided
from oneformer_jax.data.importers.reader import Item


def items(*names: str, split: str = "") -> list[Item]:
    return [Item(name, Path(name), (), split) for name in names]


def names_of(found: list[Item]) -> list[str]:
    return [item.name for item in found]


@given(
    names=st.lists(st.text("ab_/0123", min_size=1, max_size=8), unique=True, min_size=2, max_size=60),
    share=st.floats(0.01, 0.5),
)
def test_every_picture_is_in_one_split_and_both_have_some(names: list[str], share: float) -> None:
    found = divided(items(*names), share, [])
    assert sorted(name for split in found.values() for name in names_of(split)) == sorted(names)
    assert set(found) == {"train", "val"}
    assert names_of(divided(items(*reversed(names)), share, []).get("val", [])) == names_of(found["val"])[::-1]


def test_frames_of_a_video_stay_together() -> None:
    names = [f"video{video:02d}/{frame:04d}" for video in range(20) for frame in range(10)]
    guesses: list[str] = []
    found = divided(items(*names), 0.1, guesses)
    held = {name.split("/")[0] for name in names_of(found["val"])}
    assert len(held) == 2
    assert held.isdisjoint(name.split("/")[0] for name in names_of(found["train"]))
    assert "in whole groups of the 20 that names show" in guesses[0]


def test_of_few_long_sequences_the_ends_validate() -> None:
    names = [f"{video}_{frame}" for video in ("0001TP", "Seq05VD_f") for frame in range(2, 102)]
    guesses: list[str] = []
    found = divided(items(*names), 0.1, guesses)
    assert names_of(found["val"]) == [f"{video}_{n}" for video in ("0001TP", "Seq05VD_f") for n in range(92, 102)]
    assert "which flatters the scores" in guesses[0]


def test_pictures_without_groups_are_drawn() -> None:
    guesses: list[str] = []
    found = divided(items(*(f"img_{number}" for number in range(100))), 0.2, guesses)
    assert len(found["val"]) == 20
    assert names_of(found["val"]) != [f"img_{number}" for number in range(80, 100)]
    assert "at random, always the same" in guesses[0]


def test_what_the_source_says_counts() -> None:
    told = [*items("a1", "a2", split="train"), *items("b1", split="val"), *items("c1", split="test"), *items("d1")]
    guesses: list[str] = []
    found = divided(told, 0.5, guesses)
    assert {split: names_of(chosen) for split, chosen in found.items()} == {
        "train": ["a1", "a2", "d1"],
        "val": ["b1"],
        "test": ["c1"],
    }
    assert guesses == ["1 pictures are of no split that the source names: they train."]


@pytest.mark.parametrize(("count", "share"), [(1, 0.1), (10, 0.0)])
def test_nothing_validates_where_nothing_can_or_should(count: int, share: float) -> None:
    assert set(divided(items(*map(str, range(count))), share, [])) == {"train"}
