"""A small data set of drawn pictures whose classes differ by shape only.

Every segment, stuff included, draws its colour from one and the same distribution, so colour says nothing about the
class: what learns this has learned shapes (`nearest_colour_baseline` measures what colours alone give). Each picture
holds two touching things of one class, and things may hide one another. Things stand upright, give or take a small
tilt, and all borders are inked like those of a drawing: without them, between random colours, networks need far longer
to notice that shape is what counts.
"""

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8

from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.data.datasets.dataset import Dataset, front
from oneformer_jax.data.datasets.images import panoptic_colors
from oneformer_jax.stopping import ignore_signals
from oneformer_jax.writing import appearing_in

CATEGORIES = Categories(
    (
        Category(1, "disk", True, (220, 60, 60)),
        Category(2, "square", True, (60, 180, 75)),
        Category(3, "triangle", True, (0, 130, 200)),
        Category(4, "cross", True, (245, 190, 40)),
        Category(5, "ring", True, (145, 30, 180)),
        Category(6, "ground", False, (170, 170, 170)),
        Category(7, "band", False, (70, 70, 70)),
    )
)
_THINGS = 5
_GROUND, _BAND = 5, 6

_SUPERSAMPLING = 4
_MIN_COLOR_DISTANCE = 50.0  # Euclidean in RGB, between any two segments of a picture
_MIN_VISIBLE = 0.5  # of each segment's area
_MIN_AREA = 0.01  # of the picture, for every segment
_MIN_CONTACT = 6  # pixels along which the touching pair meets, before anti-aliased drawing moves the edges
_TILT = np.pi / 12  # of the upright things, at most to either side
_INK = 25.0  # grey value of the lines along all borders
_NOISE = 5.0  # standard deviation of the noise of each pixel

_WORTH_PROCESSES = 500  # pictures in a split: fewer are drawn sooner than processes start

_NEIGHBOURS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # pixels that share an edge

Polygons = list[Float[np.ndarray, "n 2"]]


