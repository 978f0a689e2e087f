"""Servers of this machine that hold files as S3 and as the web do, and misbehave when told to."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import s3fs
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

COMMIT = "0123456789" * 4  # of every repository


@dataclass
class Bucket:
    """A bucket at `address`; what lies under `denied/` nobody may read."""

    name: str
    filesystem: Any

    @property
    def address(self) -> str:
        return f"s3://{self.name}"

    def put(self, name: str, content: bytes) -> str:
        """Stores a file and returns its address."""
        self.filesystem.pipe(f"{self.name}/{name}", content)
        return f"{self.address}/{name}"

    def deny(self, name: str) -> None:
        """From now on nobody may read this file."""
        resource = f"arn:aws:s3:::{self.name}/{name}"
        statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [resource]}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.filesystem.call_s3("put_bucket_policy", Bucket=self.name, Policy=policy)


@contextmanager
def running_s3(environment: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A server of S3 with one empty bucket, which `environment` leads every client to."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    environment.setenv("AWS_ACCESS_KEY_ID", "key")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    environment.setenv("AWS_EC2_METADATA_DISABLED", "true")  # else clients without a key ask a server of Amazon
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # all servers of a process are one
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = s3fs.S3FileSystem(use_listings_cache=False)
    filesystem.mkdir("bucket")
    try:
        yield Bucket("bucket", filesystem)
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


@dataclass
class Web:
    """A web server. `files` by name; `requests` are those that came, as "GET a.zip bytes=0-9"."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tags: bool = True  # whether it says by what a changed file is told
    ranges: bool = True  # whether it sends parts of files
    status: int = 0  # other than 0: the only answer
    cut: list[int] = field(default_factory=list)  # the next answers break off after so many bytes
    headers: dict[str, str] = field(default_factory=dict)  # of every answer, besides

    def put(self, name: str, content: bytes) -> str:
        """Stores a file and returns its address."""
        self.files[name] = content
        return f"{self.address}/{name}"

    def put_repository(self, name: str, folder: Path) -> None:
        """Stores the files of a folder as a repository of Hugging Face's hub, whose address is then this server's."""
        self.headers = {"X-Repo-Commit": COMMIT}
        files = [path for path in folder.iterdir() if path.is_file()]
        for path in files:
            for revision in (COMMIT, "main"):
                self.put(f"{name}/resolve/{revision}/{path.name}", path.read_bytes())
        about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path.name} for path in files]}
        tree = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": COMMIT} for path in files]
        for revision in (COMMIT, "main"):
            self.put(f"api/models/{name}/revision/{revision}", json.dumps(about).encode())
            self.put(f"api/models/{name}/tree/{revision}", json.dumps(tree).encode())

    def sent(self) -> list[str]:
        """The requests for content until now, which are forgotten."""
        found = [request for request in self.requests if request.startswith("GET")]
        self.requests.clear()
        return found


@contextmanager
def running_web() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            name = self.path.partition("?")[0].strip("/")
            wanted = self.headers.get("Range", "")
            web.requests.append(f"{self.command} {name} {wanted}".strip())
            status, content = self.found(name, wanted)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if web.tags and name in web.files:
                self.send_header("ETag", f'"{hash(web.files[name])}"')
            for header in web.headers.items():
                self.send_header(*header)
            if not web.ranges:
                self.send_header("Accept-Ranges", "none")
            self.end_headers()
            if self.command == "HEAD":
                return
            cut = web.cut.pop(0) if web.cut else len(content)
            self.wfile.write(content[:cut])
            self.close_connection = cut < len(content)

        def found(self, name: str, wanted: str) -> tuple[int, bytes]:
            if web.status:
                return web.status, b""
            if name not in web.files:
                return 404, b""
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
            if part is None or not web.ranges:
                return 200, web.files[name]
            return 206, web.files[name][int(part[1]) : int(part[2]) + 1]

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
