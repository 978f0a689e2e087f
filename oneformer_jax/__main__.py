"""The command line: `oneformer ACTION --spec SPEC [key=value ...]`, also as `python -m oneformer_jax`."""

import gc
import os
import sys
import threading
import time

# XLA's CPU buffers are allocated anew in every step. Keeping them, in huge pages, saves a fifth of a training step. All
# threads share one heap: large buffers of other heaps are mapped anew each time, and the heaps grow by turns to twice
# the memory. The allocator reads this only when a process starts.
ALLOCATOR = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {"arena_max": 1, "hugetlb": 1, "mmap_threshold": 1 << 33, "trim_threshold": 1 << 33}.items()
)
# While JAX traces a model, Python's defaults walk through all its objects again and again: a sixth of that time.
GARBAGE_COLLECTIONS = 20_000, 20, 50
SECONDS_TO_END = 5.0


def main() -> None:
    """Runs the command line of this process, after starting it anew with the settings of the allocator."""
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = ALLOCATOR
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    gc.set_threshold(*GARBAGE_COLLECTIONS)
    try:
        from oneformer_jax.app.cli.commands import app
        from oneformer_jax.app.cli.job_commands import app as jobs
    except KeyboardInterrupt:
        sys.exit(130)
    app.add_typer(jobs, name="job")
    try:
        app()
    except SystemExit as error:
        if error.code not in (0, None):
            _leave(error.code)
        raise


def _leave(code: str | int) -> None:
    """Ends a process that failed though threads of libraries go on, which Python waits for: those of a checkpoint that
    could not be written wait ten minutes."""
    others = [it for it in threading.enumerate() if it is not threading.current_thread() and not it.daemon]
    deadline = time.monotonic() + SECONDS_TO_END
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
