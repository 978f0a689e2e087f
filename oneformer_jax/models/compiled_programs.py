"""Compiled programs on disk: what JAX compiled once, the next start loads."""

import os
from pathlib import Path

import jax

from oneformer_jax.data.storage.addresses import is_address
from oneformer_jax.data.storage.cache import cache_folder, optional_cache


def enable_compilation_cache() -> None:
    """Keeps programs that take a second to compile, for every later process. Without this call nothing is kept.

    They lie in `xla` of the cache folder (`ONEFORMER_CACHE_DIR`); JAX's own variables choose otherwise:
    JAX_COMPILATION_CACHE_DIR another folder, JAX_ENABLE_COMPILATION_CACHE=false none.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_folder() / "xla")
    if not is_address(folder) and optional_cache(Path(folder)) is None:
        jax.config.update("jax_compilation_cache_dir", None)
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
