"""Every layout that tells objects apart: what is read, and the odd cases, a test each."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_labels import VOID, Labelled, labelled, same_objects, written
from importing import Result, imported
from layouts import LAYOUTS, Layout

NAMES = ["ground", "disk", "ring", "straße"]
PICTURES = [labelled(f"picture_{n}", 5, seed=n, size=(96, 128), stuff=1) for n in range(4)]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    return LAYOUTS[request.param]


def read(layout: Layout, pictures: list[Labelled], tmp_path: Path, names: list[str] = NAMES) -> Result:
    layout.write(tmp_path / "source", pictures, names)
    return imported(tmp_path / "source", tmp_path / "data", format=layout.format)


def check(layout: Layout, pictures: list[Labelled], folder: Path, names: list[str] = NAMES) -> None:
    found, classes = written(folder)
    assert {Path(name).name for name in found} == {Path(picture.name).name for picture in pictures}
    by_name = {Path(name).name: read for name, read in found.items()}
    for picture in pictures:
        one = by_name[Path(picture.name).name]
        wanted = [(0 if layout.one_class else classes.index(names[c]), mask) for c, mask in picture.objects]
        same_objects(one.objects, wanted, layout.iou)
        if layout.stuff:
            assert classes == names
            np.testing.assert_array_equal(one.classes, picture.classes)


def test_round_trip(layout: Layout, tmp_path: Path) -> None:
    result = read(layout, PICTURES, tmp_path)
    assert not result.counts.left_out
    assert not result.counts.notes
    assert not result.reader.left_out
    assert result.reader.has_objects
    check(layout, PICTURES, tmp_path / "data")


def test_it_is_recognised(layout: Layout, tmp_path: Path) -> None:
    layout.write(tmp_path / "source", PICTURES, NAMES)
    assert imported(tmp_path / "source", tmp_path / "data").format == layout.format


def test_a_picture_without_objects(layout: Layout, tmp_path: Path) -> None:
    empty = labelled("empty", 0, size=(96, 128))
    result = read(layout, [*PICTURES[:2], empty], tmp_path)
    assert not result.counts.left_out
    check(layout, [*PICTURES[:2], empty], tmp_path / "data")


@pytest.mark.slow
def test_2000_objects(layout: Layout, tmp_path: Path) -> None:
    """Squares of 4 x 4 pixels, two pixels apart: as many as numbers of 8 bits cannot tell apart."""
    if layout is LAYOUTS["VOC"]:
        pytest.skip("numbers of 8 bits")
    rows, columns = np.divmod(np.arange(2000), 50)
    classes = np.zeros((240, 300), np.int32)
    objects = []
    for number, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        mask = np.zeros(classes.shape, bool)
        mask[6 * row : 6 * row + 4, 6 * column : 6 * column + 4] = True
        objects.append((1 + number % 3, mask))
        classes[mask] = 1 + number % 3
    many = Labelled("many", np.zeros((*classes.shape, 3), np.uint8), classes, objects)
    read(layout, [many], tmp_path)
    found = written(tmp_path / "data")[0]["many"]
    assert len(found.objects) == 2000
    assert sum(int(mask.sum()) for _, mask in found.objects) == 2000 * 16
    covered = np.sum([mask for _, mask in found.objects], axis=0)
    np.testing.assert_array_equal(covered, classes > 0)


def test_300_classes(layout: Layout, tmp_path: Path) -> None:
    names = [f"class number {number}" for number in range(300)]
    picture = PICTURES[0]
    last = Labelled("last", picture.image, picture.classes.copy(), [(c + 296, m) for c, m in picture.objects])
    last.classes[picture.classes > 0] += 296
    if layout is LAYOUTS["VOC"]:
        pytest.skip("masks of 8 bits")
    read(layout, [picture, last], tmp_path, names)
    check(layout, [picture, last], tmp_path / "data", names)


def test_unicode_and_nested_folders(layout: Layout, tmp_path: Path) -> None:
    pictures = [
        Labelled(f"{name}/größe {n}", one.image, one.classes, one.objects)
        for n, (name, one) in enumerate(zip(["straße/a", "北京"], PICTURES, strict=False))
    ]
    read(layout, pictures, tmp_path)
    check(layout, pictures, tmp_path / "data")


def test_a_picture_without_labels_and_labels_without_a_picture(layout: Layout, tmp_path: Path) -> None:
    layout.write(tmp_path / "source", PICTURES, NAMES)
    labels = layout.labels_of(tmp_path / "source", "picture_0")
    if labels.is_dir():
        shutil.rmtree(labels)
    else:
        labels.unlink()
    layout.image_of(tmp_path / "source", "picture_1").unlink()
    result = imported(tmp_path / "source", tmp_path / "data", format=layout.format)
    told = " ".join(error.what for error in [*result.reader.left_out, *result.counts.left_out])
    if layout.format == "yolo":  # a picture without labels shows none of the classes; labels alone are nothing
        empty = Labelled("picture_0", PICTURES[0].image, np.full_like(PICTURES[0].classes, VOID))
        check(layout, [empty, *PICTURES[2:]], tmp_path / "data")
        assert not told
        return
    check(layout, PICTURES[2:], tmp_path / "data")
    if layout.format != "labelme":  # which is found by its labels
        assert "the picture has" in told
    assert "picture" in told


def test_two_pictures_of_one_name(layout: Layout, tmp_path: Path) -> None:
    layout.write(tmp_path / "source", PICTURES, NAMES)
    image = layout.image_of(tmp_path / "source", "picture_0")
    shutil.copy(image, image.with_suffix(".bmp"))
    result = imported(tmp_path / "source", tmp_path / "data", format=layout.format)
    if layout.format == "labelme":  # each file names its picture
        check(layout, PICTURES, tmp_path / "data")
        return
    assert result.reader.left_out[0].what.startswith("several pictures have the same name")
    check(layout, PICTURES[1:], tmp_path / "data")


def test_labels_that_are_damaged(layout: Layout, tmp_path: Path) -> None:
    layout.write(tmp_path / "source", PICTURES, NAMES)
    labels = layout.labels_of(tmp_path / "source", "picture_0")
    damaged = next(labels.iterdir()) if labels.is_dir() else labels
    damaged.write_bytes(b"\xff\xfe nothing")
    result = imported(tmp_path / "source", tmp_path / "data", format=layout.format)
    told = [*result.reader.left_out, *result.counts.left_out, *result.counts.notes]
    assert len(told) == 1
    assert told[0].where.startswith(str(damaged))
