"""How well colours alone predict the classes of a data set: the baseline that a segmentation model must exceed."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int, UInt8

from oneformer_jax.data.datasets.dataset import Dataset, front


def nearest_colour_baseline(train_dataset: Dataset) -> Callable[[np.ndarray], np.ndarray]:
    """A classifier of single pixels: the most frequent training class of the pixel's colour, in a 16^3 histogram.

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
