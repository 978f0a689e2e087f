import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from oneformer_jax.data.datasets.categories import Categories, Category, load_label_map
from oneformer_jax.data.datasets.images import panoptic_colors
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.errors import OneFormerError
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment, Result
from oneformer_jax.predict.write import Format, ResultWriter, earlier_results, output_names, write_image
from oneformer_jax.tasks import TASKS, Task

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORIES = Categories((Category(3, "sky", False, (70, 130, 180)), Category(8, "cat", True, (220, 20, 60))))
IMAGE = np.full((20, 30, 3), 90, np.uint8)


@pytest.mark.tao(19)
def test_semantic(tmp_path: Path) -> None:
    classes = np.zeros((20, 30), np.uint8)
    classes[5:] = 1
    path = Path("somewhere/a.jpeg")
    with ResultWriter(tmp_path / "new/out", "semantic", CATEGORIES, [path]) as writer:
        overlay, raw = writer.add(path, IMAGE, Result(semantic=classes))
    assert overlay == tmp_path / "new/out/semantic/a.jpg"
    assert cv2.imread(overlay).shape == (320, 480, 3), "enlarged 16 times, to be readable"
    np.testing.assert_array_equal(cv2.imread(raw, cv2.IMREAD_UNCHANGED), classes)
    assert load_label_map(tmp_path / "new/out/semantic/label_map.json") == CATEGORIES


@pytest.mark.tao(19)
def test_panoptic_can_be_read_as_a_data_set(tmp_path: Path) -> None:
    ids = np.zeros((20, 30), np.int32)
    ids[:10], ids[12:, 4:9] = 1, 2
    segments = (PanopticSegment(1, 0, False, 0.75, 300), PanopticSegment(2, 1, True, 0.5, 40))
    path = tmp_path / "000012.png"
    Image.fromarray(IMAGE).save(path)
    with ResultWriter(tmp_path / "out", "panoptic", CATEGORIES, [path]) as writer:
        writer.add(path, IMAGE, Result(panoptic=PanopticResult(ids, segments)))
    dataset = open_sources([Source(tmp_path / "out/panoptic/panoptic.json", tmp_path, tmp_path / "out/panoptic")])
    (record,) = dataset.records
    assert record.image_id == 12
    assert [(s.id, s.category, s.iscrowd) for s in record.segments] == [(1, 0, False), (2, 1, False)]
    np.testing.assert_array_equal(dataset.read_segments(0), ids[None] - 1)
    info = json.loads((tmp_path / "out/panoptic/panoptic.json").read_text())["annotations"][0]["segments_info"][1]
    assert info == {"id": 2, "category_id": 8, "iscrowd": 0, "area": 40, "bbox": [4, 12, 5, 8], "score": 0.5}


@pytest.mark.tao(19)
def test_instances_are_coco_results(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9, 4:11] = 1
    instance = Instance(1, 0.625, coco_mask.encode(np.asfortranarray(mask)), (4.0, 3.0, 7.0, 6.0))
    paths = [Path("x.jpg"), Path("y.jpg")]
    with ResultWriter(tmp_path, "instance", CATEGORIES, paths) as writer:
        for path in paths:
            writer.add(path, IMAGE, Result(instance=(instance,) if path.stem == "y" else ()))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i, "height": 20, "width": 30} for i in (1, 2)],
        "categories": [{"id": 8}],
        "annotations": [],
    }
    truth.createIndex()
    (annotation,) = truth.loadRes(str(tmp_path / "instance/instance.json")).dataset["annotations"]
    assert (annotation["image_id"], annotation["category_id"], annotation["score"]) == (2, 8, 0.625)
    assert annotation["bbox"] == [4, 3, 7, 6]
    np.testing.assert_array_equal(coco_mask.decode(annotation["segmentation"]), mask)
    found = {path.name for path in (tmp_path / "instance").iterdir()}
    assert found == {"label_map.json", "instance.json", "x.jpg", "y.jpg"}


def test_panoptic_colours_are_the_id_in_three_bytes() -> None:
    ids = np.array([[0, 255, 256, 65536 * 7 + 256 * 5 + 3]], np.int32)
    assert panoptic_colors(ids).tolist() == [[[0, 0, 0], [255, 0, 0], [0, 1, 0], [3, 5, 7]]]


