"""Paths and archives become local folders: once for each content, and whole or not at all."""

import errno
import gzip
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import ended
from packs import FILES, entries, files_in, tarred, zipped
from servers import Web

from oneformer_jax.data.datasets.check_files import Passes
from oneformer_jax.data.storage import addresses, archives
from oneformer_jax.data.storage import cache as storage
from oneformer_jax.data.storage.cache import NO_HOME, cache_folder, local_file, local_folder, local_path, optional_cache
from oneformer_jax.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")

# Paths and archives


def test_a_path_is_taken_as_it_is(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_bytes(b"{}")
    assert local_path(str(tmp_path), what="k") == tmp_path
    assert local_file(str(tmp_path / "a.json"), what="k", suffix=".json") == tmp_path / "a.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/a.json", what="k") == tmp_path / "a.json"
    assert not cache.exists()


@pytest.mark.parametrize("location", ["nowhere/images", "nowhere/images.tar.gz"])
def test_a_path_that_is_not_there(location: str) -> None:
    with pytest.raises(DataError, match=rf"^dataset\.train\.images: {location}: no such file or folder$"):
        local_path(location, what="dataset.train.images")


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_an_archive_is_unpacked_once_for_each_content(pack: Any, tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "images.tar.gz"  # the content decides, not the name
    archive.write_bytes(pack(FILES))
    folder = local_folder(str(archive), what="k")
    assert files_in(folder) == FILES
    (folder / "set" / "a.jpg").write_bytes(b"marked")
    assert local_folder(str(archive), what="k") == folder
    assert (folder / "set" / "a.jpg").read_bytes() == b"marked"
    archive.write_bytes(pack({"new": b"1"}))
    assert files_in(local_folder(str(archive), what="k")) == {"new": b"1"}
    assert archive.is_file()
    assert len(entries(cache)) == 2


def test_the_one_file_of_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "annotations.zip"
    archive.write_bytes(zipped({"set/train.json": b"[1]", "set/readme.txt": b"1"}))
    assert local_file(str(archive), what="k", suffix=".json").read_bytes() == b"[1]"
    archive.write_bytes(zipped({"set/train.json": b"[1]", "set/val.json": b"[2]"}))
    with pytest.raises(
        DataError, match=r"contains 2 files \.json, but exactly one is needed, set/train\.json, set/val\.json"
    ):
        local_file(str(archive), what="k", suffix=".json")
    archive.write_bytes(zipped({"readme.txt": b"1"}))
    with pytest.raises(DataError, match=r"k: .*annotations\.zip: contains 0 files \.json"):
        local_file(str(archive), what="k", suffix=".json")


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"{}")
    with pytest.raises(DataError, match=r"k: .*a\.json: this is a file, not a folder"):
        local_folder(str(tmp_path / "a.json"), what="k")


@pytest.mark.parametrize("content", [b"", tarred(FILES)[:-20], tarred({"../out": b"1"})], ids=["empty", "cut", "out"])
def test_a_bad_archive_leaves_nothing_behind(content: bytes, tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "images.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"^dataset\.val\.images: .*images\.tar\.gz: "):
        local_path(str(archive), what="dataset.val.images")
    assert entries(cache) == []
    assert archive.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "images.tar.gz"}


