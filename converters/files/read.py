"""Files, folders and addresses of weights, read into one mapping from names to arrays."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from converters.files.weight_files import MOST_UNPACKED, map_file, read_pickle, read_safetensors
from oneformer_jax.data.storage.addresses import is_address, shown
from oneformer_jax.data.storage.cache import fetch_file
from oneformer_jax.errors import CheckpointError, DataError, install_hint
from oneformer_jax.stored import read_json

CLASS_INFO = "class_info.json"
"""What we call the file of the classes in a Hugging Face folder; `preprocessor_config.json` may name another."""

# The first that a Hugging Face folder has is read; those of several files come with an index.
_FOLDER = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")

# Where training tools put the state dict: Lightning, the original Swin and timm, detectron2, others.
_WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "module")

_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")

OfColours = tuple[float, float, float]
Statistics = tuple[OfColours, OfColours]
"""Mean and standard deviation of R, G, B on 0..255."""


@dataclass(frozen=True)
class Source:
    """`arrays` by name, floating ones float32. `folder` is that of Hugging Face, on this machine, and `config` its
    config.json."""

    location: str
    arrays: Mapping[str, np.ndarray] = field(repr=False)
    config: Mapping[str, Any] | None
    folder: Path | None = None


def read_source(location: str | Path) -> Source:
    """Every array of a checkpoint of PyTorch, Lightning, detectron2 (also .pkl), safetensors or Hugging Face.

    `location` is a file, a Hugging Face folder, hf://owner/name[@revision][/file] or the address of a file at any place
    that fsspec knows (s3://, gs://, https://). The format of a file is recognised from its contents, not its name.
    Arrays of float32 stay views of the file where its format allows. Raises CheckpointError when the weights are
    missing, unreadable or not weights.
    """
    location = str(location)
    if not is_address(location):
        return _read(Path(os.path.expanduser(location)), location)
    path = _fetch(location)
    try:
        return _read(path, location)
    except CheckpointError as error:
        raise CheckpointError(error.what, where=f"{shown(location)} (in {error.where})", hint=error.hint) from error


def read_classes(folder: Path) -> list[Any] | None:
    """The classes in the settings of a Hugging Face folder's image processor, as the entries of a label map.

    They lie in the file that `preprocessor_config.json` names or, where that is elsewhere, in its `metadata`. None if
    there is neither. Raises CheckpointError unless they are numbered from 0.
    """
    processor = _read_json(folder / "preprocessor_config.json", needed=False) or {}
    name = Path(str(processor.get("class_info_file") or CLASS_INFO)).name  # nothing outside the folder is read
    info = _read_json(folder / name, needed=False)
    metadata = processor.get("metadata")
    if info is None and isinstance(metadata, dict) and isinstance(metadata.get("thing_ids"), list):
        names = {key: name for key, name in metadata.items() if key.isdecimal() and len(key) < 10}
        info = {key: {"name": name, "isthing": int(key) in metadata["thing_ids"]} for key, name in names.items()}
    if info is None:
        return None
    if absent := {str(index) for index in range(len(info))} - set(info):
        raise CheckpointError(f"names {len(info)} classes, but not class {min(absent, key=int)}", where=str(folder))
    entries = [info[str(index)] for index in range(len(info))]
    return [{"id": i} | entry if isinstance(entry, dict) else entry for i, entry in enumerate(entries)]


def read_statistics(folder: Path) -> Statistics | None:
    """Mean and standard deviation of R, G, B on 0..255 in the settings of a Hugging Face folder's image processor.

    None where it has none. Raises CheckpointError: numbers that cannot be used, or pictures that are prepared in
    another way than (pixel - mean) / deviation.
    """
    path = folder / "preprocessor_config.json"
    processor = _read_json(path, needed=False)
    if processor is None or "image_mean" not in processor:
        return None
    for key, value in {"do_rescale": True, "do_normalize": True}.items():
        if processor.get(key, value) is not value:
            raise CheckpointError(f"{key} is {processor[key]!r:.60}, expected true", where=str(path))
    scale = processor.get("rescale_factor", 1 / 255)
    found = [processor.get(key) for key in ("image_mean", "image_std")]
    numbers = [x for xs in found if isinstance(xs, list) and len(xs) == 3 for x in xs] + [scale]
    usable = all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e6 for x in numbers)
    if len(numbers) != 7 or not usable or min(*numbers[3:]) < 1e-9:
        raise CheckpointError(
            f"image_mean, image_std and rescale_factor are {found} and {scale!r:.60}, expected three numbers each, of "
            "which the deviations are above 0, and a number above 0",
            where=str(path),
        )
    red, green, blue, *deviations = (round(float(x) / scale, 6) for x in numbers[:6])
    return (red, green, blue), (deviations[0], deviations[1], deviations[2])


def _read(path: Path, location: str) -> Source:
    if path.is_dir():
        return Source(location, _read_folder(path), _read_json(path / "config.json", needed=False), path)
    return Source(location, _read_file(path), None)


def _read_file(path: Path) -> dict[str, np.ndarray]:
    # JSON follows eight bytes; in a pickle those would be the low bytes of something huge.
    is_safetensors = map_file(path)[8:9].tobytes() == b"{"
    arrays = read_safetensors(path) if is_safetensors else _state_dict(read_pickle(path), path)
    held = sum(_bytes_of(array) for array in arrays.values())
    if held > 2 * path.stat().st_size + MOST_UNPACKED:  # twice: what is stored in 16 bits
        raise CheckpointError(
            f"its tensors take {held / 2**30:.1f} GB in memory, far more than the file: they repeat the same values",
            where=str(path),
            hint="save `tensor.contiguous()` of each",
        )
    return {name: _as_float32(array) for name, array in arrays.items()}


def _state_dict(loaded: Any, path: Path) -> dict[str, np.ndarray]:
    """The arrays in what a pickle held, from under the keys that training tools put them."""
    for _ in _WRAPPERS:  # one may lie in another; a pickle may also hold itself
        if isinstance(loaded, dict):
            loaded = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), dict)), loaded)
    keyed = isinstance(loaded, dict)
    if not keyed or not any(isinstance(value, np.ndarray) for value in loaded.values()):
        names = [key[:100] if isinstance(key, str) else _name(key) for key in list(loaded)[:8]] if keyed else []
        keys = f" of {', '.join(names) or 'nothing'}" if keyed else ""
        raise CheckpointError(
            f"expected arrays by name, at the top or under {', '.join(_WRAPPERS)}; found "
            f"{'a dictionary' if keys else f'an object of type {type(loaded).__name__}'}{keys}",
            where=str(path),
            hint="save `model.state_dict()`, not the model itself",
        )
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, (np.ndarray, np.generic, int, float)):
            raise CheckpointError(
                f"expected nothing but arrays with names among those of the model, found {type(value).__name__} "
                f"at {_name(name)}",
                where=str(path),
                hint="save `model.state_dict()` alone, or under the key `state_dict`",
            )
    return {name: np.asarray(value) for name, value in loaded.items()}


def _name(key: Any) -> str:
    """A key of a dictionary, which may be anything, in few words."""
    return repr(key)[:100] if isinstance(key, str | int | None) else type(key).__name__


def _read_folder(folder: Path) -> dict[str, np.ndarray]:
    name = next((name for name in _FOLDER if (folder / name).is_file()), None)
    if name is None:
        raise CheckpointError(
            f"expected one of {', '.join(_FOLDER)} in this folder",
            where=str(folder),
            hint="give a folder that `save_pretrained` wrote, or the file of the weights itself",
        )
    if not name.endswith(".index.json"):
        return _read_file(folder / name)
    index = folder / name
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(Path(str(shard)).name == shard for shard in shards.values()):
        raise CheckpointError("expected `weight_map` to name a file of this folder for each tensor", where=str(index))
    arrays: dict[str, np.ndarray] = {}
    for shard in sorted(set(shards.values())):
        arrays |= _read_file(folder / shard)
    if absent := sorted(set(shards) - set(arrays)):
        raise CheckpointError(
            f"names {len(absent)} tensors that its files do not have, such as {absent[0]}",
            where=str(index),
            hint="download the folder again",
        )
    return arrays


def _read_json(path: Path, *, needed: bool = True) -> Any:
    if not needed and not path.is_file():
        return None
    content = read_json(path, error=CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError("expected a JSON object", where=str(path))
    return content


def _bytes_of(array: np.ndarray) -> int:
    """What an array takes as float32, or as it is where that is no float."""
    return array.size * (4 if _is_float(array) else array.itemsize)


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16


def _as_float32(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32) if _is_float(array) else array


def _fetch(address: str) -> Path:
    """The local copy of hf://owner/name[@revision][/file] or of a file at any address that fsspec knows.

    Without a file, a Hugging Face repository becomes a folder with its configuration and weights. Raises
    CheckpointError when the address is wrong, the package for it is not installed or the file cannot be had.
    """
    if address.startswith("hf://"):
        return _from_hub(address)
    try:
        return fetch_file(address)
    except DataError as error:
        raise CheckpointError(error.what, where=error.where, hint=error.hint) from error


def _from_hub(address: str) -> Path:
    match = _HUB.fullmatch(address)
    if match is None:
        raise CheckpointError("not an address of Hugging Face", where=address, hint="hf://owner/name[@revision][/file]")
    try:
        return _download(match["repo"], match["revision"], match["file"])
    except ImportError as error:
        hint = install_hint("remote")
        raise CheckpointError(f"needs a package that is missing: {error}", where=address, hint=hint) from error
    except Exception as error:  # of any of the libraries below huggingface_hub
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "check the address, the network and, for private files, your credentials (`hf auth login`)"
        raise CheckpointError(f"cannot be fetched: {reason}", where=address, hint=hint) from error


def _download(repo: str, revision: str | None, file: str | None) -> Path:
    import huggingface_hub

    if file:
        return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))

    def snapshot(weights: str) -> Path:
        patterns = ["*.json", weights]  # sizes, classes and statistics lie in several
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))

    folder = snapshot("model*.safetensors*")
    # Many repositories hold the same weights twice: the other format is fetched only in want of this one.
    return folder if any(folder.glob("model*.safetensors")) else snapshot("pytorch_model*.bin*")
