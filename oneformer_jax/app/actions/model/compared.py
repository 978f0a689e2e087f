"""What two formulations of a model are compared on, and the table of what was found. Free of JAX."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from rich.table import Table

from oneformer_jax.app.run.execute import Run
from oneformer_jax.data.datasets.images import list_images, read_image
from oneformer_jax.data.drawn_shapes import draw_picture
from oneformer_jax.data.geometry import Size
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.predict.parity import Parity

PICTURES = 3
"""Real images, one a task."""


def pictures_of(locations: Sequence[tuple[str, str]], image_size: Size, run: Run) -> list[UInt8[np.ndarray, "_h _w 3"]]:
    """The first images at the first of `locations` (by the key that names it) that is on this machine; drawn ones of
    the size of the model where none is."""
    for key, location in locations:
        if Path(location).exists():
            return [read_image(path) for path in list_images(local_folder(location, what=key))[:PICTURES]]
    run.status.warning("the spec names no existing images: the models are compared on drawn pictures")
    return [draw_picture(max(image_size), np.random.default_rng(index))[0] for index in range(PICTURES)]


def parity_table(parity: Parity) -> Table:
    """Of each output the differences, and of each kind of images the pixels with the same label."""
    within = f"within {parity.bounds.tolerance:g} of it"
    table = Table("", "largest difference", "mean difference", "largest entry", within, title="parity")
    for name, difference in parity.differences.items():
        numbers = (f"{x:.3g}" for x in (difference.largest, difference.mean, difference.scale))
        table.add_row(name, *numbers, f"{100 * difference.within:.3f} %")
    for name, share in parity.agreement.items():
        table.add_row(f"label map, {parity.images[name]} {name} images", "", "", "", f"{100 * share:.3f} % equal")
    return table