def write_drawn_shapes(
    folder: Path,
    split_sizes: Mapping[str, int],
    size: int = 128,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Writes `folder/<split>/{images, panoptic, annotations.json}` and `folder/label_map.json`.

    Args:
        split_sizes: number of pictures of each split, for example `{"train": 800, "val": 100}`. Picture i of a split
            depends on the seed, the split's position and i only, not on how many there are.
        size: edge length of the square pictures in pixels; shapes scale with it.
        progress: gets how many pictures are drawn.
    """
    with appearing_in(folder) as fresh:
        _write_splits(fresh, split_sizes, size, seed, progress)


def _write_splits(
    folder: Path, split_sizes: Mapping[str, int], size: int, seed: int, progress: Callable[[int], None]
) -> None:
    drawn = 0

    def counted(annotations: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        nonlocal drawn
        for annotation in annotations:
            drawn += 1
            progress(drawn)
            yield annotation

    (folder / "label_map.json").write_text(json.dumps(CATEGORIES.to_json(), indent=1))
    for position, (split, count) in enumerate(split_sizes.items()):
        for name in ("images", "panoptic"):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        write = partial(_write_picture, folder / split, size, (seed, position))
        if count < _WORTH_PROCESSES:
            annotations = list(counted(map(write, range(count))))
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(mp_context=context, initializer=ignore_signals) as pool:
                annotations = list(counted(pool.map(write, range(count), chunksize=50)))
        images = [
            {"id": annotation["image_id"], "file_name": annotation["file_name"], "height": size, "width": size}
            for annotation in annotations
        ]
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES.to_json()}
        (folder / split / "annotations.json").write_text(json.dumps(content))


def _write_picture(folder: Path, size: int, seed: tuple[int, int], i: int) -> dict[str, Any]:
    """Writes picture i of a split and returns its annotation."""
    image, ids = draw_picture(size, np.random.default_rng((*seed, i)))
    name = f"{i:06d}.png"
    for kind, pixels in (("images", image), ("panoptic", panoptic_colors(ids))):
        (folder / kind / name).write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return {"image_id": i, "file_name": name, "segments_info": _segments_info(ids)}


def draw_picture(
    size: int, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "size size 3"], Int32[np.ndarray, "size size"]]:
    """An RGB picture and its segment ids: 1000 * category id + a number from 1 on."""
    while True:
        layers, classes = _layout(size, rng)
        index = np.zeros(layers[0].shape, np.uint8)
        for i, layer in enumerate(layers):
            index[layer] = i
        if _is_valid(index, layers):
            break
    half = _SUPERSAMPLING // 2
    ids = np.array([1000 * CATEGORIES.items[c].id + n for n, c in enumerate(classes, start=1)], np.int32)
    image = _paint(index, len(layers), size, rng)
    return image, ids[index[half::_SUPERSAMPLING, half::_SUPERSAMPLING]]


def _layout(size: int, rng: np.random.Generator) -> tuple[list[Bool[np.ndarray, "s s"]], list[int]]:
    """Masks from back to front, supersampled, and their class indices: ground, band, things, the touching pair."""
    edge = size * _SUPERSAMPLING
    layers, classes = [np.ones((edge, edge), bool), _mask(_band(size, rng), edge)], [_GROUND, _BAND]
    for _ in range(rng.integers(1, 4)):
        kind = int(rng.integers(_THINGS))
        layers.append(_mask(_shape(kind, *_pose(size, rng)), edge))
        classes.append(kind)
    kind = int(rng.integers(_THINGS))
    center, radius, angle = _pose(size, rng)
    _, other_radius, other_angle = _pose(size, rng)
    direction = rng.uniform(0, 2 * np.pi)
    step = np.array([np.cos(direction), np.sin(direction)])
    # The second thing approaches from a random direction until it meets the first (found on a coarse canvas).
    reach = cv2.dilate(_mask(_shape(kind, center, radius, angle), size, scale=1).astype(np.uint8), _NEIGHBOURS)
    start = _shape(kind, center, other_radius, other_angle)
    for distance in np.arange(1.3 * (radius + other_radius), 0, -0.5):
        other = [outline + distance * step for outline in start]
        if (_mask(other, size, scale=1) & (reach > 0)).sum() >= _MIN_CONTACT:
            break
    return [*layers, _mask(_shape(kind, center, radius, angle), edge), _mask(other, edge)], [*classes, kind, kind]


def _is_valid(index: UInt8[np.ndarray, "s s"], layers: list[Bool[np.ndarray, "s s"]]) -> bool:
    """Whether every segment shows enough of itself inside the picture and the pair in front touches."""
    visible = np.bincount(index.ravel(), minlength=len(layers))
    whole = np.array([layer.sum() for layer in layers])  # inside the picture, hidden or not
    if (visible < _MIN_VISIBLE * whole).any() or visible.min() < _MIN_AREA * index.size:
        return False
    small = index[_SUPERSAMPLING // 2 :: _SUPERSAMPLING, _SUPERSAMPLING // 2 :: _SUPERSAMPLING]
    first = cv2.dilate((small == len(layers) - 2).astype(np.uint8), _NEIGHBOURS)
    return bool((first.astype(bool) & (small == len(layers) - 1)).any())


def _pose(size: int, rng: np.random.Generator) -> tuple[Float[np.ndarray, "2"], float, float]:
    """Centre (x, y), radius, both in pixels, and angle of a thing."""
    radius = size * rng.uniform(0.12, 0.2)
    return rng.uniform(radius, size - radius, 2), float(radius), float(rng.uniform(-_TILT, _TILT))


def _band(size: int, rng: np.random.Generator) -> Polygons:
    """A straight strip across the whole picture."""
    angle, width = rng.uniform(0, np.pi), size * rng.uniform(0.14, 0.24)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    center = size * rng.uniform(0.25, 0.75, 2)
    corners = [(-2, -0.5), (2, -0.5), (2, 0.5), (-2, 0.5)]
    return [np.stack([center + a * size * along + b * width * across for a, b in corners])]


def _shape(kind: int, center: Float[np.ndarray, "2"], radius: float, angle: float) -> Polygons:
    """Outlines of a thing; the area between two outlines is filled (ring)."""
    name = CATEGORIES.items[kind].name
    if name == "cross":
        arm, half = 1.2 * radius, 0.36 * radius
        x = np.array([half, half, arm, arm, half, half, -half, -half, -arm, -arm, -half, -half])
        y = np.array([-arm, -half, -half, half, half, arm, arm, half, half, -half, -half, -arm])
        return [center + _outline(np.arctan2(y, x) + angle, np.hypot(x, y))]
    if name in ("triangle", "square"):
        corners = {"triangle": 3, "square": 4}[name]
        return [center + _outline((np.arange(corners) + 0.5) * 2 * np.pi / corners + np.pi / 2 + angle, 1.2 * radius)]
    circle = np.linspace(0, 2 * np.pi, 72, endpoint=False) + angle
    return [center + _outline(circle, r * radius) for r in {"disk": (1.0,), "ring": (1.1, 0.55)}[name]]


def _outline(angles: Float[np.ndarray, " n"], radii: Float[np.ndarray, " n"] | float) -> Float[np.ndarray, "n 2"]:
    """Corners (x, y) around the origin."""
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)


def _mask(polygons: Polygons, edge: int, scale: int = _SUPERSAMPLING) -> Bool[np.ndarray, "s s"]:
    canvas = np.zeros((edge, edge), np.uint8)
    # Coordinates with 4 fractional bits. Several outlines in one call fill by the even-odd rule.
    points = [np.round((p * scale - 0.5) * 16).astype(np.int32) for p in polygons]
    cv2.fillPoly(canvas, points, (1,), lineType=cv2.LINE_8, shift=4)
    return canvas.astype(bool)


def _paint(
    index: UInt8[np.ndarray, "s s"], count: int, size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "size size 3"]:
    """Colours, inked and anti-aliased borders, an uneven light and noise; none of it depends on the class."""
    colors: list[Any] = []
    while len(colors) < count:
        color = rng.uniform(90, 255, 3)
        if all(np.linalg.norm(color - other) > _MIN_COLOR_DISTANCE for other in colors):
            colors.append(color)
    # Later colours had to avoid earlier ones; the shuffle makes all segments draw from one distribution.
    palette = rng.permutation(np.array(colors, np.float32))
    image = palette[index]
    image[_borders(index)] = _INK
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    light = cv2.resize(rng.normal(0, 10, (4, 4)), (size, size), interpolation=cv2.INTER_CUBIC)
    image = image + light[..., None] + rng.normal(0, _NOISE, image.shape)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _borders(index: UInt8[np.ndarray, "s s"]) -> Bool[np.ndarray, "s s"]:
    """A line along every border between segments, a pixel and a half wide in the final picture."""
    width = round(1.5 * _SUPERSAMPLING)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return cv2.dilate(index, kernel) != cv2.erode(index, kernel)


def _segments_info(ids: Int32[np.ndarray, "h w"]) -> list[dict[str, Any]]:
    infos = []
    for segment in np.unique(ids).tolist():
        mask = (ids == segment).view(np.uint8)
        area, box = int(np.count_nonzero(mask)), list(cv2.boundingRect(mask))
        infos.append({"id": segment, "category_id": segment // 1000, "iscrowd": 0, "area": area, "bbox": box})
    return infos


def nearest_colour_baseline(train_dataset: Dataset) -> Callable[[np.ndarray], np.ndarray]:
    """How well colours alone predict the classes: the baseline that a segmentation model must exceed.

    A classifier of single pixels: the most frequent training class of the pixel's colour, in a 16^3 histogram.

    Returns a function from an image (H, W, 3) uint8 RGB to class indices (H, W); colours never seen get the class
    with the most training pixels.
    """
    num_classes = len(train_dataset.categories)
    counts = np.zeros((16**3, num_classes), np.int64)
    for i, record in enumerate(train_dataset.records):
        # Crowds and void (the last entry, for row -1) count for no class.
        class_of = np.array([-1 if segment.iscrowd else segment.category for segment in record.segments] + [-1])
        classes = class_of[front(train_dataset.read_segments(i))]
        labelled = classes >= 0
        cells = _cells(train_dataset.read_image(i))[labelled] * num_classes + classes[labelled]
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
    table = np.where(counts.any(-1), counts.argmax(-1), counts.sum(0).argmax())

    def predict(image: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
        return table[_cells(image)]

    return predict


def _cells(image: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    red, green, blue = (image[..., c].astype(np.intp) >> 4 for c in range(3))
    return (red << 8) | (green << 4) | blue
