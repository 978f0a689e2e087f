"""A file as an array of bytes that are read when they are touched."""

from pathlib import Path

import numpy as np

from oneformer_jax.errors import CheckpointError


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
