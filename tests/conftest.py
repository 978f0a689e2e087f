"""Strict JAX for every test, and where the reference facts lie."""

import os
import tempfile
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

if "ONEFORMER_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="oneformer-tests-")
    os.environ["ONEFORMER_CACHE_DIR"] = _cache.name

SHARED = Path(__file__).resolve().parents[2] / "shared"

# A slow machine is not a failure, and compilation makes the first example slow on any.
hypothesis.settings.register_profile("default", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("default")


def pytest_configure() -> None:
    import jax

    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Goldens and real images that lie beside the checkout; whoever clones the project alone has none of them."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found at {SHARED}")
    return SHARED
