"""Masks of classes with masks that number objects: what has no number, and what lies where no class is."""

from pathlib import Path

import numpy as np
from drawn_labels import save, written
from importing import imported


def test_crowds_and_objects_without_a_class(tmp_path: Path) -> None:
    classes, objects = np.zeros((20, 40), np.uint8), np.zeros((20, 40), np.uint8)
    classes[2:8, 2:8], objects[2:8, 2:8] = 1, 5  # an object
    classes[2:8, 20:30] = 1  # of the same class, without a number
    classes[10:18, 2:8], objects[10:18, 2:8] = 255, 9  # nobody knows what
    classes[10:18, 20:30], objects[10:18, 20:30] = 2, 7
    classes[10:12, 20:22] = 0  # a corner of the object has another class
    save(tmp_path / "source" / "images" / "a.png", np.zeros((20, 40, 3), np.uint8))
    save(tmp_path / "source" / "masks" / "a.png", classes)
    save(tmp_path / "source" / "instances" / "a.png", objects)
    result = imported(tmp_path / "source", tmp_path / "out")
    assert result.format == "object-masks"
    assert [item.isthing for item in result.reader.categories.items] == [False, True, True]
    found = written(tmp_path / "out")[0]["a"]
    assert result.counts.crowds == 1
    assert [(category, int(mask.sum())) for category, mask in found.objects] == [(1, 36), (2, 80)]
    expected = np.where(classes == 255, -1, classes.astype(int))
    expected[10:12, 20:22] = 2
    np.testing.assert_array_equal(found.classes, expected)
