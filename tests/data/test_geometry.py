from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from oneformer_jax.app.settings.evaluation import evaluation_policy
from oneformer_jax.app.spec import Spec
from oneformer_jax.data.datasets.images import read_image
from oneformer_jax.data.geometry import (
    EvaluationPolicy,
    Geometry,
    letterbox,
    resize_and_pad,
    resize_image,
    short_edge,
)

sizes = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@pytest.mark.parametrize(
    ("original", "resized", "padded"),
    [
        # Computed by hand from the rule: short edge 800, long edge at most 1333, int(x + 0.5).
        ((480, 640), (800, 1067), (800, 1088)),
        ((640, 480), (1067, 800), (1088, 800)),
        ((427, 640), (800, 1199), (800, 1216)),
        ((300, 1000), (400, 1333), (416, 1344)),
        ((800, 800), (800, 800), (800, 800)),
    ],
)
def test_short_edge(original: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int]) -> None:
    assert short_edge(original, 800, 1333) == Geometry(original, resized, padded)


@given(sizes, st.integers(32, 1024), st.integers(1, 2000))
def test_short_edge_keeps_its_bounds(original: tuple[int, int], min_size: int, extra: int) -> None:
    geometry = short_edge(original, min_size, min_size + extra)
    height, width = geometry.resized
    assert max(height, width) <= min_size + extra
    assert min(height, width) <= min_size
    for padded, resized in zip(geometry.padded, geometry.resized, strict=True):
        assert padded % 32 == 0
        assert 0 <= padded - resized < 32
    scale = max(height, width) / max(original)
    assert abs(min(height, width) - min(original) * scale) <= 1 + min(original) / max(original)


@given(sizes, st.tuples(st.integers(32, 1500), st.integers(32, 1500)))
def test_letterbox_fills_one_edge(original: tuple[int, int], size: tuple[int, int]) -> None:
    geometry = letterbox(original, size)
    assert geometry.padded == size
    assert geometry.resized[0] == size[0] or geometry.resized[1] == size[1]
    assert all(0 < r <= s for r, s in zip(geometry.resized, size, strict=True))


@pytest.mark.tao(11)
def test_an_evaluated_image_keeps_its_aspect_ratio_unless_it_is_squeezed() -> None:
    assert EvaluationPolicy(480, 640)((300, 400)) == Geometry((300, 400), (480, 640), (480, 640))
    squeezed = EvaluationPolicy(256, 512, squeeze=(100, 100))
    assert squeezed((300, 400)) == Geometry((300, 400), (256, 256), (256, 256))
    assert squeezed.name == "square 100x100, short_edge 256, at most 512"


@pytest.mark.tao(11)
@pytest.mark.parametrize(
    ("keys", "squeeze"),
    [
        ({}, None),
        ({"image_size": 512}, (512, 512)),
        ({"image_size": [640, 480]}, (480, 640)),
        ({"image_size": 512, "augmentation": {"test_geometry": "short_edge"}}, None),
        ({"augmentation": {"test_geometry": "square"}}, (1024, 1024)),
    ],
)
def test_what_squeezes(keys: dict[str, object], squeeze: tuple[int, int] | None) -> None:
    assert evaluation_policy(Spec.model_validate({"dataset": keys})).squeeze == squeeze


def test_padding_is_zero_at_the_bottom_and_right() -> None:
    image = np.full((50, 100, 3), 200, np.uint8)
    padded = resize_and_pad(image, Geometry((50, 100), (40, 80), (64, 96)))
    assert padded.shape == (64, 96, 3)
    assert (padded[:40, :80] == 200).all()
    assert not padded[40:].any()
    assert not padded[:, 80:].any()


def test_an_image_of_another_size_is_a_defect() -> None:
    with pytest.raises(ValueError, match="does not belong"):
        resize_and_pad(np.zeros((4, 5, 3), np.uint8), Geometry((5, 4), (8, 8), (8, 8)))


def test_resizing_maps_pixel_areas() -> None:
    # A linear ramp over pixel areas stays the same linear ramp at every size, apart from the borders.
    ramp = np.repeat(np.arange(4, 244, 4, dtype=np.uint8)[None], 8, axis=0)
    image = np.stack([ramp] * 3, axis=-1)
    for width in (30, 120, 47):
        resized = resize_image(image, (8, width))[0, :, 0].astype(float)
        expected = 4 * (np.arange(width) + 0.5) * 60 / width + 2
        np.testing.assert_allclose(resized[3:-3], expected[3:-3], atol=1.1)


@pytest.mark.parametrize("scale", [0.3, 0.7, 1.67])
def test_close_to_pillows_antialiased_bilinear(shared: Path, scale: float) -> None:
    image = read_image(shared / "data" / "coco_panoptic_sample" / "images" / "000000142238.jpg")
    height, width = (int(edge * scale + 0.5) for edge in image.shape[:2])
    pillow = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)).astype(float)
    ours = np.abs(resize_image(image, (height, width)) - pillow).mean()
    unfiltered = np.abs(cv2.resize(image, (width, height)) - pillow).mean()
    assert ours < (0.6 * unfiltered if scale < 1 else 0.5)
