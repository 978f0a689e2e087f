"""Random augmentation of one training image and its segments. Pure: all randomness comes from the generator given.

What is drawn follows NVIDIA TAO's OneFormer (flip, SSD colours, scale jitter, constrained crop, and behind their
probabilities rotation, blur and erasing). The order of the pixel work differs where the result is the same in
distribution: only the cropped region is coloured and flipped. Erasing acts on the crop, not on the whole image.

Axes: h w pixels of the image, hc wc of the crop, r planes of a segment map.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Int16, UInt8

from oneformer_jax.data.datasets.dataset import VOID, Segment
from oneformer_jax.data.geometry import Size, letterbox, resize_image, short_edge

PAD_COLOR = 128
_CROP_TRIES = 10
_ERASING_TRIES = 10
_LONGEST_TURNED = 2**15 - 2  # pixels, of cv2.warpAffine


@dataclass(frozen=True)
class AugmentationSettings:
    """`crop` is (height, width) in pixels, the size of every training image. Probabilities lie in 0..1.

    The scale jitter brings the short edge to `crop[0] * U(min_scale, max_scale)`, the long edge to at most twice
    that. Where there are `short_sizes`, the short edge is one of them instead, the long edge at most `longest`. A crop
    is drawn again, up to ten times, while one segment covers `crop_max_area` of its labelled pixels.
    """

    crop: Size = (1024, 1024)
    min_scale: float = 0.1
    max_scale: float = 2.0
    short_sizes: tuple[int, ...] = ()
    longest: int = 1333
    flip_prob: float = 0.5
    color_prob: float = 0.5
    rotation_prob: float = 0.0
    rotation_degrees: float = 15.0
    blur_prob: float = 0.0
    erasing_prob: float = 0.0
    crop_max_area: float = 0.6


def augment(
    image: UInt8[np.ndarray, "h w 3"],
    planes: Int16[np.ndarray, "r h w"],
    settings: AugmentationSettings,
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "hc wc 3"], Int16[np.ndarray, "r hc wc"]]:
    """An augmented image of size `settings.crop` and its planes of segments (see `Dataset.read_segments`)."""
    if rng.random() < settings.rotation_prob:
        image, planes = _rotate(image, planes, rng.uniform(-settings.rotation_degrees, settings.rotation_degrees))
    if rng.random() < settings.blur_prob:
        kernel = int(rng.choice((3, 5, 7)))
        image = cv2.GaussianBlur(image, (kernel, kernel), rng.uniform(0.1, 2.0))
    image, planes = _jitter_and_crop(image, planes, settings, rng)
    if rng.random() < settings.flip_prob:
        image, planes = flip(image, planes)
    image = jitter_color(image, settings.color_prob, rng)
    if rng.random() < settings.erasing_prob:
        image, planes = _erase(image, planes, rng)
    return _pad(image, planes, settings.crop)


def flip(
    image: UInt8[np.ndarray, "h w 3"], planes: Int16[np.ndarray, "r h w"]
) -> tuple[UInt8[np.ndarray, "h w 3"], Int16[np.ndarray, "r h w"]]:
    """Mirrors left and right."""
    return cv2.flip(image, 1), np.stack([cv2.flip(plane, 1) for plane in planes])


def scaled_size(original: Size, short: int) -> Size:
    """(height, width) with the short edge at `short`, aspect kept, unless the long edge would exceed `2 * short`."""
    height, width = original
    scale = min(short / min(height, width), 2 * short / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def _drawn_size(original: Size, settings: AugmentationSettings, rng: np.random.Generator) -> Size:
    if settings.short_sizes:
        return short_edge(original, int(rng.choice(settings.short_sizes)), settings.longest).resized
    return scaled_size(original, max(1, int(settings.crop[0] * rng.uniform(settings.min_scale, settings.max_scale))))


def _jitter_and_crop(
    image: UInt8[np.ndarray, "h w 3"],
    planes: Int16[np.ndarray, "r h w"],
    settings: AugmentationSettings,
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "hc wc 3"], Int16[np.ndarray, "r hc wc"]]:
    original = image.shape[:2]
    size = _drawn_size(original, settings, rng)
    height, width = (min(edge, limit) for edge, limit in zip(size, settings.crop, strict=True))
    # The source pixel under the centre of each target pixel.
    source_y, source_x = (
        (np.arange(target) + 0.5) * (source / target) for target, source in zip(size, original, strict=True)
    )
    near_y, near_x = source_y.astype(np.intp), source_x.astype(np.intp)
    stride_y, stride_x = -(-height // 256), -(-width // 256)  # every pixel of a crop up to 256, a sample of larger ones
    for _ in range(_CROP_TRIES):
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        sample = planes[:, near_y[top : top + height : stride_y]][:, :, near_x[left : left + width : stride_x]]
        counts = np.bincount(sample.ravel() + np.intp(1))[1:]
        if counts.max(initial=0) < settings.crop_max_area * counts.sum():
            break
    planes = planes.take(near_y[top : top + height], axis=1).take(near_x[left : left + width], axis=2)
    # Resizing the whole image costs less than a warp of the crop alone, up to twice the size (measured).
    image = resize_image(image, size)[top : top + height, left : left + width]
    return np.ascontiguousarray(image), planes


def _rotate(
    image: UInt8[np.ndarray, "h w 3"], planes: Int16[np.ndarray, "r h w"], degrees: float
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], Int16[np.ndarray, "r h2 w2"]]:
    """Turns about the centre on the same canvas; corners mirror the image and belong to no segment.

    Longer edges than OpenCV turns are shortened before: crops show such images at a fraction of their size.
    """
    if max(image.shape[:2]) > _LONGEST_TURNED:
        size = letterbox(image.shape[:2], (_LONGEST_TURNED, _LONGEST_TURNED)).resized
        image = resize_image(image, size)
        planes = np.stack([cv2.resize(plane, size[::-1], interpolation=cv2.INTER_NEAREST) for plane in planes])
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turned = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    turned_planes = [
        cv2.warpAffine(
            plane, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=(VOID,)
        )
        for plane in planes
    ]
    return turned, np.stack(turned_planes)


def jitter_color(
    image: UInt8[np.ndarray, "h w 3"], probability: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Brightness +-32, contrast and saturation x 0.5..1.5, hue +-36 degrees, each with `probability` (Liu et al. 2016).

    Contrast comes before or after the change of hue and saturation, with equal chance.
    """
    coins = rng.random(4) < probability
    brightness = rng.uniform(-32, 32) if coins[0] else 0.0
    contrast = rng.uniform(0.5, 1.5) if coins[1] else 1.0
    saturation = rng.uniform(0.5, 1.5) if coins[2] else 1.0
    hue = int(rng.integers(-18, 19)) if coins[3] else 0
    contrast_first = rng.random() < 0.5
    # All four act on one channel value at a time, so lookup tables of 256 entries do the work.
    levels = np.arange(256, dtype=np.float64)
    before = np.clip(levels + brightness, 0, 255)
    if contrast_first:
        before = np.clip(before * contrast, 0, 255)
    if coins[0] or (coins[1] and contrast_first):
        image = cv2.LUT(image, before.astype(np.uint8))
    if coins[2] or coins[3]:
        # OpenCV's hue counts half degrees, 0..179.
        channels = np.stack([(levels + hue) % 180, np.clip(levels * saturation, 0, 255), levels], axis=-1)
        hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), channels[None].astype(np.uint8))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if coins[1] and not contrast_first:
        image = cv2.LUT(image, np.clip(levels * contrast, 0, 255).astype(np.uint8))
    return image


