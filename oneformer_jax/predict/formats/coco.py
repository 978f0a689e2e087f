"""COCO: run lengths and ids of categories."""

from collections.abc import Sequence
from typing import Any

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import Size
from oneformer_jax.postprocess.instance import RunLengths
from oneformer_jax.postprocess.segments import Segment


def category_id(categories: Categories, category: int) -> int:
    """The raw id of a class index. Outputs of the model beyond the label map count on from its highest id."""
    items = categories.items
    if category < len(items):
        return items[category].id
    return max(item.id for item in items) + 1 + category - len(items)


def as_json(mask: RunLengths) -> dict[str, Any]:
    """Run lengths as JSON has them."""
    return {**mask, "counts": mask["counts"].decode("ascii")}


def coco_of(
    segments: Sequence[Segment], size: Size, categories: Categories, file_name: str, image_id: int
) -> dict[str, Any]:
    """One picture of (height, width) with its annotations and all categories, as pycocotools' `COCO` and tools for
    annotating read it. Annotations have masks as run lengths and their `score`, so that `loadRes` takes them too."""
    annotations = [
        {
            "id": number,
            "image_id": image_id,
            "category_id": category_id(categories, segment.category),
            "bbox": [segment.box[0], segment.box[1], segment.box[2] - segment.box[0], segment.box[3] - segment.box[1]],
            "area": segment.area,
            "segmentation": as_json(segment.run_lengths),
            "iscrowd": 0,
            **({} if segment.score is None else {"score": segment.score}),
        }
        for number, segment in enumerate(segments, start=1)
    ]
    return {
        "images": [{"id": image_id, "file_name": file_name, "height": size[0], "width": size[1]}],
        "annotations": annotations,
        "categories": categories.to_json(),
    }
