"""Whatever a file of labels holds, reading it ends with labels or with an error that names the file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_labels import save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from importing import imported
from tiers import examples

from oneformer_jax.data.importers.class_table import read_table
from oneformer_jax.errors import DataError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
points = st.lists(st.lists(st.integers(-50, 99) | json_values, max_size=3) | json_values, max_size=5) | json_values
shapes = st.fixed_dictionaries(
    {},
    optional={
        "label": st.sampled_from(["a", "b", "__ignore__"]) | json_values,
        "points": points,
        "shape_type": st.sampled_from(["polygon", "rectangle", "circle", "line", "mask"]) | json_values,
        "group_id": st.integers(0, 2) | json_values,
        "mask": st.text("iVBORw0KGgo=", max_size=9) | json_values,
    },
)
FIXED = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=examples(60)
)


@contextmanager
def refused(path: Path | str = "") -> Iterator[None]:
    """What is raised inside, if anything, is the error that a person meets, with its place."""
    where = str(path) or "somewhere"
    try:
        yield
    except DataError as error:
        where = error.where
    assert where
    assert where.startswith(str(path))


def try_import(folder: Path, format: str, number: int) -> None:
    with refused():
        imported(folder, folder.parent / f"out_{number}", format=format)


class Numbers:
    """Of folders, each used once."""

    last = 0

    @classmethod
    def new(cls) -> int:
        cls.last += 1
        return cls.last


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    save(tmp_path / "images" / "a.png", np.zeros((40, 60, 3), np.uint8))
    return tmp_path / "images" / "a.png"


@given(content=st.text(max_size=60) | st.lists(st.text("ab,: 0123\t#;\n", max_size=12)).map("\n".join))
@FIXED
def test_lists_of_classes(content: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(content.encode("utf-8", "surrogatepass"))
    with refused(tmp_path / "classes.txt"):
        read_table(tmp_path / "classes.txt")


@given(content=json_values | st.lists(st.fixed_dictionaries({"name": json_values, "id": json_values, "color": points})))
@FIXED
def test_lists_of_classes_in_json(content: Any, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(content))
    with refused(tmp_path / "classes.json"):
        read_table(tmp_path / "classes.json")


@given(
    lines=st.lists(
        st.lists(st.sampled_from(["0", "1", "0.5", "-1", "nan", "1e9", "x"]) | st.text(max_size=3)).map(" ".join)
    )
)
@FIXED
def test_lines_of_yolo(lines: list[str], picture: Path) -> None:
    source = picture.parent.parent
    (source / "labels").mkdir(exist_ok=True)
    (source / "labels" / "a.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    (source / "data.yaml").write_text("train: images\nnames: [a]")
    try_import(source, "yolo", Numbers.new())


@given(
    content=json_values
    | st.fixed_dictionaries(
        {"shapes": st.lists(shapes | json_values, max_size=4) | json_values, "imagePath": json_values},
        optional={"imageHeight": st.just(40) | json_values, "imageWidth": st.just(60) | json_values},
    )
)
@FIXED
def test_shapes_of_labelme(content: Any, picture: Path) -> None:
    picture.with_suffix(".json").write_text(json.dumps(content))
    try_import(picture.parent, "labelme", Numbers.new())


@given(
    lists=st.fixed_dictionaries(
        {
            "images": st.just([{"id": 1, "file_name": "a.png", "height": 40, "width": 60}]) | json_values,
            "annotations": st.lists(
                st.fixed_dictionaries(
                    {"image_id": st.just(1) | json_values, "category_id": st.just(1) | json_values},
                    optional={"segmentation": points, "segments_info": st.lists(json_values), "id": json_values},
                )
                | json_values,
                max_size=3,
            ),
            "categories": st.just([{"id": 1, "name": "x", "isthing": 1}]) | json_values,
        }
    )
)
@FIXED
def test_coco(lists: Any, picture: Path) -> None:
    (picture.parent / "labels.json").write_text(json.dumps(lists))
    try_import(picture.parent, "coco", Numbers.new())


@given(labels=json_values | st.lists(st.dictionaries(st.sampled_from(["name", "instances", "color"]), json_values)))
@FIXED
def test_labels_of_vistas(labels: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    save(source / "training" / "images" / "a.jpg", np.zeros((40, 60, 3), np.uint8))
    save(source / "training" / "v1.2" / "instances" / "a.png", np.full((40, 60), 256, np.uint16))
    (source / "config_v1.2.json").write_text(json.dumps({"labels": labels}))
    try_import(source, "vistas", Numbers.new())


@given(
    entries=st.lists(st.fixed_dictionaries({"name": json_values, "name_ndx": st.just(1) | json_values})) | json_values
)
@FIXED
def test_descriptions_of_ade20k(entries: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    save(source / "a.jpg", np.zeros((40, 60, 3), np.uint8))
    save(source / "a_seg.png", np.ones((40, 60, 3), np.uint8))
    (source / "a.json").write_text(json.dumps({"annotation": {"object": entries}}))
    try_import(source, "ade20k-full", Numbers.new())
