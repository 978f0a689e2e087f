"""Keys of `dataset.<split>` as annotation files and their folders."""

import json
from pathlib import Path

import pytest

from oneformer_jax.app.settings import data as datasets
from oneformer_jax.app.settings.evaluation import evaluation_run
from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.errors import DataError, SpecError

DRAWN = {"near": 3, "far": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    write_drawn_shapes(root, DRAWN, size=48)
    return root


def spec_of(root: Path, **keys: object) -> Spec:
    (root / "run.yaml").write_text(json.dumps({"dataset": {"val": keys}}))
    return load_spec(root / "run.yaml", [])


def files(root: Path, kind: str) -> list[str]:
    return [str(root / name / kind) for name in DRAWN]


def test_lists_of_files_open_as_one_data_set(root: Path) -> None:
    keys = {"annotations": files(root, "annotations.json"), "images": files(root, "images")}
    dataset = open_dataset(datasets.dataset_files(spec_of(root, **keys, panoptic=files(root, "panoptic")), "val"))
    assert dataset.parts == {"near": range(3), "far": range(3, 5)}, (
        "named after the folders: the files are called alike"
    )
    assert dataset.records[4].image_path == root / "far" / "images" / "000001.png"
    named = spec_of(root, **keys, panoptic=files(root, "panoptic"), names=["b", "a"])
    assert list(open_dataset(datasets.dataset_files(named, "val")).parts) == ["b", "a"]


def test_one_folder_is_for_all_files(root: Path) -> None:
    (root / "x").mkdir(exist_ok=True)
    content = (root / "near" / "annotations.json").read_text()
    for name in ("a", "b"):
        (root / "x" / f"{name}.json").write_text(content)
    spec = spec_of(
        root, annotations=[str(root / "x/a.json"), str(root / "x/b.json")], images=str(root), panoptic=[str(root), ""]
    )
    sources = datasets.dataset_files(spec, "val").sources
    assert [source.images for source in sources] == [str(root), str(root)]
    assert [source.panoptic for source in sources] == [str(root), ""]
    assert [source.name for source in sources] == ["a", "b"]
    with pytest.raises(DataError, match="COCO panoptic annotations, but no folder of panoptic PNGs"):
        open_dataset(datasets.dataset_files(spec_of(root, annotations=str(root / "x/a.json"), images=str(root)), "val"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"annotations": ["a", "b"], "images": ["x", "y", "z"]}, r"dataset.val.images: 3 folders for 2 annotation"),
        ({"annotations": ["a", "b", "c"], "panoptic": ["x", "y"]}, r"dataset.val.panoptic: 2 folders for 3"),
        ({"annotations": "a", "images": ["x", "y"]}, r"dataset.val.images: 2 folders for 1"),
        ({"annotations": ["a", "b"], "names": ["x"]}, r"dataset.val.names: 1 names for 2 annotation files"),
        ({"annotations": ["a", "b"], "names": ["x", "x"]}, r"dataset.val.names: 'x' is listed twice"),
        ({"annotations": ["a", "b", "a"]}, r"dataset.val.annotations: 'a' is listed twice"),
        ({"annotations": []}, r"no value for dataset.val.annotations"),
    ],
)
def test_keys_that_contradict_each_other_are_named(root: Path, keys: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        open_dataset(datasets.dataset_files(spec_of(root, **keys), "val"))


def test_an_evaluation_without_data_names_both_splits_that_it_could_score(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("evaluate: {checkpoint: somewhere}\n")
    with pytest.raises(SpecError, match=r"neither dataset.test.annotations nor dataset.val.annotations"):
        evaluation_run(load_spec(tmp_path / "spec.yaml", []))
