"""Checkpoints: which folder is one, what is in it, and a whole model out of it."""

import logging
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Float, PyTree, Shaped

from oneformer_jax.checkpoints.checksums import check_files
from oneformer_jax.checkpoints.contents import restored
from oneformer_jax.checkpoints.description import Description
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.storage.addresses import is_address
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.models.predictions import Predictions

FOLDER = "checkpoints"
LOGGERS, ORBAX = ("absl", "asyncio"), str(Path("orbax", "checkpoint"))


class WithoutOrbaxLogs(logging.Filter):
    """As a context: what Orbax logs is dropped. It logs every step of every save and whatever it raises, and asyncio
    logs the tasks of failed saves that Orbax forgets, whenever they are collected: after an error the filter stays."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record comes from anywhere else."""
        frames = traceback.extract_tb(record.exc_info[2]) if record.exc_info else []
        places = [record.pathname, record.getMessage(), *(frame.filename for frame in frames)]
        return not any(ORBAX in place for place in places)

    def __enter__(self) -> None:
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for name in LOGGERS:
                logging.getLogger(name).removeFilter(self)


def latest(run_dir: Path) -> Path | None:
    """The newest step folder of a run, None where there is none; nothing is touched."""
    steps = [path for path in (run_dir / FOLDER).glob("*") if path.name.isdecimal() and _is_step(path)]
    return max(steps, key=lambda path: int(path.name), default=None)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is a step folder or a run folder with a checkpoint, which may have a damaged link."""
    return any(_is_step(candidate) or _is_broken_link(candidate, path) for candidate in _candidates(path))


def find_checkpoint(path: Path | str) -> Path:
    """The step folder that `path` means: itself, or the best (else the latest) one of a run folder.

    Raises CheckpointError if there is none, or if the best one is named and is not there; for weights of other code
    bases (addresses, files, folders of Hugging Face) it names the action that makes a checkpoint of them.
    """
    to_convert = f"`convert {path} FOLDER` makes a checkpoint of weights of other code bases"
    if is_address(str(path)):
        raise CheckpointError("is an address, expected a checkpoint's folder", where=str(path), hint=to_convert)
    path = Path(path)
    for candidate in _candidates(path):
        if _is_step(candidate):
            return candidate.resolve()
        if _is_broken_link(candidate, path):
            newest = latest(candidate.parent)
            raise CheckpointError(
                f"names {candidate.readlink()}, which is not a checkpoint",
                where=str(candidate),
                hint="`train` into the same results_dir puts the link right (it was interrupted, or a checkpoint was "
                f"removed); or name a checkpoint yourself: the newest one is {newest or 'gone, too'}",
            )
    if not path.exists():
        raise CheckpointError("no such file or folder", where=str(path), hint="give a checkpoint or a run folder")
    if path.is_file() or (path / "config.json").is_file():
        raise CheckpointError("is not a checkpoint of this project", where=str(path), hint=to_convert)
    raise CheckpointError(
        "holds no checkpoint",
        where=str(path),
        hint="expected a folder with `params` and `description`, or a run folder with `best` or `latest`",
    )


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    for run_dir in (path, path / "train"):
        yield run_dir / "best"
        newest = latest(run_dir)
        if newest is not None:
            yield newest
    yield path / "automl" / "best"


def _is_broken_link(candidate: Path, given: Path) -> bool:
    """Of a link that is no step folder. What was `given` may be a link to a run folder or to a file."""
    return candidate.is_symlink() and (candidate != given or not candidate.exists())


def _is_step(folder: Path) -> bool:
    return (folder / "description").is_dir() and (folder / "params").is_dir()


def load_description(step_dir: Path) -> Description:
    """What a checkpoint holds, without its arrays. Raises CheckpointError."""
    if not step_dir.name.isdecimal():
        raise CheckpointError(
            "the folder of a checkpoint must keep the name of its step, a number",
            where=str(step_dir),
            hint="name it as it was; of a run that was copied with links followed, use a folder in `checkpoints`",
        )
    description = Description.from_json(_restore(step_dir, "description", ocp.args.JsonRestore()), where=str(step_dir))
    if description.step != int(step_dir.name):
        raise CheckpointError(
            f"its description is that of step {description.step}",
            where=str(step_dir),
            hint="the folder of a checkpoint must keep the name of its step",
        )
    return description


def load_params(step_dir: Path, like: Params) -> Params:
    """The parameters to use: their average where the checkpoint has one, else the last ones. As `load_item`; kernels in
    8 bits come as float32."""
    return restored(load_item(step_dir, "average" if has_item(step_dir, "average") else "params", like))


def has_item(step_dir: Path, item: str) -> bool:
    """Whether the checkpoint holds it."""
    return (step_dir / item).is_dir()


def load_item(step_dir: Path, item: str, like: PyTree) -> PyTree:
    """One of the trees of `Checkpoints.save`, in the structure and dtypes of `like` (arrays or ShapeDtypeStructs), on
    the default device or where `placed` says."""
    return _restore(step_dir, item, ocp.args.StandardRestore(_on_default_device(like)))


def placed(like: PyTree, shardings: PyTree) -> PyTree:
    """Shapes of arrays to load, and where on the devices of all processes they go."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like, shardings
    )


