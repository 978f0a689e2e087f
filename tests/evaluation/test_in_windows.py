"""Large pictures in windows, by a backend whose answers are known: what is drawn is found, once and exactly."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from by_color import CATEGORIES, THINGS, ByColor, picture_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from tiers import examples

from oneformer_jax.data.geometry import Letterbox
from oneformer_jax.errors import DataError, OneFormerError
from oneformer_jax.evaluation.backend import Asked
from oneformer_jax.evaluation.in_windows import result_in_windows
from oneformer_jax.postprocess.assembled import Assembled
from oneformer_jax.postprocess.joining import Joining
from oneformer_jax.postprocess.results import Result, Thresholds
from oneformer_jax.postprocess.tiles import interpolate_rows
from oneformer_jax.postprocess.windows import Windows
from oneformer_jax.predict.predictor import Predictor
from oneformer_jax.tasks import TASKS

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
ASKED = Asked(TASKS, CATEGORIES.is_thing, Thresholds())


def found_in(ids: np.ndarray, classes: list[int], side: int, overlap: int, batch_size: int = 4) -> Result:
    backend, windows = ByColor(), Windows(side, overlap)
    picture = picture_of(ids, classes)
    result = result_in_windows(backend, picture, windows, Letterbox((side, side)), ASKED, batch_size)
    assert set(backend.shapes) == {(batch_size, side, side, 3)}, "one program for all"
    return result


def check(result: Result, ids: np.ndarray, classes: list[int]) -> None:
    """Every thing of the picture once, with all of its pixels; every class of stuff once."""
    class_map = np.asarray(classes)[ids]
    np.testing.assert_array_equal(result.semantic, class_map)
    things = sorted(number for number in np.unique(ids).tolist() if classes[number] < THINGS)
    expected = {
        (classes[number], coco_mask.encode(np.asfortranarray(ids == number).view(np.uint8))["counts"])
        for number in things
    }
    instances = [instance for instance in result.instance or () if instance.score > 0.5]  # the others: other classes
    assert len(instances) == len(things)
    assert {(instance.category, instance.mask["counts"]) for instance in instances} == expected
    for instance in instances:
        assert instance.box == tuple(coco_mask.toBbox(instance.mask).tolist())
        assert instance.score > 0.99

    assert result.panoptic is not None
    segments = result.panoptic.segments
    stuff = {k for k in np.unique(class_map).tolist() if k >= THINGS}
    assert len(segments) == len(things) + len(stuff)
    assert sorted(segment.id for segment in segments) == list(range(1, len(segments) + 1))
    for segment in segments:
        mask = result.panoptic.ids == segment.id
        assert segment.area == mask.sum()
        if segment.isthing:
            encoded = coco_mask.encode(np.asfortranarray(mask).view(np.uint8))
            assert (segment.category, encoded["counts"]) in expected
        else:
            np.testing.assert_array_equal(mask, class_map == segment.category)
            stuff.remove(segment.category)
    assert not stuff


def drawn(side: int) -> tuple[np.ndarray, list[int]]:
    """Things of two classes over two kinds of ground: over all of the picture, over seams, two that touch at one, a
    ring, one that is thinner than what windows share, and one that lies alone in a corner where four windows meet."""
    ids, classes = np.zeros((side, side), np.int32), [2]
    ids[side // 2 :] = 1
    classes.append(3)

    def thing(kind: int) -> int:
        classes.append(kind)
        return len(classes) - 1

    unit = side / 2048
    rng = np.random.default_rng(0)
    centres = [(x, y) for y in range(128, 2048, 256) for x in range(128, 2048, 256)]
    for number, (x, y) in enumerate(centres[8:-8]):
        radius = round(unit * rng.integers(20, 110))
        place = (round(unit * (x + rng.integers(-16, 16))), round(unit * (y + rng.integers(-16, 16))))
        cv2.circle(ids, place, radius, thing(number % 2), -1)
    cv2.rectangle(ids, (0, round(90 * unit)), (side, round(150 * unit)), thing(0), -1)
    cv2.rectangle(ids, (round(100 * unit), round(40 * unit)), (round(384 * unit), round(80 * unit)), thing(1), -1)
    cv2.rectangle(ids, (round(384 * unit) + 1, round(40 * unit)), (round(700 * unit), round(80 * unit)), thing(1), -1)
    cv2.circle(ids, (side // 2, side // 2), round(700 * unit), thing(1), max(1, round(30 * unit)))
    cv2.line(ids, (0, side - 1), (side - 1, side - 1 - round(200 * unit)), thing(0), 3)
    corner = round(384 * unit) + 4
    ids[corner : corner + 6, corner : corner + 6] = thing(0)
    return ids, classes


def test_a_drawn_picture() -> None:
    ids, classes = drawn(256)
    check(found_in(ids, classes, 128, 32), ids, classes)


# Its small sibling is `test_a_drawn_picture`.
@pytest.mark.prove
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_drawn_picture_of_2048_in_tiles_of_512(batch_size: int) -> None:
    ids, classes = drawn(2048)
    check(found_in(ids, classes, 512, 128, batch_size), ids, classes)


@settings(max_examples=examples(10))
@given(st.integers(32, 80), st.integers(32, 80), st.integers(1, 16), st.integers(0, 2**16))
@example(32, 39, 1, 50)  # a thing in the last pixel
def test_rectangles_anywhere(height: int, width: int, overlap: int, seed: int) -> None:
    """Whatever the sizes are. No two lie over each other: parts of one thing that is cut in two are two things."""
    rng = np.random.default_rng(seed)
    ids, classes = np.zeros((height, width), np.int32), [2]
    for _ in range(6):
        y0, y1 = np.sort(rng.choice(height + 1, 2, replace=False))
        x0, x1 = np.sort(rng.choice(width + 1, 2, replace=False))
        if not ids[y0:y1, x0:x1].any():
            classes.append(int(rng.integers(0, 2)))
            ids[y0:y1, x0:x1] = len(classes) - 1
    check(found_in(ids, classes, 32, overlap), ids, classes)


def test_logits_that_are_not_finite_are_no_result() -> None:
    class Diverged(ByColor):
        def predict(self, *arguments):  # type: ignore[no-untyped-def]
            found = super().predict(*arguments)
            return {task: (np.full_like(classes, np.nan), masks) for task, (classes, masks) in found.items()}

    picture = picture_of(np.zeros((40, 40), np.int32), [0])
    for task in TASKS:
        asked = Asked([task], CATEGORIES.is_thing, Thresholds())
        with pytest.raises(OneFormerError, match="not finite"):
            result_in_windows(Diverged(), picture, Windows(32, 8), Letterbox((32, 32)), asked)


def test_windows_cover_the_picture_evenly() -> None:
    windows = Windows(512, 128)
    assert len(windows.of((2048, 2048))) == 25
    assert len(windows.of((512, 513))) == 2
    (only,) = windows.of((300, 512))
    assert (only.rows, only.columns) == (slice(0, 300), slice(0, 512))
    for size in ((2048, 700), (513, 5000)):
        parts = windows.of(size)
        assert {part.size for part in parts} == {(min(512, size[0]), min(512, size[1]))}
        owned = np.zeros(size, int)
        for part in parts:
            owned[part.own_rows, part.own_columns] += 1
        assert (owned == 1).all()
        for one, after in pairwise(parts):
            if one.rows == after.rows:
                assert one.columns.stop - after.columns.start >= 128
    for wrong in (0, 257):
        with pytest.raises(ValueError, match=f"overlap by 1 to 256 pixels, not {wrong}"):
            Windows(512, wrong)
    for side in (1, 0, -5):
        with pytest.raises(ValueError, match=f"2 pixels or more a side .* not {side} and"):
            Windows.of_sides(side, None)


def logits(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (3, 5)).astype(np.float32), rng.normal(0, 4, (3, *size)).astype(np.float32)


@pytest.mark.parametrize("overlap", [8, 16])
def test_classes_are_those_of_the_weighted_votes_of_all_windows(overlap: int) -> None:
    """Against sums at full size, with masks interpolated as a whole."""
    size, windows = (60, 44), Windows(32, overlap)
    parts, geometry = windows.of(size), Letterbox((32, 32))((32, 32))
    assembled = Assembled(size, parts, overlap, ASKED.is_thing, ASKED.thresholds, ["semantic"])
    total = np.zeros((4, *size))
    for number, part in enumerate(parts):
        class_logits, mask_logits = logits(number, (8, 8))
        assembled.add(number, {"semantic": (class_logits, mask_logits)}, geometry)
        probabilities = np.exp(class_logits) / np.exp(class_logits).sum(axis=1, keepdims=True)
        across = np.stack([interpolate_rows(mask.T, 32).T for mask in mask_logits.astype(np.float64)])
        masks = 1 / (1 + np.exp(-np.stack([interpolate_rows(mask, 32) for mask in across])))
        for y in range(32):
            for x in range(32):
                row, column = part.rows.start + y, part.columns.start + x
                weight = 1.0
                for place, edge, length in ((row, part.rows, size[0]), (column, part.columns, size[1])):
                    if edge.start > 0:
                        weight *= min(1, (place + 0.5 - edge.start) / overlap)
                    if edge.stop < length:
                        weight *= min(1, (edge.stop - place - 0.5) / overlap)
                total[:, row, column] += weight * probabilities[:, :-1].T @ masks[:, y, x]
    best = np.sort(total, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(assembled.result().semantic[clear], total.argmax(axis=0)[clear])


def test_what_one_window_sees_worse_is_joined_and_what_agrees_too_little_is_not() -> None:
    """Two windows side by side, which share the columns 24 to 32: shares of 6 of 8 and 3 of 8 columns."""
    parts = Windows(32, 8).of((16, 56))
    joining = Joining(parts)
    for number, columns in ((0, [(20, 32), (2, 6)]), (1, [(2, 20), (14, 22)])):
        masks = []
        for rows, (start, stop) in zip(((0, 4), (8, 12)), columns, strict=True):
            mask = np.zeros((16, 32), np.uint8, order="F")
            mask[slice(*rows), start:stop] = 1
            masks.append((0, 0.5 + stop / 100, coco_mask.encode(mask)))
        joining.add(number, masks)
    found = joining.wholes()
    assert [(one.rows, one.columns, one.mask.all()) for one in found if one.rows.start == 0] == [
        (slice(0, 4), slice(20, 44), True)
    ]
    assert [one.score for one in found if one.rows.start == 0] == [0.7], "that of the window which shows most of it"
    assert len(found) == 3

    apart = Joining(parts)
    for number, (start, stop) in enumerate([(20, 32), (5, 20)]):
        mask = np.zeros((16, 32), np.uint8, order="F")
        mask[:4, start:stop] = 1
        apart.add(number, [(0, 0.9, coco_mask.encode(mask))])
    assert len(apart.wholes()) == 2


@pytest.mark.parametrize(
    ("window", "columns", "kept"),
    [
        (0, (26, 32), False),  # ends at a seam, and the other window shows all of it and more
        (0, (20, 32), True),  # more than the other one shows
        (0, (26, 31), True),  # does not end there
        (1, (0, 6), False),
        (1, (26, 32), True),  # ends where the picture does
        (0, (0, 4), True),
    ],
)
def test_the_end_of_a_thing_that_its_window_shows_worse_is_no_thing(
    window: int, columns: tuple[int, int], kept: bool
) -> None:
    """Whose other part the other window does not find; at the upper edge of the picture, which is no seam."""
    joining = Joining(Windows(32, 8).of((16, 56)))
    mask = np.zeros((16, 32), np.uint8, order="F")
    mask[:4, slice(*columns)] = 1
    joining.add(window, [(0, 0.9, coco_mask.encode(mask))])
    assert len(joining.wholes()) == kept


def test_pictures_of_any_size_are_read_for_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    ids = np.zeros((64, 80), np.int32)
    Image.fromarray(picture_of(ids, [2])).save(tmp_path / "large.png")
    policy = Letterbox((32, 32))
    model = Predictor("by color", "stand-in", ByColor(), CATEGORIES, ByColor.num_classes, policy)
    with pytest.raises(DataError, match="more pixels than"):
        model(tmp_path / "large.png")
    found = model(tmp_path / "large.png", "semantic", tile=32)
    assert found.semantic is not None
    assert (found.semantic == 2).all()
    with pytest.raises(DataError, match="more pixels than"):
        model(tmp_path / "large.png")
