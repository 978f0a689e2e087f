"""Benchmarks as they are published: Cityscapes, Mapillary Vistas, ADE20K, in folders written by their rules."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn_labels import VOID, Labelled, labelled, same_objects, save, written
from importing import imported, opened

from oneformer_jax.errors import DataError

PICTURES = [labelled(f"picture_{n}", 5, seed=n, size=(96, 128), stuff=2) for n in range(3)]


def by_class(picture: Labelled, values: list[int], void: int) -> np.ndarray:
    return np.array([*values, void])[picture.classes]  # VOID is the last


def read(folder: Path, name: str) -> tuple:
    found, names = written(folder)
    return found[name], names


class TestCityscapes:
    """Stuff 0 and 1 are road and sky, objects 2 to 4 person, car and bicycle."""

    IDS, NAMES = [7, 23, 24, 26, 33], ["road", "sky", "person", "car", "bicycle"]

    def write(self, source: Path, pictures: list[Labelled], split: str = "train") -> None:
        for picture in pictures:
            stem = f"ulm/{picture.name}"
            save(source / "leftImg8bit" / split / f"{stem}_leftImg8bit.png", picture.image)
            values = by_class(picture, self.IDS, 4)  # static
            save(source / "gtFine" / split / f"{stem}_gtFine_labelIds.png", values.astype(np.uint8))
            objects = picture.object_map
            numbers = np.where(objects > 0, 1000 * values + objects - 1, values)
            save(source / "gtFine" / split / f"{stem}_gtFine_instanceIds.png", numbers.astype(np.uint16))

    def test_round_trip(self, tmp_path: Path) -> None:
        self.write(tmp_path / "source", PICTURES)
        self.write(tmp_path / "source", [labelled("hidden", 2)], "test")
        result = imported(tmp_path / "source", tmp_path / "data")
        assert result.format == "cityscapes"
        assert len(result.reader.categories) == 19
        assert [item.isthing for item in result.reader.categories.items] == [False] * 11 + [True] * 8
        assert [item.split for item in result.reader.items] == ["train"] * 3
        assert "1 pictures of test are left out" in result.reader.guesses[0]
        for picture in PICTURES:
            found, names = read(tmp_path / "data", f"ulm/{picture.name}")
            index = [names.index(name) for name in self.NAMES]
            np.testing.assert_array_equal(found.classes, by_class(picture, index, VOID))
            same_objects(found.objects, [(index[c], mask) for c, mask in picture.objects])

    def test_crowds_and_numbers_of_no_class(self, tmp_path: Path) -> None:
        self.write(tmp_path / "source", PICTURES[:1])
        numbers = np.full((96, 128), 26, np.uint16)  # cars that are not counted
        numbers[:20], numbers[20:30], numbers[30:40] = 99, 26003, 9000
        save(tmp_path / "source" / "gtFine" / "train" / "ulm" / "picture_0_gtFine_instanceIds.png", numbers)
        result = imported(tmp_path / "source", tmp_path / "data")
        assert result.counts.crowds == 1
        assert [note.what for note in result.counts.notes] == [
            "values that stand for no class are read as no class: 99"
        ]
        (entry,) = json.loads((tmp_path / "data" / "annotations.json").read_text())["annotations"]
        assert [(info["category_id"], info["iscrowd"], info["area"]) for info in entry["segments_info"]] == [
            (26, 1, 56 * 128),
            (26, 0, 10 * 128),
        ]

    def test_a_picture_without_labels(self, tmp_path: Path) -> None:
        self.write(tmp_path / "source", PICTURES)
        (tmp_path / "source" / "gtFine" / "train" / "ulm" / "picture_0_gtFine_instanceIds.png").unlink()
        reader = opened(tmp_path / "source")
        assert [error.what for error in reader.left_out] == ["the picture has no _gtFine_instanceIds.png"]
        assert len(reader.items) == 2


class TestVistas:
    """A class that is not evaluated lies between the others."""

    def write(self, source: Path, version: str, pictures: list[Labelled]) -> None:
        labels = [
            {"name": f"x--{name}", "readable": name, "instances": thing, "evaluate": evaluated, "color": [9, 9, n]}
            for n, (name, thing, evaluated) in enumerate(
                (
                    *(("Road", False, True), ("Void", False, False), ("Sky", False, True)),
                    *(("Person", True, True), ("Car", True, True), ("Bird", True, True)),
                )
            )
        ]
        source.mkdir(exist_ok=True)
        (source / f"config_{version}.json").write_text(json.dumps({"labels": labels, "version": 1}))
        for number, picture in enumerate(pictures):
            split = source / ("training" if number else "validation")
            save(split / "images" / f"{picture.name}.jpg", picture.image)
            classes = by_class(picture, [0, 2, 3, 4, 5], 1)
            objects = picture.object_map
            codes = 256 * classes + np.where(objects > 0, objects - 1, 0)
            save(split / version / "instances" / f"{picture.name}.png", codes.astype(np.uint16))

    @pytest.mark.parametrize("version", ["v1.2", "v2.0"])
    def test_round_trip(self, version: str, tmp_path: Path) -> None:
        self.write(tmp_path / "source", version, PICTURES)
        result = imported(tmp_path / "source", tmp_path / "data")
        assert (result.format, result.reader.guesses) == ("vistas", [])
        assert sorted(item.split for item in result.reader.items) == ["train", "train", "val"]
        assert result.reader.categories.names == ("Road", "Sky", "Person", "Car", "Bird")
        for picture in PICTURES:
            found, _ = read(tmp_path / "data", picture.name)
            np.testing.assert_array_equal(found.classes, picture.classes)
            same_objects(found.objects, picture.objects)

    def test_the_newest_version_counts_or_the_one_that_is_named(self, tmp_path: Path) -> None:
        from oneformer_jax.data.importers.reader import Options

        for version in ("v1.2", "v2.0"):
            self.write(tmp_path / "source", version, PICTURES)
        newest = opened(tmp_path / "source")
        assert "config_v2.0.json counts" in newest.guesses[0]
        older = opened(tmp_path / "source", Options(labels="v1.2"))
        assert "v1.2" in str(older.items[0].labels[0])


class TestAde20k:
    def test_the_challenge(self, tmp_path: Path) -> None:
        source = tmp_path / "ADEChallengeData2016"
        for number, picture in enumerate(PICTURES):
            split = "training" if number else "validation"
            save(source / "images" / split / f"{picture.name}.jpg", picture.image)
            values = np.where(picture.classes == VOID, 0, picture.classes + 1).astype(np.uint8)
            save(source / "annotations" / split / f"{picture.name}.png", values)
        rows = ["Idx\tRatio\tTrain\tVal\tName"] + [f"{n}\t0.1\t1\t1\tname {n}, other {n}\t" for n in range(1, 151)]
        (source / "objectInfo150.txt").write_text("\n".join(row.rstrip("\t") for row in rows))
        result = imported(source, tmp_path / "data")
        assert result.format == "ade20k"
        assert not result.reader.has_objects
        assert sorted(item.split for item in result.reader.items) == ["train", "train", "val"]
        for picture in PICTURES:
            found, names = read(tmp_path / "data", picture.name)
            np.testing.assert_array_equal(found.classes, picture.classes)
        assert (len(names), names[149]) == (150, "name 150, other 150")
        (source / "objectInfo150.txt").write_text("1\twall")
        with pytest.raises(DataError, match="expected the table of 150"):
            opened(source)

    def test_all_of_2021(self, tmp_path: Path) -> None:
        """Classes have numbers beyond 256, and objects that the picture numbers from 1 on."""
        numbers = [2978, 2420, 1831, 401, 3000]
        names = ["wall", "sky", "person, individual", "car", "flag"]
        for picture in PICTURES:
            place = tmp_path / "source" / "images" / "ADE" / "training" / "urban" / "street"
            save(place / f"{picture.name}.jpg", picture.image)
            values = by_class(picture, numbers, 0)
            colors = np.stack([values // 256 * 10, values % 256, picture.object_map], -1).astype(np.uint8)
            save(place / f"{picture.name}_seg.png", colors)
            save(place / f"{picture.name}_parts_1.png", colors[::-1])
            shown = sorted({int(value) for value in np.unique(picture.classes)} - {VOID})
            objects = [{"id": n, "name": names[n], "name_ndx": numbers[n], "parts": {"part_level": 0}} for n in shown]
            text = json.dumps({"annotation": {"object": objects, "by": "José"}}, ensure_ascii=False)
            (place / f"{picture.name}.json").write_bytes(text.encode("latin-1"))
        result = imported(tmp_path / "source", tmp_path / "data")
        assert result.format == "ade20k-full"
        countable = {
            category
            for picture in PICTURES
            for category in range(2, 5)
            if sum(c == category for c, _ in picture.objects) > 1
        }
        assert countable
        for picture in PICTURES:
            found, order = read(tmp_path / "data", picture.name)
            index = [order.index(name) for name in names]
            np.testing.assert_array_equal(found.classes, by_class(picture, index, VOID))
            wanted = [(index[c], mask) for c, mask in picture.objects if c in countable]
            same_objects(found.objects, wanted)
