"""One process of trainings whose topology is in its environment: writes what they computed to files.

Arguments: spec file, folder of the results, batch size of a device, devices of a process, `dtype:strategy` of each run.
"""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
import optax
from collectives import programs

from oneformer_jax.app.actions.train import train as train_action
from oneformer_jax.app.run.execute import running
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.settings.training import training_run
from oneformer_jax.training.optimizer import parameter_names
from oneformer_jax.training.sharding import whole_on_each_process

STEPS = {"float32": 1, "float64": 20}
MOMENTUM = 0.9


def named(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    """The whole arrays of a tree of parameters by their names."""
    mesh = jax.tree.leaves(tree)[0].sharding.mesh
    leaves = jax.tree.leaves(whole_on_each_process(tree, mesh))
    names = jax.tree.leaves(parameter_names(tree))
    return {f"{prefix}/{name}": np.asarray(leaf) for name, leaf in zip(names, leaves, strict=True)}


def train(dtype: str, strategy: str, spec: Path, folder: Path, overrides: list[str]) -> None:
    """Runs the action up to its loop, and some steps of its own."""

    def widened(leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating) else leaf

    def loop(state: Any, step_fn: Any, batches: Any, settings: Any, **_: Any) -> None:
        bytes_here = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
        places = jax.tree.map(lambda leaf: leaf.sharding, state)
        state = jax.jit(lambda state: jax.tree.map(widened, state), out_shardings=places)(state)
        losses, results = [], {}
        for step in range(STEPS[dtype]):
            state, scalars = step_fn(state, next(batches))
            losses.append(float(jax.device_get(scalars["loss"])))
            if step == 0:  # the first moment is then the gradient, but for its factor
                results |= named("gradient", optax.tree.get(state.opt_state, "mu"))
        results |= named("parameter", state.params)
        if jax.process_count() == 1 and jax.device_count() > 1:
            mesh = jax.tree.leaves(state)[0].sharding.mesh
            for name, text in programs(step_fn, state, next(batches), mesh).items():
                (folder / f"{dtype}-{strategy}-{name}.txt").write_text(text)
        if jax.process_index() == 0:
            np.savez(folder / f"{dtype}-{strategy}.npz", loss=np.array(losses), bytes=bytes_here, **results)

    jax.config.update("jax_enable_x64", dtype == "float64")
    jax.clear_caches()  # traces with narrow indices do not fit into wide ones
    overrides = [*overrides, f"train.distributed_strategy={strategy}", f"results_dir={folder / dtype}-{strategy}"]
    with (
        patch.object(train_action, "train_loop", loop),
        running("train", spec, overrides, Screen(quiet=True)) as (read, run),
    ):
        train_action.train(training_run(read, run.folder), run)


if __name__ == "__main__":
    spec, folder, batch_size, devices, *runs = sys.argv[1:]
    for run in runs:
        train(
            *run.split(":"),
            Path(spec),
            Path(folder),
            [f"dataset.train.batch_size={batch_size}", f"train.num_gpus={devices}"],
        )
