"""Images as inputs of an exported model, to calibrate its number formats with."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from oneformer_jax.data.datasets.images import read_image
from oneformer_jax.data.geometry import Letterbox, resize_and_pad
from oneformer_jax.predict.exported import normalised
from oneformer_jax.predict.metadata import ANY_BATCH, INPUTS, Metadata
from oneformer_jax.tasks import TASKS


def calibration_feeds(
    paths: Sequence[Path], metadata: Metadata, batch_size: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of normalised images with their task tokens, which take turns; all tasks occur, however few images.

    A graph of one batch size gets that, the last batch filled with its last image. Raises DataError: an unreadable
    image.
    """
    size = batch_size if metadata.batch_size == ANY_BATCH else metadata.batch_size
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    turns = max(len(batches), len(TASKS)) if batches else 0
    policy = Letterbox(metadata.image_size)
    for turn in range(turns):
        batch = batches[turn % len(batches)]
        images = [read_image(path) for path in (*batch, *[batch[-1]] * (size - len(batch)))]
        geometries = [policy(image.shape[:2]) for image in images]
        padded = np.stack([resize_and_pad(*pair) for pair in zip(images, geometries, strict=True)])
        sizes = np.array([geometry.resized for geometry in geometries], np.int32)
        tokens = np.tile(metadata.tokens_of(TASKS[turn % len(TASKS)]), (len(images), 1))
        yield dict(zip(INPUTS, (normalised(padded, sizes, metadata), tokens), strict=True))
