"""Files of torch.save and pickle: the values PyTorch wrote come back, and damaged files are named."""

import argparse
import collections
import datetime
import enum
import io
import pathlib
import pickle
import subprocess
import sys
import textwrap
import typing
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.files.pickle_names import Inert
from converters.files.weight_files import read_pickle
from oneformer_jax.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
DTYPES = [
    *("float32", "float64", "float16", "bfloat16", "bool"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
]
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(path: Path, thing: Any, zipped: bool = True) -> Path:
    torch.save(thing, path, _use_new_zipfile_serialization=zipped)
    return path


def same(actual: np.ndarray, expected: torch.Tensor) -> None:
    assert isinstance(actual, np.ndarray)
    assert actual.shape == tuple(expected.shape)
    assert str(actual.dtype) == str(expected.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(actual.astype(np.float64), expected.detach().double().numpy())


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str, zipped: bool, tmp_path: Path) -> None:
    values = torch.tensor([[0.0, 1.0, 2.5], [3.0, 100.0, 127.0]]).to(getattr(torch, dtype))
    same(read_pickle(save(tmp_path / "x.pth", {"x": values}, zipped))["x"], values)


@FORMATS
def test_every_kind_of_view(zipped: bool, tmp_path: Path) -> None:
    base = torch.arange(60.0).reshape(3, 4, 5)
    tensors = {
        "transposed": base.permute(2, 0, 1),
        "part": base[1:, ::2, 1:4],
        "column": base[:, 1, 2],
        "expanded": base[0, 0, :1].expand(7),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 3),
        "no_rows": base[3:],
        "parameter": torch.nn.Parameter(base.half()),
        "buffer": torch.nn.Buffer(base.bfloat16()),
    }
    loaded = read_pickle(save(tmp_path / "x.pth", tensors, zipped))
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        same(loaded[name], tensor)
    assert np.shares_memory(loaded["transposed"], loaded["part"])
    assert not np.shares_memory(loaded["transposed"], loaded["channels_last"])


@FORMATS
def test_a_module_with_tied_weights(zipped: bool, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    module[2].weight = module[0].weight
    state = module.state_dict()  # an OrderedDict with the attribute _metadata
    loaded = read_pickle(save(tmp_path / "x.pth", state, zipped))
    assert set(loaded) == set(state)
    for name, tensor in state.items():
        same(loaded[name], tensor)
    assert np.shares_memory(loaded["0.weight"], loaded["2.weight"])


def test_values_of_a_zip_file_are_not_copied(tmp_path: Path) -> None:
    array = read_pickle(save(tmp_path / "x.pth", {"x": torch.ones(1000)}))["x"]
    while isinstance(array.base, np.ndarray):
        array = array.base
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable


def test_a_repacked_archive_with_compression(tmp_path: Path) -> None:
    save(tmp_path / "x.pth", {"x": torch.arange(1000)})
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as old,
        zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as y,
    ):
        for name in old.namelist():
            y.writestr(name, old.read(name))
    same(read_pickle(tmp_path / "y.pth")["x"], torch.arange(1000))


class Colour(enum.Enum):
    RED = 1


PLAIN = {
    "text": "ü",
    "numbers": [1, -(2**70), 0.5, 1j, True, None],
    "set": {1, 2},
    "frozen": frozenset({3}),
    "bytes": [b"\x00\xff", b""],
    "tuple": (1, (2, ())),
    "ordered": collections.OrderedDict(a=1),
    "default": collections.defaultdict(list, a=[1]),
    "array": np.arange(6, dtype=">i2").reshape(2, 3).T,
    "columns": np.asfortranarray(np.ones((2, 3), np.float32)),
    "scalar": np.float32(0.25),
    "names": np.array(["a", "bc"]),
    "nothing": np.zeros((0, 4)),
    "size": torch.Size([1, 2]),
}
INERT = {
    "path": pathlib.Path("a/b"),
    "namespace": argparse.Namespace(lr=1),
    "moment": datetime.datetime(2020, 1, 1),
    "duration": datetime.timedelta(1),
    "counter": collections.Counter("aab"),
    "queue": collections.deque([1, 2]),
    "range": range(3),
    "slice": slice(1, 2),
    "dots": ...,
    "bytearray": bytearray(b"x"),
    "type": type(None),
    "enum": Colour.RED,
    "device": torch.device("cpu"),
    "hint": typing.Dict[str, typing.Optional[int]],  # noqa: UP006, UP045,
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({**PLAIN, **INERT}, protocol))
    loaded = read_pickle(tmp_path / "x.pkl")
    for name in INERT:
        assert isinstance(loaded[name], (Inert, type, bytearray)), name
    for name, value in PLAIN.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(loaded[name], value)
            assert loaded[name].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
        else:
            assert loaded[name] == value, name


def test_arrays_written_by_python_2(tmp_path: Path) -> None:
    data = np.arange(4, dtype=np.float32)
    raw = data.tobytes()
    (tmp_path / "x.pkl").write_bytes(  # what Python 2 pickled with NumPy 1, protocol 2
        b"\x80\x02}q\x00U\x05modelq\x01}q\x02U\x01wq\x03cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05"
        b"K\x00\x85U\x01b\x87Rq\x06(K\x01K\x04\x85cnumpy\ndtype\nq\x07U\x02f4K\x00K\x01\x87Rq\x08(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U" + bytes([len(raw)]) + raw + b"tbss."
    )
    np.testing.assert_array_equal(read_pickle(tmp_path / "x.pkl")["model"]["w"], data)