def test_the_places_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", "~/mine")
    assert cache_folder() == Path("/home/me/mine")
    monkeypatch.delenv("ONEFORMER_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder() == Path("/fast/oneformer_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/home/me/.cache/oneformer_jax")


# A full disk


def is_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_while_unpacking(
    tmp_path: Path, cache: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tarred(FILES))
    good = local_path(str(archive), what="k")
    before = files_in(tmp_path)
    (tmp_path / "b.tar.gz").write_bytes(tarred(FILES))
    real = archives._Allowance.take
    for location in (str(tmp_path / "b.tar.gz"), web.put("c.tar.gz", tarred(FILES))):
        calls = itertools.count()

        def take(self: Any, amount: int, calls: Iterator[int] = calls) -> None:
            is_full() if next(calls) > 2 else real(self, amount)

        monkeypatch.setattr(archives._Allowance, "take", take)
        with pytest.raises(DataError, match=r"(?s)k: .*No space left on device.*ONEFORMER_CACHE_DIR"):
            local_path(location, what="k")
    assert entries(cache) == [good.name]
    assert {name: content for name, content in files_in(tmp_path).items() if name in before} == before


def test_a_download_larger_than_the_disk_is_not_begun(cache: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DataError, match="No space left"):
        local_path(web.put("a.zip", zipped(FILES)), what="k")
    assert web.sent() == []
    assert entries(cache) == []


def test_a_disk_that_fills_up_while_fetching(cache: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_append", lambda source, part, progress: (part.write_bytes(b"1"), is_full()))
    with pytest.raises(DataError, match="No space left"):
        local_path(web.put("a.zip", zipped(FILES)), what="k")
    assert entries(cache) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "a.zip").write_bytes(zipped(FILES))
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"(?s)Not a directory.*ONEFORMER_CACHE_DIR"):
        local_path(str(tmp_path / "a.zip"), what="k")


# Several processes

FETCH = """
import sys
from oneformer_jax.data.storage.cache import local_folder
print(local_folder(sys.argv[1], what="k"))
"""


@pytest.mark.slow
def test_processes_that_want_the_same_fetch_it_once(web: Web, cache: Path) -> None:
    address = web.put("a.tar.gz", tarred({f"{i}": os.urandom(10_000) for i in range(50)}))
    processes = [
        subprocess.Popen([sys.executable, "-c", FETCH, address], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    with ended(processes):
        answers = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(answers)) == 1
    assert len(web.sent()) == 1
    assert len(files_in(Path(answers[0].strip()))) == 50


def test_a_process_that_waits_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "images-1.lock"
    script = f"import fcntl, time; f = open({str(lock)!r}, 'w'); fcntl.flock(f, 2); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        ends = holder.stdin
        real = storage.fcntl.flock

        def flock(file: Any, how: int) -> None:
            if how == storage.fcntl.LOCK_EX:
                ends.close()  # the other process ends while this one waits
            real(file, how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage.fcntl, "flock", flock)
            with storage._locked(lock):
                assert "waiting for another process: images-1" in capfd.readouterr().err
        holder.wait()


def test_what_a_killed_process_left_is_made_anew(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(FILES))
    folder = local_path(str(tmp_path / "a.zip"), what="k")
    unfinished = folder.with_name(folder.name + ".tmp")
    folder.rename(unfinished)
    (unfinished / "set" / "a.jpg").write_bytes(b"half")
    assert local_path(str(tmp_path / "a.zip"), what="k") == folder
    assert files_in(folder) == FILES
    assert entries(cache) == [folder.name]


def test_long_work_is_announced(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LARGE", 1)
    (tmp_path / "a.tar").write_bytes(gzip.compress(gzip.decompress(tarred(FILES))))
    local_path(str(tmp_path / "a.tar"), what="k")
    assert "unpacking a.tar (0.0 GB)" in capfd.readouterr().err


def test_a_cache_that_nothing_needs_is_done_without_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").write_text("a file, where no folder can be made")
    monkeypatch.delenv("ONEFORMER_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert [optional_cache(cache_folder() / name) for name in ("preflight", "xla", "preflight")] == [None] * 3
    (said,) = caplog.messages
    assert f"nothing is kept for later runs in {tmp_path}/home/.cache/oneformer_jax: Not a directory" in said
    assert "ONEFORMER_CACHE_DIR can name another folder" in said
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    assert optional_cache(cache_folder() / "xla") == tmp_path / "cache" / "xla"


def test_a_user_without_a_home_has_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with a number in place of a user."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "ONEFORMER_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert cache_folder() == Path(NO_HOME) / ".cache" / "oneformer_jax"
    assert Path.home() == Path(NO_HOME)


def test_passes_that_cannot_be_remembered_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere, full = Passes(None), Passes(tmp_path)

    def fill_the_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", fill_the_disk)
    for passes in (nowhere, full):
        passes.add("version", strict=True, where="a.json")
        assert not passes.holds("version", strict=False)
    assert not list(tmp_path.iterdir())