def test_equal_stems_stay_apart() -> None:
    names = output_names([Path(n) for n in ("a.png", "a.jpg", "b.png", "a_png.gif", "A.JPG")])
    assert names == ["a_png_2", "a_jpg", "b", "a_png", "A_JPG_2"]


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [Path(name) for name in ("/x/north/1.png", "/x/south/1.png", "/x/2.png", "north/1.png", "../1.png")]
    names = ["x_north_1", "south_1", "2", "north_1", "1"]
    assert output_names(paths) == names
    assert output_names(paths[:3]) == ["north_1", "south_1", "2"]
    result = Result(panoptic=PanopticResult(np.zeros((20, 30), np.int32), ()))
    with ResultWriter(tmp_path, "panoptic", CATEGORIES, paths[:3]) as writer:
        for path in paths[:3]:
            writer.add(path, IMAGE, result)
    content = json.loads((tmp_path / "panoptic/panoptic.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["north/1.png", "south/1.png", "2.png"]
    assert [entry["file_name"] for entry in content["annotations"]] == ["north_1.png", "south_1.png", "2.png"]


@given(st.lists(st.sampled_from(["a.png", "A.png", "b.jpg", "x/a.png", "y/a.png", "x_a.png", "z/x/a.png", "../a.png"])))
def test_names_of_images_in_several_folders_are_unique(found: list[str]) -> None:
    paths = [Path("/root", name) for name in dict.fromkeys(found)]
    names = output_names(paths)
    assert len({name.casefold() for name in names}) == len(paths)
    assert all("/" not in name and not name.startswith(".") for name in names)


@given(st.lists(st.sampled_from("ab_") | st.just("a_png"), min_size=1, max_size=8), st.data())
def test_names_are_unique_on_any_file_system(stems: list[str], data) -> None:
    suffixes = data.draw(st.lists(st.sampled_from([".png", ".PNG", ".jpg"]), min_size=len(stems), max_size=len(stems)))
    paths = list(dict.fromkeys(Path(stem + suffix) for stem, suffix in zip(stems, suffixes, strict=True)))
    names = output_names(paths)
    assert len({name.casefold() for name in names}) == len(paths)


@pytest.mark.parametrize("error", [OneFormerError("the disk is full"), ValueError("a defect"), SystemExit(143)])
def test_what_is_done_is_written_down_whatever_ends_the_run(tmp_path: Path, error: BaseException) -> None:
    paths = [Path("a.png"), Path("b.png")]
    empty = Result(panoptic=PanopticResult(np.zeros((20, 30), np.int32), ()))

    def fail() -> None:
        with ResultWriter(tmp_path, "panoptic", CATEGORIES, paths) as writer:
            writer.add(paths[0], IMAGE, empty)
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    (found,) = tmp_path.rglob("panoptic.json")
    assert [image["file_name"] for image in json.loads(found.read_text())["images"]] == ["a.png"]


def written(
    folder: Path, task: Task, names: list[str], value: int = 0, formats: tuple[Format, ...] | None = None
) -> dict[str, bytes]:
    """Results of a task for images of these names, in a folder; all files there, by their names."""
    paths = [Path(name) for name in names]
    ids = np.ones((20, 30), np.int32)
    results = {
        "semantic": Result(semantic=np.full((20, 30), value, np.uint8)),
        "panoptic": Result(panoptic=PanopticResult(ids, (PanopticSegment(1, value, False, 0.75, 600),))),
        "instance": Result(instance=()),
    }
    with ResultWriter(folder, task, CATEGORIES, paths, formats=formats) as writer:
        for path in reversed(paths):
            writer.add(path, IMAGE, results[task])
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tasks_share_a_folder_and_nothing_in_it(tmp_path: Path) -> None:
    alone = {task: written(tmp_path / task, task, ["a.png", "b.png"]) for task in TASKS}
    for task in TASKS:
        together = written(tmp_path / "all", task, ["a.png", "b.png"])
    assert together == alone["semantic"] | alone["instance"] | alone["panoptic"]
    assert {"semantic/a.jpg", "panoptic/a.jpg", "instance/a.jpg"} < set(together)


@pytest.mark.parametrize("task", TASKS)
def test_a_second_run_leaves_what_it_would_leave_alone(tmp_path: Path, task: Task) -> None:
    written(tmp_path / "used", task, ["a.png", "b.png"], value=1)
    for stray in (".DS_Store", ".a.jpg.77.tmp"):
        (tmp_path / "used" / task / stray).touch()
    found = written(tmp_path / "used", task, ["a.png", "b.png", "c.png"])
    alone = written(tmp_path / "alone", task, ["a.png", "b.png", "c.png"])
    assert {name: content for name, content in found.items() if "/." not in name} == alone


def test_results_that_an_interrupted_second_run_has_not_written_are_not_those_of_the_first(tmp_path: Path) -> None:
    written(tmp_path, "semantic", ["a.png", "b.png"])
    with ResultWriter(tmp_path, "semantic", CATEGORIES, [Path("a.png"), Path("b.png")]):
        assert {path.name for path in (tmp_path / "semantic").iterdir()} == {"label_map.json"}


def test_a_folder_with_anything_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    """Results of other images, and a data set whose PNGs have the names of the images."""
    before = written(tmp_path / "other", "panoptic", ["a.png", "z.png"])
    (tmp_path / "data/panoptic").mkdir(parents=True)
    (tmp_path / "data/panoptic/a.png").write_bytes(b"the truth")
    for folder, named in ((tmp_path / "other", r"z\.jpg, z\.png"), (tmp_path / "data", r"a\.png")):
        with pytest.raises(OneFormerError, match=rf"panoptic: .*{named}(.|\n)*results of several runs would be mixed"):
            earlier_results(folder, "panoptic", [Path("a.png")])
        with pytest.raises(OneFormerError), ResultWriter(folder, "panoptic", CATEGORIES, [Path("a.png")]):
            pass
    kept = (tmp_path / "other/panoptic").iterdir()
    assert {f"panoptic/{path.name}": path.read_bytes() for path in kept} == before
    assert (tmp_path / "data/panoptic/a.png").read_bytes() == b"the truth"


@pytest.mark.parametrize("linked", [False, True])
def test_pictures_that_lie_where_results_go_are_never_replaced(tmp_path: Path, linked: bool) -> None:
    """A folder called as a task, with a label map beside the pictures, as people's data may be."""
    place = tmp_path / "panoptic"
    place.mkdir()
    for name in ("a.png", "b.png"):
        write_image(place / name, np.zeros((4, 4, 3), np.uint8))
    (place / "label_map.json").write_text("[]")
    given = [place / "a.png", place / "b.png"]
    if linked:
        (tmp_path / "other").symlink_to(place)
        given = [tmp_path / "other" / path.name for path in given]
    with pytest.raises(OneFormerError, match=r"2 of the pictures lie where the results would be, such as a.png"):
        earlier_results(tmp_path, "panoptic", given)
    assert len(list(place.iterdir())) == 3


def test_json_has_the_order_of_the_images_whatever_the_order_of_the_results(tmp_path: Path) -> None:
    written(tmp_path, "panoptic", ["c.png", "a.png", "b.png"])  # added from the last to the first
    content = json.loads((tmp_path / "panoptic/panoptic.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["c.png", "a.png", "b.png"]
    assert [annotation["image_id"] for annotation in content["annotations"]] == [1, 2, 3]


def test_drawn_instances_reach_the_threshold_and_listed_ones_need_not(tmp_path: Path) -> None:
    mask = coco_mask.encode(np.asfortranarray(np.ones((400, 400), np.uint8)))
    image = np.full((400, 400, 3), 90, np.uint8)
    for min_score, drawn in ((0.3, True), (0.7, False)):
        with ResultWriter(tmp_path / str(min_score), "instance", CATEGORIES, [Path("x.png")], min_score) as writer:
            (overlay,) = writer.add(
                Path("x.png"), image, Result(instance=(Instance(1, 0.5, mask, (0.0, 0.0, 400.0, 400.0)),))
            )
        assert (np.abs(cv2.imread(overlay).astype(int) - 90).max() > 40) == drawn
        assert len(json.loads((overlay.parent / "instance.json").read_text())) == 1


@pytest.mark.parametrize(
    ("task", "formats", "expected"),
    [
        ("panoptic", ("overlay",), {"a.jpg"}),
        ("panoptic", ("png",), {"a.png"}),
        ("panoptic", ("json",), {"panoptic.json"}),
        ("semantic", ("png", "overlay"), {"a.jpg", "a.png"}),
        ("instance", ("json",), {"instance.json"}),
    ],
)
def test_only_the_wanted_kinds_of_files(tmp_path: Path, task: Task, formats: tuple, expected: set[str]) -> None:
    all_of_them = written(tmp_path / "all", task, ["a.png"])
    some = written(tmp_path / "some", task, ["a.png"], formats=formats)
    names = {f"{task}/{name}" for name in expected | {"label_map.json"}}
    assert some == {name: content for name, content in all_of_them.items() if name in names}
    assert set(some) == names


def test_pixels_of_no_wanted_class_are_white(tmp_path: Path) -> None:
    classes = np.full((20, 30), -1, np.int32)
    classes[:, 10:] = 1
    image = np.full((320, 480, 3), 90, np.uint8)
    classes = np.kron(classes, np.ones((16, 16), np.int32))
    with ResultWriter(tmp_path, "semantic", CATEGORIES, [Path("a.png")]) as writer:
        overlay, raw = writer.add(Path("a.png"), image, Result(semantic=classes))
    grey = cv2.imread(raw, cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(grey, np.where(classes < 0, 255, classes))
    assert np.abs(cv2.imread(overlay).astype(int)[:, :150] - 90).max() < 5, "the picture as it is"


def test_names_that_differ_in_their_normal_form_stay_apart() -> None:
    composed, decomposed = "\u00e9.png", "e\u0301.png"
    assert output_names([Path(composed), Path(decomposed)]) == ["\u00e9_png", "e\u0301_png_2"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.txt", r"x.txt: found .txt, expected a picture: .png, .jpg, .jpeg\n  -> "),
        ("x", r"x: found no suffix, expected a picture"),
        ("folder", r"folder: this is a folder, expected a file"),
    ],
)
def test_a_name_that_is_no_picture_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OneFormerError, match=words):
        write_image(tmp_path / name, np.zeros((2, 2, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["x.png", "x.PNG", "x.jpeg", "x.JPG"])
def test_a_picture_has_the_format_of_its_suffix(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, np.zeros((2, 2, 3), np.uint8))
    found = (tmp_path / name).read_bytes()
    assert found.startswith(b"\x89PNG" if "png" in name.lower() else b"\xff\xd8\xff")
