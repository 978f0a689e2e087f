"""Layouts that datumaro reads; most of these tests need the extra `formats`, whose pins other extras do not share."""

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from drawn_labels import Labelled, is_whole, labelled, outline, same_objects, save, written
from importing import imported
from layouts import voc

from oneformer_jax.errors import DataError, OneFormerError

NAMES = ["ground", "disk", "ring", "cross"]
has_datumaro = importlib.util.find_spec("datumaro") is not None
needs_datumaro = pytest.mark.skipif(not has_datumaro, reason="datumaro is not installed (the extra formats)")


def cvat(source: Path, pictures: list[Labelled]) -> None:
    """CVAT's XML for images: a polygon for each object, and a box without one."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in NAMES:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, picture in enumerate(pictures):
        height, width = picture.classes.shape
        save(source / "images" / f"{picture.name}.png", picture.image)
        size = {"width": str(width), "height": str(height)}
        image = ElementTree.SubElement(root, "image", {"id": str(number), "name": f"{picture.name}.png", **size})
        for category, mask in picture.objects:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in max(outline(mask), key=len))
            ElementTree.SubElement(image, "polygon", {"label": NAMES[category], "points": points, "occluded": "0"})
        box = {"xtl": "1", "ytl": "1", "xbr": "9", "ybr": "9", "occluded": "0"}
        ElementTree.SubElement(image, "box", {"label": "disk", **box})
    ElementTree.ElementTree(root).write(source / "annotations.xml")


@needs_datumaro
def test_cvat_xml(tmp_path: Path) -> None:
    pictures = [labelled(f"p{n}", 4, seed=n, size=(96, 128)) for n in range(3)]
    pictures = [
        Labelled(one.name, one.image, one.classes, [(c, mask) for c, mask in one.objects if is_whole(mask)])
        for one in pictures
    ]
    cvat(tmp_path / "source", pictures)
    result = imported(tmp_path / "source", tmp_path / "data", format="datumaro:cvat")
    found, names = written(tmp_path / "data")
    assert names == NAMES
    for picture in pictures:
        same_objects(found[picture.name].objects, picture.objects, 0.98)
    assert [note.what for note in result.counts.notes] == ["1 of kind bbox have no mask"] * 3


@needs_datumaro
def test_what_datumaro_cannot_read_is_an_error_of_a_source(tmp_path: Path) -> None:
    voc(tmp_path / "source", [labelled("a", 1)], NAMES)
    with pytest.raises(DataError, match="datumaro cannot read it as cvat"):
        imported(tmp_path / "source", tmp_path / "data", format="datumaro:cvat")
    with pytest.raises(DataError, match=r"datumaro knows no format 'nothing'\n.*cvat"):
        imported(tmp_path / "source", tmp_path / "data", format="datumaro:nothing")


@pytest.mark.skipif(has_datumaro, reason="datumaro is installed")
def test_without_datumaro_the_extra_is_named(tmp_path: Path) -> None:
    save(tmp_path / "source" / "a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(OneFormerError, match=r"datumaro is not installed\n.*formats"):
        imported(tmp_path / "source", tmp_path / "data", format="datumaro:cvat")