OMEGACONF = """
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Dict, List, Optional, Tuple, Union

class Mode(Enum):
    FAST = "fast"

@dataclass
class Data:
    root: str = "/data"
    mean: List[float] = field(default_factory=lambda: [0.5, 0.5])
    extra: Dict[str, Any] = field(default_factory=dict)
    limit: Optional[int] = None
    size: Union[int, str] = 3
    crop: Tuple[int, int] = (1, 2)
    mode: Mode = Mode.FAST

@dataclass
class Spec:
    data: Data = field(default_factory=Data)
    more: Optional[List[Data]] = None

class Loop:
    def __init__(self):
        self.step, self.again = 3, self
    def __reduce__(self):
        return Loop, (), {"step": 3}, iter([1, 2]), iter([("a", 1)])
    def append(self, _): ...
    def __setitem__(self, *_): ...

def content():
    import torch
    from omegaconf import OmegaConf
    return {
        "state_dict": {"w": torch.ones(2)},
        "hyper_parameters": {"cfg": OmegaConf.structured(Spec()), "plain": OmegaConf.create({"a": [1, {"b": None}]})},
        "loops": {"fit_loop": Loop()},
        "callbacks": {Mode.FAST: {"best": torch.tensor(0.5), "path": __import__("pathlib").Path("x")}},
    }
"""


@pytest.mark.slow
@pytest.mark.tao(20)
@FORMATS
def test_a_lightning_file_without_the_classes_in_it(zipped: bool, tmp_path: Path) -> None:
    (tmp_path / "vanished.py").write_text(OMEGACONF)
    write = f"import torch, vanished; torch.save(vanished.content(), 'x.ckpt', _use_new_zipfile_serialization={zipped})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", write], cwd=tmp_path, check=True)
    (tmp_path / "vanished.py").unlink()
    read = textwrap.dedent("""
        import sys
        from pathlib import Path
        from converters.files.weight_files import read_pickle
        loaded = read_pickle(Path(sys.argv[1]))
        assert loaded["state_dict"]["w"].tolist() == [1, 1], loaded
        assert list(loaded) == ["state_dict", "hyper_parameters", "loops", "callbacks"], loaded
        assert not {"torch", "omegaconf", "vanished", "jax"} & set(sys.modules)
    """)
    result = subprocess.run(
        [sys.executable, "-c", read, str(tmp_path / "x.ckpt")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@FORMATS
@pytest.mark.parametrize("what", ["complex64", "quantised", "sparse", "float8_e4m3fn", "meta"])
def test_other_tensors_are_named(what: str, zipped: bool, tmp_path: Path) -> None:
    if what == "quantised":
        with warnings.catch_warnings(action="ignore"):  # that quantised tensors will go
            tensor = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    elif what == "sparse":
        tensor = torch.eye(2).to_sparse()
    elif what == "meta":
        tensor = torch.empty(2, device="meta")
    else:
        tensor = torch.ones(2).to(getattr(torch, what))
    said = {"complex64": "ComplexFloat", "quantised": "qtensor", "float8_e4m3fn": "float8_e4m3fn"}.get(what, what)
    with pytest.raises(CheckpointError, match=rf"x\.pth: holds a tensor .*{said}"):
        read_pickle(save(tmp_path / "x.pth", {"x": tensor}, zipped))


def whole_file(how: str) -> bytes:
    content = {"w": torch.arange(40.0), "b": torch.ones(3, dtype=torch.float16), "epoch": 3}
    if how == "pickle":
        return pickle.dumps({"w": np.arange(40.0)}, 2)
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=how == "zip")
    return buffer.getvalue()


WHOLE = {how: whole_file(how) for how in ("zip", "legacy", "pickle")}


@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere(tmp_path_factory: pytest.TempPathFactory, how: str, where: float) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.pth"
    path.write_bytes(WHOLE[how][: int(where * len(WHOLE[how]))])
    with pytest.raises(CheckpointError, match=r"cut\.pth: (damaged, incomplete or not|the file is empty)"):
        read_pickle(path)


@given(st.sampled_from(["zip", "legacy"]), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_file_with_a_hole(tmp_path_factory: pytest.TempPathFactory, how: str, start: float, stop: float) -> None:
    """A lost part is an error or, where only values and checksums lie, loses nothing but values."""
    path, whole = tmp_path_factory.getbasetemp() / "hole.pth", WHOLE[how]
    first, last = sorted((int(start * len(whole)), int(stop * len(whole))))
    path.write_bytes(whole[:first] + bytes(last - first) + whole[last:])
    try:
        loaded = read_pickle(path)
    except CheckpointError as error:
        assert "hole.pth" in str(error)  # noqa: PT017
    else:
        if isinstance(loaded, dict) and "w" in loaded:
            assert loaded["w"].size <= 40


@given(st.binary(max_size=60))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.pth"
    path.write_bytes(b"PK\x03\x04" + noise)
    with pytest.raises(CheckpointError, match=r"noise\.pth"):
        read_pickle(path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(CheckpointError, match=r"x\.pth: no such file"):
        read_pickle(path)
    with pytest.raises(CheckpointError, match="cannot be opened: Is a directory"):
        read_pickle(tmp_path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=r"found 43 bytes that start with b'version https://'"):
        read_pickle(path)
    np.savez(path.with_suffix(".npz"), a=np.zeros(2))
    with pytest.raises(CheckpointError, match=r"expected a zip archive of torch.save, found one of a\.npy"):
        read_pickle(path.with_suffix(".npz"))
    save(path, {"x": torch.ones(2)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "y.pth", "w") as other_endian:
        for name in old.namelist():
            other_endian.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(CheckpointError, match="big-endian"):
        read_pickle(tmp_path / "y.pth")
