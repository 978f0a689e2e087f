"""Nothing in a pickle can run, whatever it names and however it is wrapped."""

import builtins
import collections
import functools
import importlib
import marshal
import operator
import os
import pathlib
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.files.read import read_source
from converters.files.weight_files import read_pickle
from oneformer_jax.errors import CheckpointError


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


class Builds(Calls):
    """Pickles as an object whose state is the call."""

    def __reduce__(self) -> Any:
        return collections.OrderedDict, (), {"state": Calls(*self.reduced[:1], *self.reduced[1])}


BOMBS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "system": lambda mark: (os.system, f"touch {mark}"),
    "eval": lambda mark: (eval, f"open({mark!r}, 'w')"),
    "exec": lambda mark: (exec, f"open({mark!r}, 'w')"),
    "getattr": lambda mark: (getattr, Calls(importlib.import_module, "os"), "mkdir"),
    "open": lambda mark: (open, mark, "w"),
    "Popen": lambda mark: (subprocess.Popen, ["touch", mark]),
    "import": lambda mark: (builtins.__import__, "antigravity"),
    "compile": lambda mark: (compile, "1", "", "eval"),
    "attrgetter": lambda mark: (operator.attrgetter, "system"),
    "methodcaller": lambda mark: (operator.methodcaller, "mkdir", mark),
    "partial": lambda mark: (functools.partial, os.mkdir, mark),
    "marshal": lambda mark: (marshal.loads, b"N"),
    "in typing": lambda mark: (list, (Calls(os.mkdir, mark),)),
    "pickle": lambda mark: (pickle.loads, pickle.dumps(Calls(os.mkdir, mark))),
    "unlink": lambda mark: (pathlib.Path.unlink, pathlib.Path(mark)),
}


@pytest.mark.tao(20)
@pytest.mark.parametrize("kind", [Calls, Builds])
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_would_run_code_is_refused(bomb: str, how: str, kind: type[Calls], tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "x.pth"
    content = {"state_dict": {"w": torch.ones(2) if how != "pickle" else 1}, "x": kind(*BOMBS[bomb](str(mark)))}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, 4))
    else:
        torch.save(content, path, pickle_protocol=4, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(CheckpointError, match=r"x\.pth: [\w.]+ is refused: it would run code"):
        read_pickle(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["os system", "posix system", "__builtin__ eval", "builtins getattr", "nt popen"])
@pytest.mark.parametrize("opcode", ["c{0}\n{1}\n", "(i{0}\n{1}\n", "X\x01\0\0\0a0\x8c{2}{0}\x8c{3}{1}\x93"])
def test_every_opcode_that_names_something(name: str, opcode: str, tmp_path: Path) -> None:
    module, attribute = name.split()
    program = opcode.format(module, attribute, chr(len(module)), chr(len(attribute)))
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04" + program.encode("latin1") + b".")
    with pytest.raises(CheckpointError, match="refused"):
        read_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("attribute", ["__call__", "__new__", "__defaults__", "_function", "__setstate__"])
@pytest.mark.parametrize(
    "name",
    ["torch._utils _rebuild_parameter", "collections OrderedDict", "builtins dict", "foreign thing", "numpy dtype"],
)
def test_a_file_cannot_change_what_reads_it(name: str, attribute: str, tmp_path: Path) -> None:
    """The opcode BUILD sets attributes of whatever a pickle names, functions and classes as well."""
    good, evil = tmp_path / "good.pth", tmp_path / "evil.pkl"
    torch.save(collections.OrderedDict(x=torch.nn.Parameter(torch.ones(2))), good)
    key = b"X" + len(attribute).to_bytes(4, "little") + attribute.encode()
    for state in (b"}" + key + b"Ns", b"N}" + key + b"Ns\x86"):  # of __dict__, and of attributes one by one
        evil.write_bytes(b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + state + b"b.")
        try:
            read_pickle(evil)
        except CheckpointError as error:
            assert "damaged" in str(error)  # noqa: PT017
    np.testing.assert_array_equal(read_pickle(good)["x"], [1, 1])


def doubled(times: int) -> bytes:
    """A pickle of tuples that hold the one before twice: hashing the last takes 2 to the power of `times` steps."""
    steps = b"".join(b"h%bh%b\x86\x94" % (bytes([i]), bytes([i])) for i in range(times))
    return b"\x80\x04)\x94" + steps


@pytest.mark.parametrize(
    "content",
    {
        "deep": b"\x80\x04)" + b"\x85" * 1_000_000 + b".",
        "a deep key": b"\x80\x04})" + b"\x85" * 1_000_000 + b"Ns.",
        "deep lists": b"\x80\x04" + b"(" * 100_000 + b"l" * 100_000 + b".",
        "doubled": doubled(60) + b".",
        "a doubled key": doubled(60) + b"0}h\x3cNs.",
        "text of what is doubled": b"\x80\x04cbuiltins\nstr\n" + doubled(60)[2:] + b"\x85R.",
    }.values(),
    ids=str,
)
def test_a_small_pickle_does_not_become_a_large_or_deep_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(CheckpointError):
        read_source(tmp_path / "x.pkl")


def test_what_is_nested_as_checkpoints_are_is_read(tmp_path: Path) -> None:
    nested: Any = ()
    for _ in range(500):
        nested = (nested,)
    content = {"state_dict": {"w": np.ones(2, np.float32)}, "x": nested, "shared": [collections.Counter("ab")] * 99}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
        np.testing.assert_array_equal(read_source(tmp_path / "x.pkl").arrays["w"], [1, 1])


@pytest.mark.slow
def test_a_small_file_of_large_tensors_is_refused_before_they_are_made(tmp_path: Path) -> None:
    value = torch.zeros(1, dtype=torch.float16)
    torch.save({"w": value.expand(2 * 10**9)}, tmp_path / "repeated.pth")
    with pytest.raises(CheckpointError, match=r"its tensors take 7\.5 GB"):
        read_source(tmp_path / "repeated.pth")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/data.pkl", b"\x80\x04).")
        with archive.open("a/data/0", "w", force_zip64=True) as file:
            for _ in range(1100):
                file.write(bytes(2**20))
    with pytest.raises(CheckpointError, match=r"unpacks to 1\.1 GB"):
        read_source(tmp_path / "packed.pth")


@pytest.mark.parametrize("key", [(), ((1, 2), 3), b"x" * 10**6, None, "n" * 10**6])
def test_names_that_are_no_text_are_told_in_few_words(key: Any, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.ones(1), key: object()}))
    with pytest.raises(CheckpointError) as raised:
        read_source(tmp_path / "x.pkl")
    assert len(str(raised.value)) < 600
