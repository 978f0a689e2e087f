import numpy as np
import pytest

from benchmarks.workload import PIXEL_MEAN, PIXEL_STD, AttentionWorkload, Workload


def test_shapes_and_types() -> None:
    workload = Workload("swin_t", 96, batch=2)
    table = workload.prompt_table
    arrays = {
        "pixels": ((2, 96, 96, 3), np.uint8),
        "images": ((2, 96, 96, 3), np.float32),
        "task": ((2, 77), np.int32),
        "segments": ((2, 96, 96), np.int16),
        "segment_class": ((2, 15), np.int32),
        "prompt_table": ((133 + 3, table.shape[1]), np.int32),
        "prompts": ((2, 134), np.int32),
    }
    for name, (shape, dtype) in arrays.items():
        array = getattr(workload, name)
        assert array.shape == shape, name
        assert array.dtype == dtype, name


def test_values() -> None:
    workload = Workload("swin_t", 96, batch=2)
    np.testing.assert_allclose(workload.images * PIXEL_STD + PIXEL_MEAN, workload.pixels, atol=1e-3)
    assert set(np.unique(workload.segments)) <= set(range(-1, 15))
    blocks = workload.segments.reshape(2, 3, 32, 3, 32)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert set(np.unique(workload.segment_class)) <= set(range(133))
    assert (workload.prompts[:, :15] == np.sort(workload.segment_class)).all(), "a prompt for each segment"
    assert (workload.prompts[:, 15:] == 133 + 2).all(), "fillers of the third task, behind the prompts of all classes"


def test_both_sides_get_the_same() -> None:
    one, other = Workload("swin_t", 64, training=True), Workload("swin_t", 64, training=True)
    for name in ("pixels", "segments", "segment_class", "prompts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_names_of_results() -> None:
    assert Workload("swin_t", 512).name == "inference-swin_t-512-b1-cpu"
    assert Workload("swin_l", 640, 2, "gpu", training=True).name == "training-swin_l-640-b2-gpu"
    assert AttentionWorkload(512).name == "deformable_attention-512-b1-cpu"


@pytest.mark.parametrize("size", [64, 512])
def test_one_attention_layer(size: int) -> None:
    workload = AttentionWorkload(size, batch=2)
    value, locations, weights, cotangent = workload.arrays()
    queries = {64: 84, 512: 5376}[size]
    assert value.shape == (2, queries, 8, 32)
    assert locations.shape == (2, queries, 8, 3, 4, 2)
    assert weights.shape == (2, queries, 8, 3, 4)
    assert cotangent.shape == (2, queries, 8 * 32)
    assert {array.dtype for array in (value, locations, weights, cotangent)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(weights.sum((-2, -1)), 1, atol=1e-5)


def test_samples_lie_around_the_querys_own_place() -> None:
    _, locations, _, _ = AttentionWorkload(64).arrays()
    places = [((x + 0.5) / n, (y + 0.5) / n) for n in (8, 4, 2) for y in range(n) for x in range(n)]
    pixels = (locations[0] - np.array(places)[:, None, None, None]) * np.array([8, 4, 2])[:, None, None]
    assert pixels.mean() == pytest.approx(0, abs=0.1)
    assert pixels.std() == pytest.approx(4, abs=0.1)
