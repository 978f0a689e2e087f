"""The command line: `python cli.py ACTION --spec SPEC [key=value ...]`."""

import os
import sys

# XLA's CPU buffers are allocated anew in every step. Keeping them, in huge pages, saves a fifth of a training step; the
# allocator reads this only when a process starts.
ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:glibc.malloc.trim_threshold=8589934592"

if __name__ == "__main__":
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = ALLOCATOR
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    from oneformer_jax.actions.command_line import app
    from oneformer_jax.jobs.command_line import app as jobs

    app.add_typer(jobs, name="job")
    app()
