"""Every kind of place that weights come from, and what is said about the ones that hold none."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from converters.files.read import read_classes, read_source
from converters.files.weight_files import read_safetensors
from oneformer_jax.errors import CheckpointError

STATE = {
    "stem.weight": torch.arange(12.0).reshape(3, 4).T,
    "stem.half": torch.tensor([0.5, -2.0]).half(),
    "stem.bfloat": torch.tensor([0.5, -2.0]).bfloat16(),
    "stem.double": torch.tensor(1 / 3, dtype=torch.float64),
    "index": torch.arange(3),
    "mask": torch.tensor([True, False]),
}


def is_state(arrays: Any) -> None:
    assert set(arrays) == set(STATE)
    for name, tensor in STATE.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        np.testing.assert_array_equal(arrays[name], expected.numpy(), strict=True)


WRAPPED = {
    "bare": STATE,
    "lightning": {"epoch": 3, "state_dict": STATE, "optimizer_states": [{"state": {0: torch.ones(2)}}]},
    "swin": {"model": STATE},
    "detectron2": {"model": STATE, "optimizer": {}, "iteration": 7},
    "nested": {"model_state": {"module": STATE}},
    "best": {"model": None, "model_state_dict": STATE},
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("name", ["weights.pth", "weights.ckpt", "pytorch_model.bin"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_files_of_pytorch(kind: str, name: str, zipped: bool, tmp_path: Path) -> None:
    torch.save(WRAPPED[kind], tmp_path / name, _use_new_zipfile_serialization=zipped)
    source = read_source(tmp_path / name)
    is_state(source.arrays)
    assert source.location == str(tmp_path / name)
    assert source.config is None


def test_the_model_zoo_of_detectron2(tmp_path: Path) -> None:
    weights = {"stem.conv1.weight": np.ones((2, 3, 7, 7), np.float32), "fc.bias": np.zeros(5, ">f8")}
    content = {"model": weights, "__author__": "someone", "matching_heuristics": True}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content, 2))
    arrays = read_source(tmp_path / "model_final.pkl").arrays
    assert {name: (type(x), x.dtype) for name, x in arrays.items()} == dict.fromkeys(weights, (np.ndarray, np.float32))
    np.testing.assert_array_equal(arrays["stem.conv1.weight"], weights["stem.conv1.weight"])


def save_safetensors(path: Path, names: Any = STATE) -> None:
    safetensors.torch.save_file({name: STATE[name].contiguous() for name in names}, path, {"format": "pt"})


def test_safetensors_by_content(tmp_path: Path) -> None:
    for name in ("model.safetensors", "misnamed.bin"):
        save_safetensors(tmp_path / name)
        is_state(read_source(str(tmp_path / name)).arrays)


@pytest.mark.parametrize(
    "dtype",
    ["bool", "float16", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))],
)
def test_safetensors_of_any_dtype(dtype: str, tmp_path: Path) -> None:
    theirs = getattr(torch, dtype)
    tensors = {"x": torch.arange(6).reshape(2, 3).to(theirs), "empty": torch.zeros(0, 2).to(theirs)}
    safetensors.torch.save_file(tensors, tmp_path / "x")
    for name, array in read_safetensors(tmp_path / "x").items():
        np.testing.assert_array_equal(array, tensors[name].numpy(), strict=True)


def test_safetensors_of_8_bit_floats_are_named(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "x")
    with pytest.raises(CheckpointError, match="x: tensor x is of dtype F8_E4M3, which cannot be read"):
        read_source(tmp_path / "x")


@given(st.floats(0, 1, exclude_max=True))
def test_safetensors_cut_anywhere(tmp_path_factory: pytest.TempPathFactory, where: float) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    whole = safetensors.torch.save({"a": torch.ones(9), "b": torch.ones(3)})
    path.write_bytes(whole[: int(where * len(whole))])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: (damaged, incomplete or not|the file is empty)"):
        read_safetensors(path)


@given(st.dictionaries(st.sampled_from("ab"), st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]),
       st.sampled_from(["F32", [2], [-1], [0, 8], [8, 0], [-8, 8], [0, 99], None, 3]))))  # fmt: skip
def test_safetensors_with_any_header(tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    try:
        arrays = read_safetensors(path)
    except CheckpointError as error:
        assert "odd.safetensors" in str(error)  # noqa: PT017
    else:
        assert all(x.shape == (2,) for x in arrays.values())


@pytest.fixture(scope="module")
def swin() -> Any:
    torch.manual_seed(0)
    config = transformers.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, image_size=32)
    return transformers.SwinModel(config)


@pytest.mark.parametrize("shard", ["1GB", "10kB"])
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_folders_of_hugging_face(shard: str, format: str, swin: Any, tmp_path: Path) -> None:
    swin.save_pretrained(tmp_path, max_shard_size=shard)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == (shard == "10kB")
    if format == "bin":
        as_bin(tmp_path)
    source = read_source(tmp_path)
    expected = swin.state_dict()
    assert set(source.arrays) == set(transformers_names(tmp_path))
    assert sum(x.size for x in source.arrays.values()) == sum(x.numel() for x in expected.values())
    assert source.config is not None
    assert source.config["embed_dim"] == 8


def transformers_names(folder: Path) -> list[str]:
    if any(folder.glob("*.bin")):
        return [name for file in folder.glob("*.bin") for name in torch.load(file)]
    return [name for file in folder.glob("*.safetensors") for name in safetensors.torch.load_file(file)]


def as_bin(folder: Path) -> None:
    """What version 4 wrote: the same in files of PyTorch."""
    for file in list(folder.glob("*.safetensors")):
        name = file.name.replace("model", "pytorch_model").replace(".safetensors", ".bin")
        torch.save(safetensors.torch.load_file(file), folder / name)
        file.unlink()
    for index in list(folder.glob("*.index.json")):
        content = json.loads(index.read_text())
        renamed = {
            k: v.replace("model", "pytorch_model").replace(".safetensors", ".bin")
            for k, v in content["weight_map"].items()
        }
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": renamed}))
        index.unlink()


CLASSES = {"1": {"name": "sky", "isthing": 0}, "0": {"name": "person", "isthing": 1, "id": 7}}


def test_classes_of_an_image_processor(tmp_path: Path) -> None:
    assert read_classes(tmp_path) is None
    (tmp_path / "class_info.json").write_text(json.dumps(CLASSES))
    expected = [{"id": 7, "name": "person", "isthing": 1}, {"id": 1, "name": "sky", "isthing": 0}]
    assert read_classes(tmp_path) == expected

    processor = tmp_path / "preprocessor_config.json"
    processor.write_text(json.dumps({"class_info_file": "coco_panoptic.json", "repo_path": "shi-labs/oneformer_demo"}))
    assert read_classes(tmp_path) is None  # that file lies at the hub
    (tmp_path / "class_info.json").rename(tmp_path / "coco_panoptic.json")
    assert read_classes(tmp_path) == expected


@pytest.mark.parametrize("keys", ["02", "1", "ab"])
def test_classes_that_are_not_numbered_from_0(keys: str, tmp_path: Path) -> None:
    (tmp_path / "class_info.json").write_text(json.dumps(dict.fromkeys(keys, CLASSES["1"])))
    with pytest.raises(CheckpointError, match=rf"names {len(keys)} classes, but not class [01]"):
        read_classes(tmp_path)


def test_a_folder_that_lacks_something(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected one of model\.safetensors\.index\.json, model\.safetensors"):
        read_source(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(STATE, "a.safetensors") | {"lost": "a.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: no such file"):
        read_source(tmp_path)
    save_safetensors(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"index\.json: names 1 tensors that its files do not have, such as lost"):
        read_source(tmp_path)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(STATE, "../a.safetensors")}))
    with pytest.raises(CheckpointError, match="expected `weight_map` to name a file of this folder"):
        read_source(tmp_path)
    index.unlink()
    (tmp_path / "a.safetensors").rename(tmp_path / "model.safetensors")
    assert read_source(tmp_path).config is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: not valid JSON"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.nn.Linear(2, 2), "found an object of type torch.nn.modules.linear.Linear"),
        ({"epoch": 3, "state_dict": {}}, "found a dictionary of nothing"),
        ({"optimizer": {"x": torch.ones(2)}, "step": 3}, "found a dictionary of optimizer, step"),
        ([torch.ones(2)], "found an object of type list"),
        ({"weight": torch.ones(2), "config": "x"}, "found str at 'config'"),
        ({"weight": torch.ones(2), 3: torch.ones(2)}, "found ndarray at 3"),
    ],
)
def test_a_file_without_a_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=rf"x\.pth: expected .*{message}"):
        read_source(tmp_path / "x.pth")


def test_a_dictionary_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="found a dictionary of model"):
        read_source(tmp_path / "x.pkl")


def test_a_missing_path() -> None:
    with pytest.raises(CheckpointError, match=r"^nowhere/x\.pth: no such file"):
        read_source("nowhere/x.pth")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_addresses_that_fsspec_knows(cache: Path, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pth")
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/x.pth", (tmp_path / "x.pth").read_bytes())
    for _ in range(2):
        source = read_source("memory://bucket/x.pth")
        is_state(source.arrays)
        assert source.location == "memory://bucket/x.pth"
    assert any(cache.iterdir())
    torch.save({"other": torch.ones(1)}, tmp_path / "x.pth")
    memory.pipe("/bucket/x.pth", (tmp_path / "x.pth").read_bytes())
    assert set(read_source("memory://bucket/x.pth").arrays) == {"other"}
    memory.pipe("/bucket/x.pth", b"<html>")
    with pytest.raises(CheckpointError, match=r"memory://bucket/x\.pth \(in .*cache.*\): damaged, incomplete"):
        read_source("memory://bucket/x.pth")
    with pytest.raises(CheckpointError, match=r"memory://bucket/none\.pth: does not exist"):
        read_source("memory://bucket/none.pth")
    with pytest.raises(CheckpointError, match="nothing://x: cannot be fetched: Protocol not known"):
        read_source("nothing://x")


@pytest.mark.parametrize(
    ("location", "package"), [("s3://bucket/x.pth", "fsspec"), ("hf://owner/name", "huggingface_hub")]
)
def test_a_package_that_is_missing(location: str, package: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CheckpointError, match=r"(?s)needs a package that is missing.*\[remote\]'"):
        read_source(location)


def test_addresses_of_hugging_face(swin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swin.save_pretrained(tmp_path / "new")
    swin.save_pretrained(tmp_path / "old")
    as_bin(tmp_path / "old")
    asked: list[tuple[str, str | None, str]] = []

    def snapshot_download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision, allow_patterns[1]))
        return str(tmp_path / repo.split("/")[1])

    def hf_hub_download(repo: str, file: str, *, revision: str | None) -> str:
        asked.append((repo, revision, file))
        return str(tmp_path / "new" / Path(file).name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    (tmp_path / "new" / "class_info.json").write_text(json.dumps(CLASSES))
    new = read_source("hf://owner/new")
    assert new.config is not None
    assert new.folder is not None
    assert len(read_classes(new.folder) or ()) == 2
    assert set(read_source("hf://owner/old@v1").arrays) == set(transformers_names(tmp_path / "old"))
    assert read_source("hf://owner/new@v2/sub/model.safetensors").config is None
    assert asked == [
        ("owner/new", None, "model*.safetensors*"),
        ("owner/old", "v1", "model*.safetensors*"),
        ("owner/old", "v1", "pytorch_model*.bin*"),
        ("owner/new", "v2", "sub/model.safetensors"),
    ]
    with pytest.raises(CheckpointError, match="hf://owner: not an address of Hugging Face"):
        read_source("hf://owner")

    def refuse(*_: Any, **__: Any) -> str:
        raise OSError("401 Client Error\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        CheckpointError, match=r"(?s)hf://owner/x: cannot be fetched: 401 Client Error\n.*hf auth login"
    ):
        read_source("hf://owner/x")


def test_reading_needs_neither_pytorch_nor_jax() -> None:
    script = (
        "import sys, converters.files.read; assert not {'torch', 'jax', 'safetensors', 'fsspec'} & set(sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
