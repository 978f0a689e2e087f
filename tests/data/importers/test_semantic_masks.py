"""Masks of classes in every form they come in become the same COCO panoptic data, bit for bit."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_labels import VOID, Labelled, labelled, save, written
from importing import imported, opened
from PIL import Image

from oneformer_jax.data.importers.reader import Options, Regions
from oneformer_jax.errors import DataError

NAMES = ["ground", "disk", "ring", "straße"]
COLORS = [(10, 20, 30), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
PALETTE = [channel for color in COLORS for channel in color] + [0] * (768 - 12)

Write = Callable[[Path, Labelled], None]


def classes_txt(source: Path) -> None:
    (source / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")


def colors_txt(source: Path) -> None:
    lines = ["# label:color_rgb:parts:actions", "void:0,0,0::"]
    lines += [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(NAMES, COLORS, strict=True)]
    (source / "labelmap.txt").write_text("\n".join(lines), encoding="utf-8")


def values_of(picture: Labelled, void: int = 255) -> np.ndarray:
    return np.where(picture.classes == VOID, void, picture.classes)


def grey(path: Path, picture: Labelled) -> None:
    save(path, values_of(picture).astype(np.uint8))


def grey_in_color(path: Path, picture: Labelled) -> None:
    save(path, values_of(picture).astype(np.uint8)[..., None].repeat(3, 2))


def grey_16(path: Path, picture: Labelled) -> None:
    save(path, values_of(picture).astype(np.uint16))


def palette(path: Path, picture: Labelled) -> None:
    save(path, values_of(picture).astype(np.uint8), PALETTE)


def own_palette(path: Path, picture: Labelled) -> None:
    """Whose positions say nothing: each file numbers its colours in an order of its own."""
    order = np.random.default_rng(len(path.name)).permutation(5)
    colors = [*COLORS, (0, 0, 0)]
    mixed = [0] * 768
    for number, position in enumerate(order):
        mixed[3 * position : 3 * position + 3] = colors[number]
    save(path, order[values_of(picture, 4)].astype(np.uint8), mixed)


def rgb(path: Path, picture: Labelled) -> None:
    save(path, np.array([*COLORS, (0, 0, 0)], np.uint8)[values_of(picture, 4)])


def rgba(path: Path, picture: Labelled) -> None:
    colors = np.array([(*color, 255) for color in [*COLORS, (0, 0, 0)]], np.uint8)
    save(path, colors[values_of(picture, 4)])


FORMS = {
    "grey": (grey, classes_txt),
    "grey stored in colour": (grey_in_color, classes_txt),
    "grey of 16 bits": (grey_16, classes_txt),
    "palette": (palette, classes_txt),
    "palette of each file": (own_palette, colors_txt),
    "RGB": (rgb, colors_txt),
    "RGBA": (rgba, colors_txt),
}
PICTURES = [labelled(f"frame_{number}", 4, seed=number) for number in range(6)]


def write(source: Path, pictures: list[Labelled], mask: Write) -> None:
    for picture in pictures:
        save(source / "images" / f"{picture.name}.png", picture.image)
        mask(source / "masks" / f"{picture.name}.png", picture)


def check(folder: Path, pictures: list[Labelled], names: list[str] = NAMES) -> None:
    found, classes = written(folder)
    assert classes == names
    assert set(found) == {picture.name for picture in pictures}
    for picture in pictures:
        np.testing.assert_array_equal(found[picture.name].classes, picture.classes)


@pytest.mark.parametrize("form", FORMS)
def test_round_trip(form: str, tmp_path: Path) -> None:
    mask, table = FORMS[form]
    write(tmp_path / "source", PICTURES, mask)
    table(tmp_path / "source")
    result = imported(tmp_path / "source", tmp_path / "data")
    assert result.format == "masks"
    assert not result.counts.left_out
    assert not result.counts.notes
    check(tmp_path / "data", PICTURES)


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_without_any_class_stays(form: str, tmp_path: Path) -> None:
    mask, table = FORMS[form]
    empty = labelled("empty", 0)
    empty.classes[:] = VOID
    write(tmp_path / "source", [*PICTURES[:2], empty], mask)
    table(tmp_path / "source")
    imported(tmp_path / "source", tmp_path / "data")
    check(tmp_path / "data", [*PICTURES[:2], empty])


@pytest.mark.parametrize("form", FORMS)
def test_values_that_no_class_has_are_void_and_told(form: str, tmp_path: Path) -> None:
    mask, table = FORMS[form]
    write(tmp_path / "source", PICTURES[:2], mask)
    table(tmp_path / "source")
    path = tmp_path / "source" / ("labelmap.txt" if table is colors_txt else "classes.txt")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]))  # the last class goes
    result = imported(tmp_path / "source", tmp_path / "data")
    shown = [picture for picture in PICTURES[:2] if (picture.classes == 3).any()]
    assert shown
    assert len(result.counts.notes) == len(shown)
    assert "that no class has are read as no class" in result.counts.notes[0].what
    found, _ = written(tmp_path / "data")
    for picture in PICTURES[:2]:
        expected = np.where(picture.classes == 3, VOID, picture.classes)
        np.testing.assert_array_equal(found[picture.name].classes, expected)


@pytest.mark.parametrize("form", ["grey of 16 bits", "RGB"])
def test_300_classes(form: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 300, (40, 40))
    values.reshape(-1)[:300] = np.arange(300)
    picture = Labelled("many", np.zeros((40, 40, 3), np.uint8), values.astype(np.int32))
    colors = np.stack([values % 256, values // 256, np.full_like(values, 7)], -1).astype(np.uint8)
    save(tmp_path / "source" / "images" / "many.png", picture.image)
    save(tmp_path / "source" / "masks" / "many.png", colors if form == "RGB" else values.astype(np.uint16))
    result = imported(tmp_path / "source", tmp_path / "data", Options(ignore=(-1,)))
    found, names = written(tmp_path / "data")
    order = sorted(range(300), key=lambda value: value % 256 | value // 256 << 8) if form == "RGB" else range(300)
    assert len(names) == 300
    np.testing.assert_array_equal(np.array(order)[found["many"].classes], values)
    assert any("called after their values" in guess for guess in result.reader.guesses)


def test_unicode_nested_folders_and_other_suffixes(tmp_path: Path) -> None:
    pictures = [labelled("straße/größe_1", 3), labelled("北京/b.c_2", 3), labelled("a b", 2)]
    for picture in pictures:
        save(tmp_path / "source" / "images" / f"{picture.name}.JPG", picture.image)
        grey(tmp_path / "source" / "masks" / f"{picture.name}_mask.png", picture)
    classes_txt(tmp_path / "source")
    imported(tmp_path / "source", tmp_path / "data")
    check(tmp_path / "data", pictures)


def test_masks_beside_their_pictures(tmp_path: Path) -> None:
    for picture in PICTURES:
        save(tmp_path / "source" / f"{picture.name}.jpg", picture.image)
        grey(tmp_path / "source" / f"{picture.name}_mask.png", picture)
    classes_txt(tmp_path / "source")
    imported(tmp_path / "source", tmp_path / "data")
    check(tmp_path / "data", PICTURES)


@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ("{}.jpg", "{}.png"),
        ("img_dir/train/{}.jpg", "ann_dir/train/{}.png"),
        ("training/image_2/{}.png", "training/semantic/{}.png"),
        ("JPEGImages/{}.jpg", "SegmentationClassPNG/{}.png"),
        ("tiles/{}_RGB.tif", "tiles/{}_label.tif"),
        ("train/{}_jpg.rf.01ab.jpg", "train/{}_jpg.rf.01ab_mask.png"),
        ("train/{}.jpg", "train_masks/{}_mask.gif"),
    ],
    ids=["side by side", "mmseg", "KITTI", "labelme's VOC", "Potsdam", "Roboflow", "Carvana"],
)
def test_names_of_well_known_data(picture: str, mask: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for one in PICTURES[:3]:
        save(source / picture.format(one.name), one.image)
        if mask.endswith("gif"):
            path = source / mask.format(one.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values_of(one).astype(np.uint8)).save(path)
        else:
            grey(source / mask.format(one.name), one)
    classes_txt(source)
    reader = opened(source)
    assert reader.format == "masks"
    assert len(reader.items) == 3
    assert not reader.left_out
    for item, one in zip(reader.items, PICTURES, strict=False):
        regions = reader.read(item)
        assert isinstance(regions, Regions)
        np.testing.assert_array_equal(regions.ids, one.classes + 1)


def test_two_folders_of_masks_ask_for_the_one_that_counts(tmp_path: Path) -> None:
    write(tmp_path / "source", PICTURES[:2], grey)
    for one in PICTURES[:2]:
        grey(tmp_path / "source" / "labels" / f"{one.name}.png", one)
    with pytest.raises(DataError, match=r"several masks belong to one picture(?s:.*)--labels FOLDER"):
        opened(tmp_path / "source", format="masks")
    assert len(opened(tmp_path / "source", Options(images="images", labels="labels"), format="masks").items) == 2


def test_folders_of_any_name_that_options_name(tmp_path: Path) -> None:
    for picture in PICTURES[:3]:
        save(tmp_path / "source" / "a" / f"{picture.name}.jpg", picture.image)
        grey(tmp_path / "source" / "b" / "c" / f"{picture.name}.png", picture)
    classes_txt(tmp_path / "source")
    imported(tmp_path / "source", tmp_path / "data", Options(images="a", labels="b/c"), format="masks")
    check(tmp_path / "data", PICTURES[:3])


def test_pairs_and_splits_of_lists(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for picture in PICTURES:
        save(source / "x" / f"{picture.name}.png", picture.image)
        grey(source / "y" / f"{picture.name}-1.png", picture)
    classes_txt(source)
    for split, chosen in {"train": PICTURES[:4], "val": PICTURES[4:]}.items():
        lines = [f"x/{picture.name}.png y/{picture.name}-1.png" for picture in chosen]
        (source / f"{split}.txt").write_text("\n".join(lines))
    result = imported(source, tmp_path / "data", format="masks")
    assert [item.split for item in result.reader.items] == ["train"] * 4 + ["val"] * 2
    found, _ = written(tmp_path / "data")
    assert set(found) == {f"x/{picture.name}" for picture in PICTURES}


def test_lists_of_another_machine(tmp_path: Path) -> None:
    """As SegNet's CamVid has them."""
    source = tmp_path / "source"
    for picture in PICTURES[:3]:
        save(source / "train" / f"{picture.name}.png", picture.image)
        grey(source / "trainannot" / f"{picture.name}.png", picture)
    lines = [f"/SegNet/CamVid/train/{one.name}.png /SegNet/CamVid/trainannot/{one.name}.png" for one in PICTURES[:3]]
    (source / "train.txt").write_text("\n".join(lines))
    reader = opened(source)
    assert [(item.name, item.split) for item in reader.items] == [
        (f"train/{one.name}", "train") for one in PICTURES[:3]
    ]