def _on_default_device(like: PyTree) -> PyTree:
    """Shapes that say where the arrays go: Orbax otherwise wants the devices on which they were saved."""
    default = jnp.zeros(()).sharding  # of the default device

    def place(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        wanted = leaf.sharding if isinstance(leaf, jax.ShapeDtypeStruct) else None
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=wanted or default)

    return jax.tree.map(place, like)


def _restore(step_dir: Path, item: str, args: ocp.args.CheckpointArgs) -> Any:
    check_files(step_dir, item)
    try:
        with WithoutOrbaxLogs(), ocp.CheckpointManager(step_dir.parent.absolute()) as manager:
            return manager.restore(int(step_dir.name), args=ocp.args.Composite(**{item: args}))[item]
    except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files; all mean the same here
        raise CheckpointError(
            f"`{item}` could not be read: {str(error).splitlines()[0].partition(' See full TensorStore')[0][:300]}",
            where=str(step_dir),
            hint="the checkpoint is damaged or of another architecture: use another step of the same run "
            "(a run whose newest step is damaged resumes from the one before if this folder is removed)",
        ) from error


@dataclass(frozen=True)
class Checkpoint:
    """A model in memory. `params` is a plain nested dictionary of arrays for `models.oneformer`'s functions."""

    params: Params
    description: Description

    def __repr__(self) -> str:
        millions = sum(leaf.size for leaf in jax.tree.leaves(self.params)) / 1e6
        classes, step = self.config.num_classes, self.description.step
        return f"Checkpoint({classes} classes, step {step}, {millions:.1f} million parameters)"

    @property
    def config(self) -> OneFormerConfig:
        """The architecture."""
        return self.description.model

    @property
    def categories(self) -> Categories:
        """The classes that it was trained on."""
        return self.description.categories

    @cached_property
    def _forward(self) -> Any:
        def forward(params: Params, images: jax.Array, tokens: jax.Array) -> Predictions:
            features = oneformer.encode(params, images, config=self.config)
            return oneformer.predict(params, features, tokens, config=self.config)

        return jax.jit(forward)

    def forward(self, images: Float[Any, "b h w 3"], task_tokens: Shaped[Any, "b n"]) -> Predictions:
        """Raw logits of normalised float32 images, H and W multiples of 32, and task token rows."""
        return self._forward(self.params, jnp.asarray(images), jnp.asarray(task_tokens))


def load_checkpoint(path: Path | str, *, device: jax.Device | None = None) -> Checkpoint:
    """Reads a step folder, or a run folder (its best checkpoint, else its latest), onto a device, by default the first.

    Raises CheckpointError: no checkpoint there, a damaged one, or a backbone alone.
    """
    step_dir = find_checkpoint(path)
    description = load_description(step_dir)
    needed = set(description.absent) - set(oneformer.TRAINING_ONLY)
    if needed:
        raise CheckpointError(
            f"does not contain a whole model: {', '.join(sorted(needed))} missing",
            where=str(step_dir),
            hint="to train from a backbone, use train.pretrained_backbone",
        )
    with jax.default_device(device or jax.local_devices()[0]):
        return Checkpoint(load_params(step_dir, description.shapes(str(step_dir))), description)