def _erase(
    image: UInt8[np.ndarray, "h w 3"], planes: Int16[np.ndarray, "r h w"], rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h w 3"], Int16[np.ndarray, "r h w"]]:
    """Fills a rectangle of 2 to 20 % of the area with the mean colour; no segment is left there."""
    height, width = image.shape[:2]
    for _ in range(_ERASING_TRIES):
        area = rng.uniform(0.02, 0.2) * height * width
        aspect = rng.uniform(0.3, 3.3)
        h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < h < height and 0 < w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            image, planes = image.copy(), planes.copy()
            image[top : top + h, left : left + w] = np.array(cv2.mean(image)[:3]).astype(np.uint8)
            planes[:, top : top + h, left : left + w] = VOID
            break
    return image, planes


def _pad(
    image: UInt8[np.ndarray, "h w 3"], planes: Int16[np.ndarray, "r h w"], size: Size
) -> tuple[UInt8[np.ndarray, "hc wc 3"], Int16[np.ndarray, "r hc wc"]]:
    height, width = image.shape[:2]
    if (height, width) == size:
        return image, planes
    padded = np.full((len(planes), *size), VOID, np.int16)
    padded[:, :height, :width] = planes
    bottom, right = size[0] - height, size[1] - width
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(PAD_COLOR,) * 3), padded


Sample = tuple[UInt8[np.ndarray, "h w 3"], Int16[np.ndarray, "_r h w"], tuple[Segment, ...]]
"""Image, planes (see `Dataset.read_segments`) and segments."""


def cutmix(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """CutMix (Yun et al. 2019): `sample` with a rectangle of `other`, anywhere, its share of the area uniform in 0..1.

    Pixels and planes come from the same sample everywhere; targets and prompts then follow from the planes.
    """
    (image, planes, segments), (other_image, other_planes, other_segments) = sample, other
    height, width = image.shape[:2]
    side = np.sqrt(rng.uniform())
    h, w = int(height * side + 0.5), int(width * side + 0.5)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    box = (..., slice(top, top + h), slice(left, left + w))

    count = max(len(planes), len(other_planes))
    mixed, pasted = _with_planes(planes, count), _with_planes(other_planes, count)[box]
    mixed[box] = np.where(pasted == VOID, VOID, pasted + np.int16(len(segments)))
    image = image.copy()
    image[box[1:]] = other_image[box[1:]]
    return image, mixed, segments + other_segments


def _with_planes(planes: Int16[np.ndarray, "_r h w"], count: int) -> Int16[np.ndarray, "_n h w"]:
    """A copy with empty planes behind, `count` in all."""
    more = np.full((count - len(planes), *planes.shape[1:]), VOID, np.int16)
    return np.concatenate([planes, more])
