from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from oneformer_jax.data import drawn_shapes
from oneformer_jax.data.datasets.categories import load_label_map
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.drawn_shapes import CATEGORIES, draw_picture, nearest_colour_baseline, write_drawn_shapes


@pytest.fixture(scope="module")
def pictures() -> list[tuple[np.ndarray, np.ndarray]]:
    return [draw_picture(128, np.random.default_rng((0, 0, i))) for i in range(60)]


def test_files_form_a_data_set(drawn: Path, train: Dataset) -> None:
    assert len(train) == 10
    assert train.read_image(0).shape == (64, 64, 3)
    assert load_label_map(drawn / "label_map.json") == train.categories


def test_it_says_how_many_pictures_are_drawn(tmp_path: Path) -> None:
    done = list[int]()
    write_drawn_shapes(tmp_path / "data", {"train": 3, "val": 2}, size=32, progress=done.append)
    assert done == [1, 2, 3, 4, 5]


def test_all_classes_occur_with_visible_segments(pictures: list[tuple[np.ndarray, np.ndarray]]) -> None:
    classes = set()
    for _, ids in pictures:
        values, counts = np.unique(ids, return_counts=True)
        classes |= set(values // 1000)
        assert counts.min() > 0.008 * ids.size
    assert classes == {category.id for category in CATEGORIES.items}


def test_two_things_of_one_class_touch_in_every_picture(pictures: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for _, ids in pictures:
        pairs = set()
        for dy, dx in ((0, 1), (1, 0)):
            a, b = ids[: 128 - dy, : 128 - dx], ids[dy:, dx:]
            pairs |= set(zip(a[a != b].tolist(), b[a != b].tolist(), strict=True))
        assert any(a // 1000 == b // 1000 for a, b in pairs)


def test_colours_have_the_same_distribution_in_every_class(pictures: list[tuple[np.ndarray, np.ndarray]]) -> None:
    means: dict[int, list[np.ndarray]] = {}
    for image, ids in pictures:
        for segment in np.unique(ids):
            inside = cv2.erode((ids == segment).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            means.setdefault(segment // 1000, []).append(image[inside].mean(0))
    for values in means.values():
        # Uniform on 90..255: mean 172.5, standard deviation 47.6.
        standard_error = 47.6 / len(values) ** 0.5
        assert np.abs(np.mean(values, axis=0) - 172.5).max() < 4 * standard_error


def test_neighbours_differ_in_colour(pictures: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for image, ids in pictures:
        means = [image[ids == segment].mean(0) for segment in np.unique(ids)]
        gaps = [np.linalg.norm(a - b) for i, a in enumerate(means) for b in means[:i]]
        assert min(gaps) > 25


def test_pictures_depend_on_seed_and_position_only(tmp_path: Path) -> None:
    write_drawn_shapes(tmp_path / "a", {"train": 1, "val": 2}, size=48, seed=1)
    write_drawn_shapes(tmp_path / "b", {"train": 3, "val": 1}, size=48, seed=1)
    write_drawn_shapes(tmp_path / "c", {"train": 1}, size=48, seed=2)
    for kind in ("images", "panoptic"):
        for split in ("train", "val"):
            names = [tmp_path / root / split / kind / "000000.png" for root in "ab"]
            assert names[0].read_bytes() == names[1].read_bytes()
        other = tmp_path / "c" / "train" / kind / "000000.png"
        assert other.read_bytes() != (tmp_path / "a" / "train" / kind / "000000.png").read_bytes()


@pytest.mark.slow
def test_colours_alone_do_not_tell_the_classes(tmp_path: Path, open_split: Callable[..., Dataset]) -> None:
    write_drawn_shapes(tmp_path, {"train": 60, "val": 40}, seed=0)
    predict = nearest_colour_baseline(open_split(tmp_path / "train"))
    val = open_split(tmp_path / "val")
    confusion = np.zeros((7, 7), np.int64)
    for i in range(len(val)):
        classes = np.array([segment.category for segment in val.records[i].segments])
        truth = classes[val.read_segments(i)[0]]
        np.add.at(confusion, (truth, predict(val.read_image(i))), 1)
    hits = np.diag(confusion)
    iou = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    assert iou.mean() < 0.40


@pytest.mark.slow
def test_several_processes_draw_what_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, threshold in ((tmp_path / "one", 1000), (tmp_path / "several", 1)):
        monkeypatch.setattr(drawn_shapes, "_WORTH_PROCESSES", threshold)
        write_drawn_shapes(folder, {"train": 60, "val": 2}, size=64, seed=3)
    one, several = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "several")
    )
    assert len(one) == 2 * 62 + 3
    assert one == several
