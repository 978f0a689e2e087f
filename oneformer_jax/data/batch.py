"""The contract between the data pipeline and the model: one training batch of fixed shape.

Axes: b images, h w pixels, r planes of a segment map, t rows of the segment table, p prompts of an image.
"""

from typing import Any, NamedTuple

from jaxtyping import Int, UInt8

Array = Any  # np.ndarray on the host, jax.Array on the device


class Batch(NamedTuple):
    """Arrays of one training step (NumPy on the host, JAX on the device).

    Ground truth is indexed, not dense: pixel (y, x) of segment t of image b satisfies
    `segment_index[b, segment_plane[b, t], y, x] == t`; -1 marks pixels of no segment. A panoptic image needs one
    plane (R = 1); overlapping masks spread over several. Rows of the segment table are padded with class -1.
    `task` counts `spec.tasks.TASKS`; `prompts` are rows of the prompt table (`data.task_text`); `sample` is the
    global sample index that keys every random draw.
    """

    images: UInt8[Array, "b h w 3"]
    segment_index: Int[Array, "b r h w"]
    segment_class: Int[Array, "b t"]
    segment_plane: Int[Array, "b t"]
    task: Int[Array, " b"]
    prompts: Int[Array, "b p"]
    sample: Int[Array, " b"]
