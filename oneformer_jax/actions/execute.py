"""One action inside its result folder: spec checked, experiment.yaml and status.json written whatever happens."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from oneformer_jax.actions.status import StatusFile, result_folder
from oneformer_jax.spec import Spec, dump_yaml, load_spec, unsupported_keys

Outcome = TypeVar("Outcome")
Action = Callable[[Spec, Path, StatusFile, Console], Outcome]


def execute(name: str, spec_path: Path, overrides: list[str], action: Action[Outcome], console: Console) -> Outcome:
    """Runs `action` with the spec and its result folder; the last line of status.json tells how it ended.

    Raises whatever the action raises, after writing FAILURE.
    """
    spec = load_spec(spec_path, overrides)
    other_actions = {"evaluate.", "inference.", "export.", "gen_trt_engine.", "quantize.", "train."} - {f"{name}."}
    unsupported = [key for key in unsupported_keys(spec) if not key.startswith(tuple(other_actions))]
    if unsupported:
        console.print(f"warning: accepted but not honoured yet: {', '.join(unsupported)}", style="yellow")
    folder = result_folder(spec.results_dir, getattr(spec, name).results_dir, name)
    status = StatusFile(folder)
    status.write("STARTED", f"Starting OneFormer {name}.")
    try:
        (folder / "experiment.yaml").write_text(dump_yaml(spec))
        enable_compilation_cache()
        outcome = action(spec, folder, status, console)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        status.write("FAILURE", f"{name} was interrupted." if interrupted else f"{type(error).__name__}: {error}")
        raise
    status.write("SUCCESS", f"{name} finished successfully.")
    return outcome


def enable_compilation_cache() -> None:
    """Keeps compiled programs between starts; JAX_COMPILATION_CACHE_DIR chooses another folder."""
    import jax

    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path.home() / ".cache" / "oneformer_jax" / "xla")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
