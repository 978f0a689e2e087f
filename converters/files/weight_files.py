"""Reads what torch.save, pickle and safetensors wrote, without PyTorch and without running anything.

Since version 1.6 a file of torch.save is a zip archive: `data.pkl` holds the objects and `data/<key>` the values of
each storage. Before, it was a chain of pickles (magic number, version, system, objects, storage keys) and then the
storages, each with its length in front. See torch/serialization.py.

A safetensors file is eight bytes with the length of a JSON header, the header (dtype, shape and byte range of every
tensor) and the values: https://huggingface.co/docs/safetensors. Its own library copies every tensor it hands out; here
they are views of the file.
"""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from converters.files.pickle_bounds import check_bounds
from converters.files.pickle_names import DTYPES, Storage, dtype_of, resolve
from oneformer_jax.errors import CheckpointError

MOST_UNPACKED = 2**30
"""Bytes that compressed parts of a file may take in memory."""
ZIP = b"PK\x03\x04"
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<4s22xHH")

# The dtypes of a safetensors file.
_CODES = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}

_FindStorage = Callable[[str, str, int], np.ndarray]


def map_file(path: Path) -> np.ndarray:
    """The bytes of `path`, read-only; arrays cut from them cost no memory of their own.

    Raises CheckpointError when there is no such file, or it is empty or cannot be opened.
    """
    try:
        return np.asarray(np.memmap(path, np.uint8, "r"))
    except FileNotFoundError:
        raise CheckpointError("no such file", where=str(path), hint="check the path") from None
    except OSError as error:
        raise CheckpointError(f"cannot be opened: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise CheckpointError("the file is empty", where=str(path), hint="copy or download it again") from error


@contextmanager
def _naming(path: Path, data: np.ndarray, kind: str, expected: str = "") -> Iterator[None]:
    """Errors within it become CheckpointErrors that name the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(error.what, where=str(path), hint=error.hint) from error
    except Exception as error:  # damaged bytes bring up nearly every kind
        raise CheckpointError(
            f"damaged, incomplete or not a {kind} ({type(error).__name__}: {error}); "
            f"{expected}found {data.size} bytes that start with {data[:16].tobytes()!r}",
            where=str(path),
            hint="download or copy it again; the first bytes show whether it is a web page or a Git LFS pointer",
        ) from error


def read_pickle(path: Path) -> Any:
    """The object in a file of torch.save (both formats) or of pickle, tensors as NumPy arrays.

    Tensors of a zip file are read-only views of the file, read when touched; those that share values there share them
    here. Objects of foreign classes become inert stand-ins (see pickle_names). Raises CheckpointError for files that
    are missing, damaged or something else, for names that would run code, and for complex, quantised, sparse and 8-bit
    tensors.
    """
    data = map_file(path)
    with _naming(path, data, "PyTorch checkpoint", "expected a file of torch.save, "):
        if data[: len(ZIP)].tobytes() == ZIP:
            return _read_zip(path, data)
        with path.open("rb") as file:
            return _read_stream(file, data.size)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedReader | io.BytesIO, find_storage: _FindStorage | None) -> None:
        # Only Python 2 wrote strings that need an encoding, and latin1 keeps every byte of them.
        super().__init__(file, encoding="latin1")
        self._find_storage = find_storage

    def find_class(self, module: str, name: str) -> Any:
        return resolve(module, name)

    def persistent_load(self, pid: Any) -> Any:
        kind, *rest = pid
        if kind == "module":  # of a pickled module: its class and the source code
            return rest[0]
        if kind != "storage" or self._find_storage is None:
            raise pickle.UnpicklingError(f"an external object of kind {kind!r}")
        dtype, key, _device, count, *view = rest
        data = self._find_storage(key, dtype, count)
        if view and view[0] is not None:  # (key, offset, length) of a part, until version 0.4
            step = dtype_of(dtype).itemsize
            data = data[view[0][1] * step :][: view[0][2] * step]
        return Storage(data, dtype)


def _load(file: io.BufferedReader | io.BytesIO, find_storage: _FindStorage | None = None) -> Any:
    check_bounds(file)
    return _Unpickler(file, find_storage).load()


def _read_zip(path: Path, data: np.ndarray) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        packed = sum(entry.file_size for entry in entries.values() if entry.compress_type != zipfile.ZIP_STORED)
        if packed > MOST_UNPACKED:
            raise CheckpointError(
                f"unpacks to {packed / 2**30:.1f} GB",
                hint="torch.save compresses nothing: store it without compression",
            )

        def read(name: str) -> np.ndarray:
            entry = entries[name]
            if entry.compress_type != zipfile.ZIP_STORED:
                return np.frombuffer(archive.read(entry), np.uint8)
            signature, *lengths = _LOCAL_HEADER.unpack_from(data.data, entry.header_offset)
            start = entry.header_offset + _LOCAL_HEADER.size + sum(lengths)
            values = data[start : start + entry.file_size]
            if signature != ZIP or values.size != entry.file_size:
                raise zipfile.BadZipFile(f"entry {name} is not where the archive's directory says")
            return values

        pickles = [name for name in entries if name.split("/")[-1] == "data.pkl"]
        root = pickles[0].removesuffix("data.pkl") if pickles else ""
        if len(pickles) != 1 or f"{root}constants.pkl" in entries:
            raise CheckpointError(
                f"expected a zip archive of torch.save, found one of {', '.join(list(entries)[:4])} ...",
                hint="give the file with the weights; of a TorchScript program, save `module.state_dict()` first",
            )
        if f"{root}byteorder" in entries and read(f"{root}byteorder").tobytes() != b"little":
            raise CheckpointError("written on a big-endian machine", hint="save it again on a little-endian one")

        def find_storage(key: str, dtype: str, count: int) -> np.ndarray:
            values = read(f"{root}data/{key}")
            if values.size != count * dtype_of(dtype).itemsize:
                raise ValueError(f"storage {key} has {values.size} bytes instead of {count} values of {dtype}")
            return values

        return _load(io.BytesIO(read(pickles[0]).tobytes()), find_storage)


def _read_stream(file: io.BufferedReader, size: int) -> Any:
    first = _load(file)
    if not (isinstance(first, int) and first == _MAGIC_NUMBER):
        return first
    protocol, _system = _load(file), _load(file)
    if protocol != _PROTOCOL:
        raise ValueError(f"protocol {protocol} instead of {_PROTOCOL}")
    storages: dict[str, np.ndarray] = {}
    steps: dict[str, int] = {}

    def find_storage(key: str, dtype: str, count: int) -> np.ndarray:
        """Room for the values, which come after the objects."""
        if key not in storages:
            steps[key] = dtype_of(dtype).itemsize
            if not 0 <= count * steps[key] <= size:
                raise ValueError(f"storage {key} of {count} values in a file of {size} bytes")
            storages[key] = np.empty(count * steps[key], np.uint8)
        return storages[key]

    result = _load(file, find_storage)
    keys = _load(file)
    if set(keys) != set(storages):
        raise ValueError("the storages that follow are not those of the tensors")
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        if count * steps[key] != storages[key].size:
            raise ValueError(f"storage {key} has {count} values instead of {storages[key].size // steps[key]}")
        if file.readinto(storages[key].data) != storages[key].size:
            raise EOFError(f"the file ends within storage {key}")
    return result


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor by name, as a read-only view of the file that is read when touched.

    Raises CheckpointError for files that are missing, damaged or something else, and for tensors of other dtypes.
    """
    data = map_file(path)
    with _naming(path, data, "safetensors file"):
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        header.pop("__metadata__", None)
        return {name: _tensor(name, data[start:], **entry) for name, entry in header.items()}


def _tensor(name: str, values: np.ndarray, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    if dtype not in _CODES:
        raise CheckpointError(
            f"tensor {name} is of dtype {dtype}, which cannot be read",
            hint="save the weights as float32, float16 or bfloat16",
        )
    start, stop = data_offsets
    if not 0 <= start <= stop <= values.size:
        raise ValueError(f"tensor {name} lies at {start}:{stop} of {values.size} bytes")
    return values[start:stop].view(DTYPES[_CODES[dtype]]).reshape(shape)
