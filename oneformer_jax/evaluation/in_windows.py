"""The results of a large picture, of which a backend sees one window after the other."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from oneformer_jax.data.geometry import Geometry, Size, resize_and_pad
from oneformer_jax.evaluation.backend import Asked, Backend, pending_results, resized_sizes
from oneformer_jax.evaluation.batches import filled
from oneformer_jax.postprocess.assembled import Assembled
from oneformer_jax.postprocess.results import Result
from oneformer_jax.postprocess.windows import Windows

Progress = Callable[[int, int], None]
"""Called with the number of finished windows and of all windows of the picture."""


def window_geometry(size: Size, windows: Windows, policy: Callable[[Size], Geometry]) -> Geometry:
    """That of each window of a picture of (height, width)."""
    return policy(windows.of(size)[0].size)


def result_in_windows(
    backend: Backend,
    picture: UInt8[np.ndarray, "h w 3"],
    windows: Windows,
    policy: Callable[[Size], Geometry],
    asked: Asked,
    batch_size: int = 1,
    progress: Progress = lambda done, of: None,
) -> Result:
    """What a picture shows, at its own size, from `batch_size` windows at a time, each of which `policy` sizes. A
    picture that is not larger than a window is seen as a whole."""
    size = picture.shape[:2]
    parts, geometry = windows.of(size), window_geometry(size, windows, policy)
    if len(parts) == 1:
        alike = filled([resize_and_pad(picture, geometry)], batch_size)
        return pending_results(backend, np.stack(alike), [geometry] * batch_size, asked)[0]()
    assembled = Assembled(size, parts, windows.overlap, asked.is_thing, asked.thresholds, asked.tasks)
    for start in range(0, len(parts), batch_size):
        numbers: Sequence[int] = range(start, min(start + batch_size, len(parts)))
        images = [resize_and_pad(picture[parts[n].rows, parts[n].columns], geometry) for n in numbers]
        sizes = resized_sizes([geometry] * batch_size)
        logits = backend.predict(np.stack(filled(images, batch_size)), sizes, asked.tasks)
        for row, number in enumerate(numbers):
            of_window = {task: (classes[row], masks[row]) for task, (classes, masks) in logits.items()}
            assembled.add(number, of_window, geometry)
        progress(numbers[-1] + 1, len(parts))
    return assembled.result()
