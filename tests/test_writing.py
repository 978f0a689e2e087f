"""Files appear whole or not at all, alone and together, also where the disk takes no more."""

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from oneformer_jax import writing
from oneformer_jax.errors import OneFormerError
from oneformer_jax.writing import appearing_in, new_folder, remove_unfinished, write_bytes, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, *names: str, error: BaseException | None = None) -> None:
    with appearing_in(folder, names[0] if names else "") as fresh:
        for name in names:
            (fresh / name).write_text("2")
        if error is not None:
            raise error


def fill_the_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_files_and_folders_appear_together_and_replace_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "gone").write_text("1")
    (tmp_path / "a").write_text("1")
    (tmp_path / "kept").write_text("1")
    with appearing_in(tmp_path) as fresh:
        (fresh / "old").mkdir()
        (fresh / "old" / "new").write_text("2")
        (fresh / "a").write_text("2")
        assert content(tmp_path)["a"] == "1"
    assert content(tmp_path) == {"old/new": "2", "a": "2", "kept": "1"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "kept", "old"]


def test_what_fails_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "a", error=KeyboardInterrupt())
    with pytest.raises(ValueError, match="words"):
        write(tmp_path / "new" / "folder", error=ValueError("words"))
    assert content(tmp_path) == {"a": "1"}
    assert not (tmp_path / "new" / "folder").exists()


@pytest.mark.parametrize("failing", range(4))
def test_a_rename_that_fails_brings_back_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Two files are replaced, one is new: five renames, the last of which is tried in another test."""
    for name in "ab":
        (tmp_path / name).write_text("1")
    rename, calls = Path.rename, []

    def fails_once(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing + 1:
            fill_the_disk()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OneFormerError, match="No space left"):
        write(tmp_path, "a", "b", "c")
    assert content(tmp_path) == {"a": "1", "b": "1"}


@pytest.mark.parametrize("step", ["fsync", "write", "replace"])
def test_a_full_disk_leaves_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"mIoU": 0.5})
    old = path.read_bytes()
    target = {"fsync": (writing.os, "fsync"), "write": (Path, "write_bytes"), "replace": (Path, "replace")}[step]
    monkeypatch.setattr(*target, fill_the_disk)
    with pytest.raises(OneFormerError) as caught:
        write_json(path, {"mIoU": 0.6})
    assert str(caught.value).startswith(f"{path}: the file cannot be written: No space left on device\n  -> free disk")
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_the_words_of_libraries_about_the_disk_are_understood(tmp_path: Path) -> None:
    with pytest.raises(OneFormerError, match=rf"{tmp_path}/shard: the file cannot be written: No space left"):
        write(tmp_path, "shard", error=RuntimeError("UNKNOWN: write failed: No space left on device"))
    with pytest.raises(RuntimeError, match="something else"):
        write(tmp_path, "shard", error=RuntimeError("something else"))
    with pytest.raises(FileNotFoundError), appearing_in(tmp_path):
        (tmp_path / "an input").read_bytes()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OneFormerError, match=r"file/a\.json: the file cannot be written: Not a directory"):
        write_text(tmp_path / "file" / "a.json", "")


def test_links_pipes_and_modes_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/file")
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "link", "ü")
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text(encoding="utf-8") == "ü"
    assert (tmp_path / "elsewhere" / "file").stat().st_mode & 0o777 == 0o640
    write_bytes(Path("/dev/null"), b"nothing")
    assert not Path("/dev/null").is_file()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    script = f"""
