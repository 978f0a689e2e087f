"""Reads safetensors files in place.

The format is eight bytes with the length of a JSON header, the header (dtype, shape and byte range of every tensor) and
the values: https://huggingface.co/docs/safetensors. Its own library copies every tensor it hands out; here they are
views of the file.
"""

import json
from pathlib import Path

import numpy as np

from converters.files.mapped_file import map_file
from converters.files.pickle_names import DTYPES
from oneformer_jax.errors import CheckpointError

_CODES = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor by name, as a read-only view of the file that is read when touched.

    Raises CheckpointError for files that are missing, damaged or something else, and for tensors of other dtypes.
    """
    data = map_file(path)
    try:
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        header.pop("__metadata__", None)
        return {name: _tensor(name, data[start:], **entry) for name, entry in header.items()}
    except CheckpointError as error:
        raise CheckpointError(error.what, where=str(path), hint=error.hint) from error
    except Exception as error:  # damaged bytes bring up nearly every kind
        raise CheckpointError(
            f"damaged, incomplete or not a safetensors file ({type(error).__name__}: {error}); "
            f"found {data.size} bytes that start with {data[:16].tobytes()!r}",
            where=str(path),
            hint="download or copy it again; the first bytes show whether it is a web page or a Git LFS pointer",
        ) from error


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
