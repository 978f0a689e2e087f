"""Whatever is wrong in an annotation file ends in a DataError."""

import contextlib
import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from tiers import examples

from oneformer_jax.data.datasets.check_files import check_files
from oneformer_jax.data.datasets.content import learned_from
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.importers.cleaned_copy import write_cleaned
from oneformer_jax.errors import DataError

HEIGHT, WIDTH = 8, 10
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[2:6, 3:9] = True
TEXT = coco_mask.encode(np.asfortranarray(MASK, np.uint8))["counts"].decode()
COUNTS = [26, *[4, 4] * 5, 4, 10]

SEGMENTATIONS = [[[1, 1, 5, 1, 4.5, 6]], {"size": [HEIGHT, WIDTH], "counts": TEXT}]
SEGMENTATIONS += [{"size": [HEIGHT, WIDTH], "counts": COUNTS}]
CATEGORIES = [{"id": k, "name": str(k), "isthing": k % 2, "color": [k, k, k]} for k in (3, 4)]
IMAGES = [{"id": k, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH} for k in (1, 2)]
INSTANCES = [
    {"id": k, "image_id": 1, "category_id": 3, "iscrowd": k % 2, "segmentation": segmentation}
    for k, segmentation in enumerate(SEGMENTATIONS)
]
SEGMENTS = [{"id": 5, "category_id": 3, "iscrowd": 0}, {"id": 7, "category_id": 4, "iscrowd": 1}]
PANOPTIC = [{"image_id": k, "file_name": f"{k}.png", "segments_info": SEGMENTS} for k in (1, 2)]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 40)
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["1", "1.png", "\0", "../1.png", "a" * 5000, TEXT[:-1], 1e300, 10**30, 3.0, "3", [[1, 1, 2, 2]]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "size", "counts"]), inner),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "panoptic").mkdir()
    ids = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ids[:4, :, 0], ids[6:, :, 0] = 5, 7
    for image in IMAGES:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / str(image["file_name"]))
        Image.fromarray(ids).save(folder / "panoptic" / str(image["file_name"]))
    return folder


def damaged(folder: Path, annotations: list[Any], data: st.DataObject, times: int = 1) -> Source:
    """A file in which values anywhere are others, or gone."""
    root = json.loads(json.dumps([{"images": IMAGES, "annotations": annotations, "categories": CATEGORIES}]))
    for _ in range(times):
        place, key = root, 0
        while isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 9)):
            place = place[key]
            key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place, dict) and data.draw(st.booleans()):
            del place[key]
        else:
            place[key] = copy.deepcopy(data.draw(values))  # some are drawn again, and must be what they were
    (folder / "annotations.json").write_text(json.dumps(root[0]))
    return Source(folder / "annotations.json", folder, folder / "panoptic" if annotations is PANOPTIC else None)


@pytest.mark.parametrize("annotations", [INSTANCES, PANOPTIC], ids=["instances", "panoptic"])
@settings(max_examples=examples(600))
@given(data=st.data())
def test_any_damage_is_refused_with_a_reason(folder: Path, annotations: list[Any], data: st.DataObject) -> None:
    source = damaged(folder, annotations, data)
    with contextlib.suppress(DataError):
        dataset = open_sources([source])
        assert len(dataset) > 0
        for i in range(len(dataset)):
            dataset.read_image(i)
            dataset.read_segments(i)
        assert all(isinstance(line, str) for line in learned_from(dataset, {"semantic": 1.0, "instance": 1.0}))


@pytest.mark.parametrize("annotations", [INSTANCES, PANOPTIC], ids=["instances", "panoptic"])
@settings(max_examples=examples(40))
@given(data=st.data())
def test_of_any_damage_a_cleaned_copy_can_be_used(folder: Path, annotations: list[Any], data: st.DataObject) -> None:
    source, path = damaged(folder, annotations, data, times=3), folder / "cleaned.json"
    path.unlink(missing_ok=True)
    with contextlib.suppress(DataError):
        cleaned = write_cleaned(source, path)
        dataset = open_sources([replace(source, annotations=path)], on_bad="refuse")
        findings = check_files(dataset, strict=True)
        assert (findings.errors, dataset.notes) == ([], ())
        assert (cleaned.images, cleaned.segments) == (len(dataset), sum(len(r.segments) for r in dataset.records))
        return
    assert not path.exists()


@pytest.mark.parametrize("annotations", [INSTANCES, PANOPTIC], ids=["instances", "panoptic"])
@settings(max_examples=examples(100))
@given(data=st.data())
def test_a_file_cut_anywhere_is_no_json(folder: Path, annotations: list[Any], data: st.DataObject) -> None:
    whole = json.dumps({"images": IMAGES, "annotations": annotations, "categories": CATEGORIES})
    (folder / "annotations.json").write_text(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match="not valid JSON"):
        open_sources([Source(folder / "annotations.json", folder)])