import os
import subprocess
import sys
from pathlib import Path
from oneformer_jax.writing import appearing_in
with appearing_in(Path({str(tmp_path)!r})) as fresh:
    (fresh / "half").write_text("1")
    os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 1
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    assert list(tmp_path.iterdir())
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_while_a_folder_gets_its_name_leaves_nothing_under_it(tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from oneformer_jax.writing import new_folder
Path.rename = lambda *_: os._exit(1)
with new_folder(Path({str(tmp_path / "out")!r})) as fresh:
    (fresh / "half").write_text("1")
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 1
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir())
    with new_folder(tmp_path / "out") as fresh:
        (fresh / "a").write_text("1")
        (fresh / "b").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert content(tmp_path / "out") == {"a": "1"}
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_of_two_that_make_a_folder_at_once_one_fails(tmp_path: Path) -> None:
    def outer() -> None:
        with new_folder(tmp_path / "out") as fresh:
            (fresh / "a").write_text("1")
            with new_folder(tmp_path / "out") as other:
                (other / "a").write_text("2")
            assert fresh.exists(), "nobody removes what somebody still writes"

    with pytest.raises(
        OneFormerError, match=r"out: something is there by now.*\n  -> give a folder that does not exist"
    ):
        outer()
    assert content(tmp_path) == {"out/a": "2"}


def test_a_new_folder_that_fails_leaves_an_empty_one_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(writing.os, "fsync", fill_the_disk)

    def full() -> None:
        with new_folder(tmp_path / "out") as fresh:
            write_text(fresh / "train" / "a.json", "1")

    with pytest.raises(OneFormerError) as raised:
        full()
    assert raised.value.where == str(tmp_path / "out" / "train" / "a.json")
    assert list((tmp_path / "out").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_entries_that_were_getting_their_names_get_them_and_the_only_copy_is_not_removed(tmp_path: Path) -> None:
    """As killed after `a` was placed: `a` and `b` were replaced, `b` and `c` are new and still aside."""
    left = tmp_path / ".x.unfinished"
    (left / ".replaced").mkdir(parents=True)
    for path in (tmp_path / "a", left / "b", left / "c"):
        path.write_text("new")
    for name in ("a", "b"):
        (left / ".replaced" / name).write_text("old")
    remove_unfinished(tmp_path)
    assert content(tmp_path) == {"a": "new", "b": "new", "c": "new"}


# Names of what is called to write a file in place, and the files in which it may be, with the reason.
IN_PLACE = {"write_text", "write_bytes", "imwrite", "savez", "tofile", "save_model"}
ASIDE = {
    "converters/onnx/export.py": "in the folder of `appearing_in`",
    "converters/write_huggingface.py": "in the folder of `new_folder`",
    "oneformer_jax/data/datasets/tfds_dataset.py": "in the folder of `appearing_in`",
    "oneformer_jax/data/datasets/tfds_records.py": "in the folder of `appearing_in`",
    "oneformer_jax/data/drawn_shapes.py": "in the folder of `appearing_in`",
    "oneformer_jax/data/importers/written.py": "in the folder of `new_folder`",
    "oneformer_jax/app/actions/model/gen_trt_engine.py": "in the folder of `appearing_in`",
    "oneformer_jax/deploy/triton.py": "in the folder of `appearing_in`",
    "oneformer_jax/data/storage/archives.py": "in a folder of the cache that gets its name when it is complete",
    "oneformer_jax/data/storage/cache.py": "a lock",
    "oneformer_jax/data/pipeline.py": "what workers note, in a temporary folder",
    "oneformer_jax/writing.py": "the one",
}


def test_nothing_writes_a_file_in_its_place() -> None:
    """Whole files are written by `writing`; logs and what is downloaded are appended to."""
    found = set()
    for path in [path for package in ("oneformer_jax", "converters") for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                opened = node.func.attr == "open" and any(f"'{mode}'" in ast.unparse(node) for mode in ("w", "wb", "x"))
                if opened or node.func.attr in IN_PLACE:
                    found.add(str(path.relative_to(ROOT)))
    assert found <= ASIDE.keys()


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "model").write_text("1")
    with pytest.raises(OneFormerError, match="runs: a folder stands where a file is to be written"):
        write_text(tmp_path / "runs", "2")
    with pytest.raises(OneFormerError, match="runs: a folder stands where a file is to be written"):
        write(tmp_path, "other", "runs")
    assert content(tmp_path) == {"runs/model": "1"}
