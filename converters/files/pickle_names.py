"""What the names in a pickle stand for, so that reading one runs nothing but the code of this file.

A pickle is a program that calls what it names. Names of tensors and arrays mean the functions below, names of harmless
containers and plain types mean those, and every other class is replaced by an inert one that takes whatever is done to
it and does nothing. Other names of the standard library are how a pickle would run code: they are refused. Nothing is
ever imported because a pickle names it.
"""

import pickle
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from oneformer_jax.errors import CheckpointError

DTYPES: dict[str, np.dtype] = {
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "bool")},
    **{name: np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

# By the prefix of `torch.FloatStorage` and the like.
_STORAGES = {
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Float": "float32",
    "Double": "float64",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Byte": "uint8",
    "Untyped": "uint8",
    "Bool": "bool",
}

_HARMLESS = {
    f"{module}.{name}"
    for module, names in {
        "argparse": "Namespace",
        # Also by the names of Python 2, which pickles of protocol 2 use.
        "builtins": "bytearray Ellipsis NotImplemented object range slice type unicode xrange",
        "collections": "Counter deque",
        "datetime": "date datetime time timedelta timezone",
        "decimal": "Decimal",
        "enum": "Enum Flag IntEnum IntFlag StrEnum",
        "operator": "getitem",  # of typing's List[float], in the types of OmegaConf's nodes
        "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
        "types": "NoneType SimpleNamespace",
        "typing": "Any Callable Dict FrozenSet List Literal Mapping Optional Sequence Set Tuple Type Union",
        "uuid": "UUID",
    }.items()
    for name in names.split()
}

_OTHER_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg", "_operator": "operator", "pathlib._local": "pathlib"}


class Inert:
    """Stands in for an object of a class that is not imported."""

    def __new__(cls, *_: Any, **__: Any) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def _swallow(self, *_: Any, **__: Any) -> "Inert":
        return self

    __setstate__ = __setitem__ = __call__ = append = extend = add = _swallow


@dataclass(frozen=True)
class Storage:
    """The bytes that tensors are views of."""

    data: np.ndarray
    dtype: str


class _Dictionary(dict):
    """An OrderedDict or defaultdict without the attributes that a pickle may give it."""

    def __setstate__(self, *_: Any) -> None:
        pass


class _DefaultDictionary(_Dictionary):
    def __init__(self, _factory: Any = None, *items: Any) -> None:
        super().__init__(*items)


class _Function:
    """A function that a pickle may call but not change: pickles can set attributes of whatever they name."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, *_: Any) -> None:
        raise pickle.UnpicklingError("a function is given a state")


class _Text(str):
    """Text of a text alone: that of other objects may be of any length."""

    def __new__(cls, value: Any = "", *_: Any) -> "str":  # type: ignore[misc]
        return value if isinstance(value, str) else ""


class _Dtype:
    """A NumPy dtype, as its pickle describes it."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biufSU]\d+", str(code)):
            raise CheckpointError(f"holds an array of dtype {code}, which is not one of plain numbers or text")
        self._code, self._order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]
        if self._order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"byte order {self._order!r}")

    def build(self) -> np.dtype:
        return np.dtype(self._order + self._code)


class _Array(np.ndarray):
    """An array that gets its values after it was made."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *_, shape, dtype, fortran, data = state
        super().__setstate__((1, shape, dtype.build(), bool(fortran), _encode(data)))  # type: ignore[arg-type]


def dtype_of(name: str) -> np.dtype:
    """The dtype of a storage or tensor. Raises CheckpointError for complex, quantised and 8-bit float ones."""
    if name not in DTYPES:
        raise CheckpointError(
            f"holds a tensor of {name}, which cannot be read", hint="save the weights as float32, float16 or bfloat16"
        )
    return DTYPES[name]


def _tensor(storage: Storage, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any) -> np.ndarray:
    dtype = dtype_of(storage.dtype)
    step = dtype.itemsize  # NumPy checks that the view stays within its buffer
    return np.ndarray(tuple(shape), dtype, storage.data, offset * step, tuple(stride * step for stride in strides))


def _typed_tensor(storage: Storage, *arguments: Any) -> np.ndarray:
    *place, _requires_grad, _hooks, dtype = arguments[:6]
    return _tensor(Storage(storage.data, dtype), *place)


def _from_type(function: Callable[..., Any], _type: Any, arguments: tuple[Any, ...], *_: Any) -> Any:
    return function(*arguments)


def _first(value: Any, *_: Any) -> Any:
    return value


def _encode(text: str | bytes = "", encoding: str = "latin1") -> bytes:
    """The bytes that a pickle of protocol 2, which has none, holds as text."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding}")
    return text.encode("latin1") if isinstance(text, str) else bytes(memoryview(text))


def _empty_array(*_: Any) -> np.ndarray:
    return _Array(0, np.uint8)


def _array_from_bytes(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(data, dtype.build()).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, data: str | bytes) -> np.generic:
    return np.frombuffer(_encode(data), dtype.build(), count=1)[0]


def _make(cls: type, *_: Any) -> Any:
    """Pickles before protocol 2 make objects this way; the rest of what they say is for the class's own base."""
    return cls()


_OF_NUMPY: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": _empty_array,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _array_from_bytes,
}

_MEANINGS: dict[str, Any] = {
    **{f"builtins.{plain.__name__}": plain for plain in (bool, int, float, complex, tuple, list, dict, set, frozenset)},
    "builtins.str": _Text,
    "builtins.long": int,
    "builtins.bytes": _Function(_encode),
    "_codecs.encode": _Function(_encode),
    "copyreg._reconstructor": _Function(_make),
    "collections.OrderedDict": _Dictionary,
    "collections.defaultdict": _DefaultDictionary,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _Function(_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_tensor_v3": _Function(_typed_tensor),
    "torch._utils._rebuild_parameter": _Function(_first),
    "torch._utils._rebuild_parameter_with_state": _Function(_first),
    "torch._tensor._rebuild_from_type": _Function(_from_type),
    "torch._tensor._rebuild_from_type_v2": _Function(_from_type),
    "numpy.dtype": _Dtype,
    **{
        f"numpy.{core}.{name}": _Function(function)
        for core in ("core", "_core")  # before and since NumPy 2
        for name, function in _OF_NUMPY.items()
    },
}


def resolve(module: str, name: str) -> Any:
    """What `module.name` stands for: a dtype's name for PyTorch's dtypes and storages, else a class or function.

    Raises CheckpointError for names that would run code and for tensors that cannot be read.
    """
    module = _OTHER_NAMES.get(module, module)
    full = f"{module}.{name}"
    if full in _MEANINGS:
        return _MEANINGS[full]
    if module == "torch" and name in DTYPES:
        return name
    if module.split(".")[0] == "torch" and name.endswith("Storage"):
        return _STORAGES.get(name.removesuffix("Storage"), full)
    if module.startswith("torch.") and name.startswith("_rebuild"):
        raise CheckpointError(
            f"holds a tensor that {full} makes (sparse, quantised or without values), which cannot be read",
            hint="save ordinary dense tensors: a float state dict",
        )
    if module.split(".")[0] in sys.stdlib_module_names and full not in _HARMLESS:
        raise CheckpointError(
            f"{full} is refused: it would run code",
            hint="a checkpoint needs nothing of the kind; do not load this file elsewhere unless you trust its source",
        )
    return type(full, (Inert,), {})
