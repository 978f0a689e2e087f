"""Training samples made the usual way, as NVIDIA TAO's OneFormer makes them: whole images, a dense mask a segment.

An independent implementation of those steps with Pillow, NumPy and OpenCV: decode, flip, rotate, change colours, blur,
resize the whole image, erase, look for a crop, pad, normalise to float32, compare the ids with each segment's.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
IGNORED = 255


class Recipe(NamedTuple):
    """Probabilities of what not every recipe does; flip, colours, scale and crop are in all."""

    rotation: float = 0.0
    blur: float = 0.0
    erasing: float = 0.0


class DenseSample(NamedTuple):
    """Float image (3, H, W), boolean masks (N, H, W), their classes, and the class of each pixel (H, W)."""

    image: np.ndarray
    masks: np.ndarray
    classes: np.ndarray
    semantic: np.ndarray


class DensePipeline:
    """Samples of a COCO panoptic folder (`images`, `panoptic`, `annotations.json`)."""

    def __init__(self, folder: Path, crop: int, recipe: Recipe, seed: int = 0) -> None:
        content = json.loads((folder / "annotations.json").read_text())
        self.folder, self.crop, self.recipe, self.seed = folder, crop, recipe, seed
        self.names = {image["id"]: image["file_name"] for image in content["images"]}
        self.annotations = content["annotations"]
        self.contiguous = {category["id"]: i for i, category in enumerate(content["categories"])}
        self.things = {category["id"] for category in content["categories"] if category["isthing"]}

    def __call__(self, sample: int, index: int) -> DenseSample:
        rng = np.random.default_rng((self.seed, sample))
        annotation = self.annotations[index]
        with Image.open(self.folder / "images" / self.names[annotation["image_id"]]) as file:
            image = np.asarray(ImageOps.exif_transpose(file.convert("RGB")))
        with Image.open(self.folder / "panoptic" / annotation["file_name"]) as file:
            colors = np.asarray(file.convert("RGB"), dtype=np.uint32)
        ids = (colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]).astype(np.int32)
        if rng.random() < 0.5:
            image, ids = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(ids[:, ::-1])
        if rng.random() < self.recipe.rotation:
            image, ids = _rotated(image, ids, rng.uniform(-15, 15))
        image = _recoloured(image, rng)
        if rng.random() < self.recipe.blur:
            kernel = int(rng.choice((3, 5, 7)))
            image = cv2.GaussianBlur(image, (kernel, kernel), rng.uniform(0.1, 2.0))
        image, ids = self._resized(image, ids, rng)
        if rng.random() < self.recipe.erasing:
            image, ids = _erased(image, ids, rng)
        image, ids = self._cropped(image, ids, rng)
        return self._targets(*self._padded(image, ids), annotation["segments_info"], rng)

    def _resized(self, image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        short = int(self.crop * rng.uniform(0.1, 2.0))
        scale = min(short / min(height, width), 2 * short / max(height, width))
        size = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
        # OpenCV resizes no 32-bit integers; ids below 2^24 are exact in float32.
        resized_ids = cv2.resize(ids.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), resized_ids

    def _cropped(self, image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        height, width = min(self.crop, image.shape[0]), min(self.crop, image.shape[1])
        for _ in range(10):
            top = int(rng.integers(image.shape[0] - height + 1))
            left = int(rng.integers(image.shape[1] - width + 1))
            labels, counts = np.unique(ids[top : top + height, left : left + width], return_counts=True)
            counts = counts[labels != 0]
            if len(counts) > 1 and counts.max() < 0.6 * counts.sum():
                break
        return image[top : top + height, left : left + width], ids[top : top + height, left : left + width]

    def _padded(self, image: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        side = -(-self.crop // 32) * 32
        bottom, right = side - image.shape[0], side - image.shape[1]
        return np.pad(image, ((0, bottom), (0, right), (0, 0))), np.pad(ids, ((0, bottom), (0, right)))

    def _targets(
        self, image: np.ndarray, ids: np.ndarray, infos: list[dict[str, Any]], rng: np.random.Generator
    ) -> DenseSample:
        normalised = np.ascontiguousarray(((image.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1))
        task = ("semantic", "instance", "panoptic")[int(rng.integers(3))]
        semantic = np.full(ids.shape, IGNORED, np.int64)
        masks: list[np.ndarray] = []
        classes: list[int] = []
        for info in infos:
            if info["iscrowd"] or (task == "instance" and info["category_id"] not in self.things):
                continue
            mask = ids == info["id"]
            category = self.contiguous[info["category_id"]]
            semantic[mask] = category
            if task == "semantic" and category in classes:
                masks[classes.index(category)] |= mask
                continue
            masks.append(mask)
            classes.append(category)
        stacked = np.stack(masks) if masks else np.zeros((0, *ids.shape), bool)
        return DenseSample(normalised, stacked, np.array(classes, np.int64), semantic)


def _rotated(image: np.ndarray, ids: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    turned = cv2.warpAffine(
        ids.astype(np.float32), matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=(IGNORED,)
    )
    return image, turned.astype(np.int32)


def _recoloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    def scaled(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
        return np.clip(image.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)

    image = image[:, :, ::-1]
    if rng.random() < 0.5:
        image = scaled(image, 1.0, rng.uniform(-32, 32))
    contrast_first, contrast = rng.random() < 0.5, rng.random() < 0.5
    if contrast and contrast_first:
        image = scaled(image, rng.uniform(0.5, 1.5), 0.0)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[:, :, 1] = scaled(hsv[:, :, 1], rng.uniform(0.5, 1.5), 0.0)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + int(rng.integers(-18, 19))) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if contrast and not contrast_first:
        image = scaled(image, rng.uniform(0.5, 1.5), 0.0)
    return np.ascontiguousarray(image[:, :, ::-1])


def _erased(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    height, width = image.shape[:2]
    for _ in range(10):
        area, aspect = rng.uniform(0.02, 0.2) * height * width, rng.uniform(0.3, 3.3)
        h, w = int((area * aspect) ** 0.5), int((area / aspect) ** 0.5)
        if 0 < h < height and 0 < w < width:
            top, left = int(rng.integers(height - h)), int(rng.integers(width - w))
            image, ids = image.copy(), ids.copy()
            image[top : top + h, left : left + w] = image.mean((0, 1)).astype(np.uint8)
            ids[top : top + h, left : left + w] = IGNORED
            break
    return image, ids
