"""CutMix: pixels, segments and prompts come from the same image everywhere."""

import numpy as np
import pytest
from test_pipeline import assert_same, take

from oneformer_jax.data.augmentation import cutmix
from oneformer_jax.data.datasets.dataset import VOID, Dataset, Segment


def sample_of(value: int, planes: int, count: int) -> tuple:
    """An image of one colour; its first plane holds the segments in stripes, further ones the last segment."""
    rows = np.full((planes, 16, 24), VOID, np.int16)
    rows[0] = np.arange(24) % (count + 1) - 1
    rows[1:] = count - 1
    segments = tuple(Segment(100 * value + i, i, False) for i in range(count))
    return np.full((16, 24, 3), value, np.uint8), rows, segments


@pytest.mark.parametrize(("planes", "others"), [(1, 1), (2, 1), (1, 3)])
def test_a_rectangle_is_replaced(planes: int, others: int) -> None:
    ours, theirs = sample_of(1, planes, 3), sample_of(2, others, 2)
    shares = []
    for seed in range(50):
        image, mixed, segments = cutmix(ours, theirs, np.random.default_rng(seed))
        pasted = image[:, :, 0] == 2
        if pasted.any():
            rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
            assert pasted.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert segments == ours[2] + theirs[2]
        assert len(mixed) == max(planes, others)
        for plane in range(len(mixed)):
            mine = ours[1][plane] if plane < planes else np.full((16, 24), VOID)
            other = theirs[1][plane] if plane < others else np.full((16, 24), VOID)
            expected = np.where(pasted, np.where(other == VOID, VOID, other + 3), mine)
            np.testing.assert_array_equal(mixed[plane], expected)
        shares.append(pasted.mean())
    assert ours[0].max() == 1  # the samples themselves stay as they were
    assert 0.35 < np.mean(shares) < 0.65


def test_samples_stay_a_function_of_seed_and_index(train: Dataset) -> None:
    mixed = {"cutmix_prob": 1.0, "max_segments": 16}
    assert_same(take(train, 4, num_workers=2, **mixed), take(train, 4, **mixed))
    assert_same(take(train, 2, start=2, **mixed), take(train, 4, **mixed)[2:])


@pytest.mark.tao(3)
def test_prompts_and_targets_follow_the_mixed_picture(train: Dataset) -> None:
    mixed = take(train, 5, cutmix_prob=1.0, max_segments=16)
    plain = take(train, 5, max_segments=16)
    assert [batch.task.tolist() for batch in mixed] == [batch.task.tolist() for batch in plain]
    assert any((a.images != b.images).any() for a, b in zip(mixed, plain, strict=True))
    for batch in mixed:
        for index, classes, prompts in zip(batch.segment_index, batch.segment_class, batch.prompts, strict=True):
            present = classes[classes >= 0]
            assert sorted(set(np.unique(index)) - {-1}) == list(range(len(present)))
            assert prompts.tolist()[: len(present)] == present.tolist()
