"""Pictures of textured regions, of any size, with any number of segments: data of a known amount for measurements."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

CLASSES = 133
THINGS = 80
CATEGORIES = [{"id": i + 1, "name": f"class {i + 1}", "isthing": int(i < THINGS)} for i in range(CLASSES)]
QUALITY = 90  # of the JPEGs


def write_mosaics(
    folder: Path, count: int, size: tuple[int, int], segments_of: Callable[[int], int], seed: int = 0
) -> None:
    """Writes `folder/{images, panoptic, annotations.json}`: COCO panoptic data of `count` JPEGs of `size` (height,
    width), where picture i shows `segments_of(i)` segments."""
    for name in ("images", "panoptic"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        number = segments_of(i)
        regions = _regions(rng, size, number)
        ids = rng.choice((1 << 24) - 1, number, replace=False) + 1
        colors = _texture(rng, size) + rng.uniform(-60, 60, (number, 3))[regions]
        picture = cv2.imencode(".jpg", np.clip(colors, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        # OpenCV writes the last channel first.
        png = cv2.imencode(".png", np.stack([ids >> 16, ids >> 8 & 255, ids & 255], 1).astype(np.uint8)[regions])[1]
        (folder / "images" / f"{i:06d}.jpg").write_bytes(picture.tobytes())
        (folder / "panoptic" / f"{i:06d}.png").write_bytes(png.tobytes())
        images.append({"id": i, "file_name": f"{i:06d}.jpg", "height": size[0], "width": size[1]})
        infos = [
            {"id": identity, "category_id": category, "iscrowd": 0, "area": area, "bbox": [0, 0, size[1], size[0]]}
            for identity, category, area in zip(
                ids.tolist(),
                rng.integers(1, CLASSES + 1, number).tolist(),
                np.bincount(regions.ravel(), minlength=number).tolist(),
                strict=True,
            )
        ]
        annotations.append({"image_id": i, "file_name": f"{i:06d}.png", "segments_info": infos})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "annotations.json").write_text(json.dumps(content))


def _regions(rng: np.random.Generator, size: tuple[int, int], number: int) -> np.ndarray:
    """The nearest of `number` random pixels to every pixel, none of them without any."""
    places = rng.choice(size[0] * size[1], number, replace=False)
    ys, xs = np.divmod(places, size[1])
    nearest = np.zeros(size, np.intp)
    best = np.full(size, np.inf, np.float32)
    for i, (y, x) in enumerate(zip(ys, xs, strict=True)):
        distance = (
            np.square(np.arange(size[0], dtype=np.float32) - y)[:, None]
            + np.square(np.arange(size[1], dtype=np.float32) - x)[None]
        )
        closer = distance < best
        nearest[closer] = i
        best[closer] = distance[closer]
    return nearest


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Noise of every scale, as photographs have it."""
    texture = np.full((*size, 3), 128, np.float32)
    cell = 4
    while cell < 2 * min(size):
        coarse = rng.normal(0, 1, (-(-size[0] // cell) + 1, -(-size[1] // cell) + 1, 3)).astype(np.float32)
        texture += 4 * cell**0.4 * cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)
        cell *= 4
    return texture + rng.normal(0, 3, (*size, 1)).astype(np.float32)
