"""Strict JAX for every test, and where the reference facts lie."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The command line of the tests mostly compiles tiny models, for which its own settings of the allocator are slower.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")

if "ONEFORMER_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="oneformer-tests-")
    os.environ["ONEFORMER_CACHE_DIR"] = _cache.name

SHARED = Path(__file__).resolve().parents[2] / "shared"

pytest_plugins = ["tiers", "compilation", "cpu_times"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: of a file that takes minutes and starts before the others")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker waits for another's at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Goldens and real images that lie beside the checkout; whoever clones the project alone has none of them."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found at {SHARED}")
    return SHARED


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket of a local S3 server, a `servers.Bucket`."""
    from servers import running_s3

    with running_s3(monkeypatch) as bucket:
        yield bucket


@pytest.fixture
def web() -> Iterator[Any]:
    """A local web server, a `servers.Web`."""
    from servers import running_web

    with running_web() as server:
        yield server


@pytest.fixture
def spec_of(tmp_path: Path) -> Callable[..., Any]:
    """`spec_of(*overrides, text=...)`: the spec of a file with this text."""
    from oneformer_jax.app.spec import load_spec

    def load(*overrides: str, text: str = "{}") -> Any:
        (tmp_path / "spec.yaml").write_text(text)
        return load_spec(tmp_path / "spec.yaml", list(overrides))

    return load
