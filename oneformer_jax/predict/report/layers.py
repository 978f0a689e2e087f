"""A picture as a report shows it: as it is, with its annotation, with what was predicted, and with what is wrong."""

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import Size, letterbox, resize_image
from oneformer_jax.evaluation.gallery import as_panoptic, things_alone
from oneformer_jax.evaluation.metrics import GroundTruth
from oneformer_jax.postprocess.results import PanopticResult, Result
from oneformer_jax.predict.draw import draw_panoptic

EDGE = 640
"""Pixels of the longer edge, at most."""
MISSED, WRONG_CLASS, OTHER_OBJECT = 1, 2, 3
COLORS = {MISSED: (66, 133, 244), WRONG_CLASS: (234, 67, 53), OTHER_OBJECT: (251, 188, 4)}
ERRORS = {MISSED: "missed", WRONG_CLASS: "wrong class", OTHER_OBJECT: "right class, another object"}
LAYERS = ("picture", "annotation", "prediction", "errors")

Picture = UInt8[np.ndarray, "_ _ 3"]


def layers_of(
    image: Picture,
    truth: GroundTruth,
    result: Result,
    categories: Categories,
    is_thing: Bool[np.ndarray, " k"],
    min_score: float,
) -> dict[str, Picture]:
    """`LAYERS` of an image, within `EDGE`. The prediction is that of the task that tells most; of instances, those that
    reach `min_score`, and things alone are right or wrong."""
    found = as_panoptic(result, image.shape[:2], min_score)
    if result.panoptic is None and result.semantic is None:
        truth = things_alone(truth, is_thing)
    true = truth.as_panoptic()
    wrong = errors(found, truth, is_thing)
    size = min(letterbox(wrong.shape, (EDGE, EDGE)).resized, wrong.shape)
    small = resize_image(image, size)

    def shown(segments: PanopticResult, *, scores: bool) -> Picture:
        return draw_panoptic(small, replace(segments, ids=_resized(segments.ids, size)), categories, scores=scores)

    has_scores = result.panoptic is not None or result.semantic is None
    drawn = small, shown(true, scores=False), shown(found, scores=has_scores), _marked(small, _resized(wrong, size))
    return dict(zip(LAYERS, drawn, strict=True))


def errors(found: PanopticResult, truth: GroundTruth, is_thing: Bool[np.ndarray, " k"]) -> UInt8[np.ndarray, "h w"]:
    """`MISSED` where something is annotated and nothing predicted, `WRONG_CLASS`, and `OTHER_OBJECT` where a thing is
    predicted as part of one that it does not match (an intersection over union above 0.5 does); 0 where it is right,
    and where nothing is annotated."""
    class_of = np.array([-1, *(segment.category for segment in found.segments)], np.int32)
    predicted, real = class_of[found.ids], truth.class_map()
    wrong = np.zeros(real.shape, np.uint8)
    wrong[(real >= 0) & (predicted != real)] = WRONG_CLASS
    wrong[(real >= 0) & (predicted < 0)] = MISSED
    rows, columns = len(truth.categories) + 1, len(class_of)
    pairs = (truth.index.astype(np.int64) + 1) * columns + found.ids
    together = np.bincount(pairs.ravel(), minlength=rows * columns).reshape(rows, columns)
    # Row 0 is void, which counts in no union.
    union = together.sum(axis=0) + together.sum(axis=1)[:, None] - together - together[0]
    matches = together > 0.5 * np.maximum(union, 1)
    countable = np.append(False, is_thing[truth.categories] & ~truth.iscrowd)
    other = countable[truth.index + 1] & (predicted == real) & ~matches[truth.index + 1, found.ids]
    wrong[other] = OTHER_OBJECT
    return wrong


def _resized(numbers: np.ndarray, size: Size) -> np.ndarray:
    return cv2.resize(numbers, size[::-1], interpolation=cv2.INTER_NEAREST)


def _marked(image: Picture, wrong: UInt8[np.ndarray, "h w"]) -> Picture:
    """Over the picture in pale grey."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 2 + 100
    drawn = np.repeat(grey[..., None], 3, axis=-1)
    for kind, color in COLORS.items():
        drawn[wrong == kind] = drawn[wrong == kind] // 3 + np.array(color, np.uint8) // 3 * 2
    return drawn
