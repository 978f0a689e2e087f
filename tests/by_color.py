"""A backend that knows what it sees by its colour: what it returns is known, in every part of a picture."""

from collections.abc import Sequence

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.tasks import Task

SURE = 20.0
THINGS, STUFF = 2, 2
CATEGORIES = Categories.from_json(
    [{"id": 10 + k, "name": f"class {k}", "isthing": int(k < THINGS)} for k in range(THINGS + STUFF)]
)


def picture_of(ids: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Segments by their numbers (at most 255) as colours: segment i is of the class `classes[i]`."""
    return np.stack([ids, np.zeros_like(ids), np.asarray(classes)[ids]], axis=-1).astype(np.uint8)


class ByColor:
    """Each colour of an image is a query, whose mask is exact and at full size; blue is its class."""

    num_classes = THINGS + STUFF

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict(
        self, images: np.ndarray, sizes: np.ndarray, tasks: Sequence[Task]
    ) -> dict[Task, tuple[np.ndarray, np.ndarray]]:
        self.shapes.append(images.shape)
        colors = images[..., 0].astype(np.int32) + 256 * images[..., 2].astype(np.int32)
        queries = [np.unique(image).tolist() for image in colors]
        most = max(map(len, queries))
        class_logits = np.zeros((len(images), most, self.num_classes + 1), np.float32)
        mask_logits = np.full((len(images), most, *images.shape[1:3]), -SURE, np.float32)
        class_logits[..., -1] = SURE
        for row, of_image in enumerate(queries):
            for query, color in enumerate(of_image):
                class_logits[row, query, [color // 256, -1]] = SURE, 0
                mask_logits[row, query][colors[row] == color] = SURE
        return dict.fromkeys(tasks, (class_logits, mask_logits))