def test_a_list_that_names_what_is_not_there_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "source", PICTURES[:1], grey)
    (tmp_path / "source" / "train.txt").write_text("images/frame_0.png masks/gone.png")
    with pytest.raises(DataError, match=r"train\.txt: line 1 names .*gone\.png, which is not there"):
        imported(tmp_path / "source", tmp_path / "data")


@pytest.mark.parametrize(
    ("train", "val"),
    [("train/images", "val/images"), ("train", "val"), ("images/train", "images/valid")],
)
def test_splits_of_folders(train: str, val: str, tmp_path: Path) -> None:
    masks = {"train": "trainannot", "val": "val_labels"}
    source = tmp_path / "source"
    for split, folder, chosen in (("train", train, PICTURES[:4]), ("val", val, PICTURES[3:])):
        for picture in chosen:  # one name in both
            save(source / folder / f"{picture.name}.png", picture.image)
            grey(source / masks[split] / f"{picture.name}.png", picture)
    classes_txt(source)
    reader = opened(source)
    assert sorted(item.split for item in reader.items) == ["train"] * 4 + ["val"] * 3
    assert all(item.split in str(item.labels[0]) for item in reader.items)


def test_pascal_voc(tmp_path: Path) -> None:
    source = tmp_path / "VOC2012"
    for picture in PICTURES:
        save(source / "JPEGImages" / f"{picture.name}.jpg", picture.image)
        palette(source / "SegmentationClass" / f"{picture.name}.png", picture)
    lists = source / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(picture.name for picture in PICTURES[:4]))
    (lists / "val.txt").write_text("\n".join(picture.name for picture in PICTURES[4:]))
    save(source / "JPEGImages" / "no_mask.jpg", PICTURES[0].image)
    result = imported(source, tmp_path / "data")
    assert {item.name: item.split for item in result.reader.items} == {
        picture.name: "train" if number < 4 else "val" for number, picture in enumerate(PICTURES)
    }
    assert [error.what for error in result.reader.left_out] == ["the picture has no mask of its name"]
    check(tmp_path / "data", PICTURES, ["background", "aeroplane", "bicycle", "bird"])


