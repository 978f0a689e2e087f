"""Paths, archives and addresses become local files: once for each content, and whole or not at all."""

import errno
import gzip
import io
import itertools
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import s3fs
from servers import Bucket, Web, running_s3, running_web

from oneformer_jax.data import addresses, archives, storage
from oneformer_jax.data.storage import cache_folder, fetch_file, local_file, local_folder, local_path
from oneformer_jax.errors import DataError

FILES = {"set/a.jpg": bytes(range(256)) * 100, "set/sub/b.jpg": b"b" * 1000}


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            (info := tarfile.TarInfo(name)).size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(addresses, "PAUSE", 0.0)
    return tmp_path / "cache" / "data"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with running_s3(monkeypatch) as bucket:
        yield bucket


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as server:
        yield server


def entries(cache: Path) -> list[str]:
    """What the cache holds, but for its locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock") if cache.is_dir() else []


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
    with pytest.raises(DataError, match=r"holds 2 files \.json, where one is needed, set/train\.json, set/val\.json"):
        local_file(str(archive), what="k", suffix=".json")
    archive.write_bytes(zipped({"readme.txt": b"1"}))
    with pytest.raises(DataError, match=r"k: .*annotations\.zip: holds 0 files \.json"):
        local_file(str(archive), what="k", suffix=".json")


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"{}")
    with pytest.raises(DataError, match=r"k: .*a\.json: a file, where a folder is needed"):
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


# Addresses


def test_archives_files_and_folders_of_s3(s3: Bucket, cache: Path) -> None:
    assert files_in(local_folder(s3.put("images.tar.gz", tarred(FILES)), what="k")) == FILES
    assert local_file(s3.put("a.json", b"[1]"), what="k", suffix=".json").read_bytes() == b"[1]"
    for name, content in FILES.items():
        s3.put(f"tree/{name}", content)
    s3.put("tree/", b"")  # what S3's own console makes of an empty folder
    folder = local_folder(f"{s3.address}/tree", what="k")
    assert files_in(folder) == FILES
    assert local_folder(f"{s3.address}/tree/", what="k") == folder
    assert len(entries(cache)) == 3
    s3.put("tree/c.jpg", b"c")
    assert files_in(local_folder(f"{s3.address}/tree", what="k")) == FILES | {"c.jpg": b"c"}
    s3.put("a.json", b"[2]")
    assert local_file(f"{s3.address}/a.json", what="k", suffix=".json").read_bytes() == b"[2]"


def test_what_is_in_the_cache_is_not_fetched_again(web: Web) -> None:
    address = web.put("a.zip", zipped(FILES))
    folder = local_folder(address, what="k")
    assert web.sent() == [f"GET a.zip bytes=0-{len(web.files['a.zip']) - 1}"]
    assert local_folder(address, what="k") == folder
    assert local_folder(address + "?signature=other", what="k") == folder
    assert web.sent() == []
    web.put("a.zip", zipped({"new": b"1"}))
    assert files_in(local_folder(address, what="k")) == {"new": b"1"}


def test_without_tags_the_query_counts(web: Web) -> None:
    web.tags = False
    address = web.put("get.json", b"[1]")
    assert fetch_file(f"{address}?part=1") != fetch_file(f"{address}?part=2")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_of_several_requests(ranges: bool, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "BLOCK", 10_000)
    web.ranges = ranges
    content = os.urandom(35_000)
    assert fetch_file(web.put("weights.pth", content)).read_bytes() == content
    assert len(web.sent()) == (4 if ranges else 1)


def test_a_server_that_ignores_ranges_unannounced(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "BLOCK", 10_000)
    monkeypatch.setattr("servers.re.fullmatch", lambda *_: None)
    content = os.urandom(35_000)
    assert fetch_file(web.put("weights.pth", content)).read_bytes() == content


def test_weights_are_not_unpacked_whatever_their_name(web: Web) -> None:
    content = tarred(FILES)
    assert fetch_file(web.put("model.pth.tar.gz", content)).read_bytes() == content


def test_an_interrupted_download_is_continued(web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "BLOCK", 10_000)
    content = zipped({"a": os.urandom(35_000)})
    address = web.put("a.zip", content)
    web.cut = [10_000, 5_000, 5_000]  # the second request breaks off, and so does the one that continues it
    with pytest.raises(DataError, match=r"k: http.*a\.zip: "):
        local_path(address, what="k")
    (part,) = entries(cache)
    assert part.endswith(".part")
    assert (cache / part).read_bytes() == content[:10_000]
    web.sent()
    assert files_in(local_folder(address, what="k"))["a"] == zipfile.ZipFile(io.BytesIO(content)).read("a")
    assert web.sent()[0] == "GET a.zip bytes=10000-19999"
    assert [entry.endswith(".part") for entry in entries(cache)] == [False]


def test_a_short_break_is_not_even_noticed(web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "BLOCK", 10_000)
    content = os.urandom(35_000)
    web.cut = [10_000, 10_000, 5_000]
    assert fetch_file(web.put("a.pth", content)).read_bytes() == content


def test_what_was_cut_short_is_not_continued_with_other_content(
    web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "BLOCK", 10_000)
    address = web.put("a.pth", os.urandom(35_000))
    web.cut = [10_000, 0, 0]
    with pytest.raises(DataError):
        fetch_file(address)
    content = os.urandom(35_000)
    web.put("a.pth", content)
    assert fetch_file(address).read_bytes() == content


def test_a_file_that_changes_while_it_is_fetched(web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = web.put("a.pth", b"first")
    real = addresses._append

    def changed(source: Any, part: Path, progress: Any) -> None:
        real(source, part, progress)
        web.put("a.pth", b"other")

    monkeypatch.setattr(addresses, "_append", changed)
    with pytest.raises(DataError, match="has changed while it was fetched"):
        fetch_file(address)
    assert entries(cache) == []


def test_a_damaged_archive_is_fetched_anew(web: Web, cache: Path) -> None:
    address = web.put("a.tar.gz", tarred(FILES)[:-20])
    with pytest.raises(DataError, match=r"^k: http://.*/a\.tar\.gz: damaged, incomplete"):
        local_path(address, what="k")
    assert entries(cache) == []


def test_an_interrupted_folder_is_continued(s3: Bucket, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "FILES_AT_ONCE", 1)
    for i in range(4):
        s3.put(f"tree/{i}.jpg", bytes([i]) * 100)
    s3.deny("tree/2.jpg")
    with pytest.raises(DataError, match=r"access is denied"):
        local_path(f"{s3.address}/tree", what="k")
    (part,) = entries(cache)
    (cache / part / "1.jpg").write_bytes(b"half")
    (cache / part / "0.jpg").write_bytes(b"x" * 100)  # complete as far as one can see
    s3.filesystem.call_s3("delete_bucket_policy", Bucket=s3.name)
    found = files_in(local_folder(f"{s3.address}/tree", what="k"))
    assert found == {"0.jpg": b"x" * 100} | {f"{i}.jpg": bytes([i]) * 100 for i in (1, 2, 3)}


def test_names_of_a_folder_that_lead_outside(s3: Bucket, cache: Path, tmp_path: Path) -> None:
    s3.put("tree/a/../../../../out", b"1")
    with pytest.raises(DataError, match="would be written outside the folder"):
        local_path(f"{s3.address}/tree", what="k")
    assert not list(tmp_path.rglob("out"))


# What is refused


def test_an_address_where_nothing_is(s3: Bucket, web: Web) -> None:
    for address in (f"{s3.address}/none.zip", "s3://none/a.zip", f"{web.address}/none.zip"):
        with pytest.raises(DataError, match=rf"(?s)^k: {address}: does not exist \(status 404\)\n.*check the address"):
            local_path(address, what="k")


def test_an_address_that_is_closed(s3: Bucket, web: Web) -> None:
    address = s3.put("a.zip", zipped(FILES))
    s3.deny("a.zip")
    with pytest.raises(DataError, match=rf"(?s)^k: {address}: access is denied \(status 403\)\n.*AWS_ACCESS_KEY_ID"):
        local_path(address, what="k")
    web.status = 403
    expected = r"(?s)^k: http://[^?]*/a\.zip\?\.\.\.: access is denied \(status 403\)\n.*signed"
    with pytest.raises(DataError, match=expected) as caught:
        local_path(f"{web.address}/a.zip?signature=abc", what="k")
    assert "abc" not in str(caught.value)


def test_no_credentials(s3: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"(?s)no credentials are found.*AWS_PROFILE.*FSSPEC_S3_ANON"):
        local_path(f"{s3.address}/a.zip", what="k")


def test_a_server_in_trouble(web: Web) -> None:
    web.status = 503
    with pytest.raises(DataError, match="the server answers with status 503"):
        local_path(f"{web.address}/a.zip", what="k")


def test_a_host_that_cannot_be_reached() -> None:
    with pytest.raises(
        DataError, match=r"k: http://127\.0\.0\.1:9/a\.zip: the server cannot be reached: .*127\.0\.0\.1"
    ):
        local_path("http://127.0.0.1:9/a.zip", what="k")


def test_a_secret_in_an_address_is_not_repeated(web: Web) -> None:
    address = web.address.replace("http://", "http://me:secret@")
    with pytest.raises(DataError) as caught:
        local_path(f"{address}/a.zip", what="k")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("package", ["fsspec", "s3fs"])
def test_a_package_that_is_missing(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["fsspec.registry"], "registry", {})  # it keeps what was imported before
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r"(?s)k: s3://bucket/a\.zip: needs a package.*'oneformer_jax\[remote\]'"):
        local_path("s3://bucket/a.zip", what="k")


def test_an_unknown_kind_of_address() -> None:
    with pytest.raises(DataError, match="k: nothing://x: cannot be fetched: Protocol not known: nothing"):
        local_path("nothing://x", what="k")


# Several processes

FETCH = """
import sys
from oneformer_jax.data.storage import local_folder
print(local_folder(sys.argv[1], what="k"))
"""


def test_processes_that_want_the_same_fetch_it_once(web: Web, cache: Path) -> None:
    address = web.put("a.tar.gz", tarred({f"{i}": os.urandom(10_000) for i in range(50)}))
    processes = [
        subprocess.Popen([sys.executable, "-c", FETCH, address], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
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
