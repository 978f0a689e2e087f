"""What the tests compile: quickly, and once for all of them.

Most tests compile a small model, run it for a moment, and compare: optimising takes XLA longer than all else, so it is
left out, but in `make prove` and for what is marked `optimised`. Programs are kept in .pytest_cache, for all workers,
the command lines that tests start, and the next run; `pytest --cache-clear` starts afresh.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiers import tier

PROGRAMS = Path(__file__).resolve().parents[1] / ".pytest_cache" / "d" / "xla"
LARGEST = 2 << 30  # bytes; older programs go
MOST_HELD = 2 << 30  # bytes of a process
QUICKLY = "JAX_DISABLE_MOST_OPTIMIZATIONS"
# 29.0 CPU seconds in place of 45.8 for the steps of tests/training/test_step.py, and 29.7 in place of 34.2 for a tiny
# training whose kernels are not compiled in 32 parts. XLA reads them once, when it starts.
QUICK_FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """For this process, whose conftest.py may have imported JAX, and by the environment for those that tests start."""
    tier = config.getoption("--tier")
    settings = {
        "jax_platforms": "cuda,cpu" if tier == "gpu" else "cpu",
        "jax_compilation_cache_dir": str(PROGRAMS),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        QUICKLY.lower(): int(tier not in ("prove", "gpu")),
    }
    chosen = {name: value for name, value in settings.items() if name.upper() not in os.environ}
    os.environ.update({name.upper(): str(value) for name, value in chosen.items()})
    if os.environ[QUICKLY] == "1" and not set(QUICK_FLAGS) <= set(flags := os.environ.get("XLA_FLAGS", "").split()):
        os.environ["XLA_FLAGS"] = " ".join([*flags, *QUICK_FLAGS])
    if not hasattr(config, "workerinput"):
        forget_oldest()
    import jax

    from oneformer_jax.__main__ import GARBAGE_COLLECTIONS

    for name, value in chosen.items():
        jax.config.update(name, value)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    gc.set_threshold(*GARBAGE_COLLECTIONS)


def forget_oldest() -> None:
    """Deletes programs until the rest is small enough."""
    files = sorted(PROGRAMS.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > LARGEST:
            path.unlink(missing_ok=True)


@pytest.fixture(scope="module", autouse=True)
def programs_of_other_files() -> Iterator[None]:
    """Are forgotten where a process has become large: with them, one that runs all tests holds 6 GB."""
    yield
    if (jax := sys.modules.get("jax")) and resident() > MOST_HELD:
        jax.clear_caches()


def resident() -> int:
    """Bytes of memory that this process uses; 0 where the system does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


@pytest.fixture(autouse=True)
def optimised_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests that are marked so, and for the processes that they start; in this process XLA's flags stay.

    JAX does not know programs of the two kinds apart: those of the other kind are forgotten.
    """
    if tier() == "prove" or request.node.get_closest_marker("optimised") is None:
        yield
        return
    import jax

    before = os.environ[QUICKLY] == "1"
    monkeypatch.setenv(QUICKLY, "0")
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag not in QUICK_FLAGS]
    monkeypatch.setenv("XLA_FLAGS", " ".join(flags))
    jax.config.update(QUICKLY.lower(), False)
    jax.clear_caches()
    yield
    jax.config.update(QUICKLY.lower(), before)
    jax.clear_caches()
