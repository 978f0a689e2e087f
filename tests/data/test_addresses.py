"""What lies at addresses becomes local files: once for each content, and whole or not at all."""

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import s3fs
from fsspec.implementations.http import HTTPFileSystem
from packs import FILES, entries, files_in, tarred, zipped
from servers import Bucket, Web, running_web

from oneformer_jax.data.datasets.dataset_root import open_root
from oneformer_jax.data.storage import addresses
from oneformer_jax.data.storage.cache import fetch_file, local_file, local_folder, local_path
from oneformer_jax.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")


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


@pytest.mark.parametrize("name", ["get.json", "get.zip"])
def test_without_tags_and_dates_the_content_counts(web: Web, cache: Path, name: str) -> None:
    """A server that does not tell a change is asked again; equal content is kept once."""
    web.tags = False
    contents = {kind: zipped({"a": kind}) if name.endswith("zip") else kind for kind in (b"[1]", b"[2]")}

    def found(address: str) -> bytes:
        path = local_path(address, what="k")
        return path.read_bytes() if path.is_file() else (path / "a").read_bytes()

    for content in (b"[1]", b"[2]", b"[1]"):
        assert found(web.put(name, contents[content])) == content
    assert len(entries(cache)) == 2


def test_a_part_of_older_content_is_not_completed_with_newer(
    web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "BLOCK", 10_000)
    web.tags, web.cut = False, [10_000, 5_000, 5_000]
    with pytest.raises(DataError):
        fetch_file(web.put("a.pth", b"a" * 35_000))
    assert fetch_file(web.put("a.pth", b"b" * 35_000)).read_bytes() == b"b" * 35_000


@pytest.mark.parametrize("name", ["get.json", "get.zip"])
@pytest.mark.parametrize("tags", [True, False])
def test_a_filled_cache_is_used_where_no_server_answers(
    cache: Path, name: str, tags: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_web() as web:
        web.tags = tags
        address = web.put(name, zipped({"a": b"1"}) if name.endswith("zip") else b"1")
        path = local_path(address, what="k")
    HTTPFileSystem.clear_instance_cache()  # or it goes on by the connection that it has
    assert local_path(address, what="k") == path
    assert "using what was there when it was last fetched" in capsys.readouterr().err
    with pytest.raises(DataError, match="cannot be reached"):
        local_path(address.replace("get", "other"), what="k")
    with pytest.raises(DataError, match="cannot be reached"):
        local_path(f"{address}?part=2", what="k")


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
    with pytest.raises(DataError, match="changed while it was being downloaded"):
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
    expected = r"(?s)^k: http://[^?]*/a\.zip\?<redacted>: access is denied \(status 403\)\n.*signed"
    with pytest.raises(DataError, match=expected) as caught:
        local_path(f"{web.address}/a.zip?signature=abc", what="k")
    assert "abc" not in str(caught.value)


@pytest.mark.slow
def test_no_credentials(s3: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"(?s)no credentials were found.*AWS_PROFILE.*FSSPEC_S3_ANON"):
        local_path(f"{s3.address}/a.zip", what="k")


def test_a_server_in_trouble(web: Web) -> None:
    web.status = 503
    with pytest.raises(DataError, match="the server answered with status 503"):
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
    with pytest.raises(DataError, match=r"(?s)k: s3://bucket/a\.zip: needs a package.*\[remote\]'"):
        local_path("s3://bucket/a.zip", what="k")


def test_an_unknown_kind_of_address() -> None:
    with pytest.raises(DataError, match="k: nothing://x: cannot be fetched: Protocol not known: nothing"):
        local_path("nothing://x", what="k")


@pytest.mark.parametrize("address", ["https://user:word@[::1/x.zip", "s3://[bucket/x", "https://user:w\u2100rd@[a]b/x"])
def test_an_address_that_cannot_be_taken_apart_is_refused_without_its_password(address: str) -> None:
    ways = (
        lambda: local_path(address, what="k"),
        lambda: fetch_file(address),
        lambda: open_root(address, known=(), what="k"),
    )
    for way in ways:
        with pytest.raises(DataError, match="not a valid address: its host cannot be read\n  -> correct the") as raised:
            way()
        assert "user:" not in str(raised.value)
        assert "rd@" not in str(raised.value)