def test_pictures_and_masks_without_a_partner_and_of_one_name_are_left_out_and_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source, PICTURES, grey)
    classes_txt(source)
    (source / "masks" / "frame_0.png").unlink()
    (source / "images" / "frame_1.png").unlink()
    save(source / "images" / "frame_2.jpg", PICTURES[2].image)
    save(source / "images" / "frame_3.png", PICTURES[3].image[1:])
    (source / "masks" / "frame_4.png").write_bytes(b"no picture")
    for name in ("cut.jpg", "cut.png"):
        save(source / "images" / f"{name[-3:]}_{name}", PICTURES[0].image)
        whole = (source / "images" / f"{name[-3:]}_{name}").read_bytes()
        (source / "images" / f"{name[-3:]}_{name}").write_bytes(whole[: len(whole) // 2])
        grey(source / "masks" / f"{name[-3:]}_cut.png", PICTURES[0])
    result = imported(source, tmp_path / "data")
    assert [error.what for error in result.reader.left_out] == [
        "the picture has no mask of its name",
        "several pictures have the same name but for the suffix",
        "the mask has no picture of its name",
    ]
    size, unreadable = result.counts.left_out[:2]
    assert size.what == "the labels are of 48x64 (height x width), the picture of 47x64"
    assert unreadable.where.endswith("frame_4.png")
    assert [error.what for error in result.counts.left_out[2:]] == ["the picture ends in the middle"] * 2
    check(tmp_path / "data", PICTURES[5:])


def test_masks_that_cannot_be_classes_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("jpeg", "smooth"):
        save(tmp_path / name / "images" / "a.png", noise)
    save(tmp_path / "jpeg" / "masks" / "a.jpg", noise)
    save(tmp_path / "smooth" / "masks" / "a.png", noise)
    with pytest.raises(DataError, match="more than 1024 colours, which are no classes"):
        imported(tmp_path / "smooth", tmp_path / "data")
    with pytest.raises(DataError, match="no mask holds a class"):
        imported(tmp_path / "jpeg", tmp_path / "data")


def test_binary_masks(tmp_path: Path) -> None:
    picture = PICTURES[0]
    save(tmp_path / "source" / "images" / "a.png", picture.image)
    save(tmp_path / "source" / "masks" / "a.png", np.where(picture.classes > 0, 255, 0).astype(np.uint8))
    result = imported(tmp_path / "source", tmp_path / "data")
    found, names = written(tmp_path / "data")
    assert names == ["background", "foreground"]
    np.testing.assert_array_equal(found["a"].classes, picture.classes > 0)
    assert any("0 and 255 alone" in guess for guess in result.reader.guesses)


def test_values_that_are_ignored(tmp_path: Path) -> None:
    write(tmp_path / "source", PICTURES[:2], grey)
    imported(tmp_path / "source", tmp_path / "data", Options(ignore=(0, 255)))
    found, names = written(tmp_path / "data")
    assert names == ["class 1", "class 2", "class 3"]
    picture = PICTURES[0]
    np.testing.assert_array_equal(found[picture.name].classes, np.where(picture.classes < 1, VOID, picture.classes - 1))


def test_pictures_are_links_or_copies(tmp_path: Path) -> None:
    write(tmp_path / "source", PICTURES[:1], grey)
    imported(tmp_path / "source", tmp_path / "links")
    imported(tmp_path / "source", tmp_path / "copies", copy=True)
    link, copy = (tmp_path / name / "images" / "frame_0.png" for name in ("links", "copies"))
    assert os.readlink(link) == str(tmp_path / "source" / "images" / "frame_0.png")
    assert not copy.is_symlink()
    assert copy.read_bytes() == link.read_bytes()
