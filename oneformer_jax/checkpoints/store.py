"""Writing Orbax checkpoints that know what they hold.

A run folder has `checkpoints/<step>/` with the items `params`, `optimizer` (not where weights were converted),
`loss_scale` (of float16), `average` (of the parameters, where the run keeps one) and `description` (JSON: architecture,
categories, pixel statistics, the spec with the seed of every random draw, progress). The newest few and the best are
kept; the links `latest` and `best` beside `checkpoints` name them. A save becomes visible only when it is complete, and
a checkpoint disappears as a whole, so an interrupted or failed one leaves every earlier checkpoint usable. Checksums of
its files lie beside them.
"""

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers as managers

from oneformer_jax.checkpoints.checksums import write_checksums
from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.read import FOLDER, WithoutOrbaxLogs
from oneformer_jax.errors import CheckpointError, OneFormerError
from oneformer_jax.models.oneformer import Params
from oneformer_jax.stored import fits, read_json

logger = logging.getLogger(__name__)

TO_DELETE = ".to_delete"
DATA_FILE_SIZE = 64 * 2**20
"""Bytes of a data file. Orbax keeps what it has packed in memory until a file is full: its 2 GB hold most models."""


def best_step(metrics: Mapping[int, Mapping[str, float] | None], monitor: str) -> int | None:
    """The step of the best checkpoint by the metrics of every step: the first of those with the largest score."""
    scores = {step: found[monitor] for step, found in metrics.items() if found and monitor in found}
    return min(scores, key=lambda step: (-scores[step], step), default=None)


@dataclass(frozen=True)
class KeepBest(managers.PreservationPolicy):
    """The best checkpoint stays. Orbax's own policy would keep the last of equal ones."""

    monitor: str

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        best = best_step({info.step: info.metrics for info in checkpoints}, self.monitor)
        return [info.step == best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run folder, newest `keep` (0: all) and the best by `monitor` kept.

    As a context it waits for the last write when it ends, unless an interruption ends it.
    """

    def __init__(self, run_dir: Path, *, keep: int, monitor: str) -> None:
        self.run_dir = run_dir
        self.monitor = monitor
        self._quiet, self._failed = WithoutOrbaxLogs(), False
        self._quiet.__enter__()
        folder = (run_dir / FOLDER).absolute()
        _remove(folder, f"*{ocp.utils.TMP_DIR_SUFFIX}*", TO_DELETE)
        _refuse_damaged_metrics(folder)
        best = KeepBest(monitor)
        policy = managers.AnyPreservationPolicy([managers.LatestN(keep), best]) if keep else managers.LatestN()
        self._manager = ocp.CheckpointManager(
            folder,
            # Orbax stores metrics only where best_fn is set; what stays is the policy's choice.
            options=ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=len, todelete_subdir=TO_DELETE),
        )
        self._unfinished: Description | None = None
        self._checksums: Future[None] | None = None  # of the unfinished one, once it is on disk
        self._beside = ThreadPoolExecutor(1)
        self.best_metric, self.best_step = self._find_best()
        self._tell_of_lost_best()
        self._link("latest", self._manager.latest_step())
        self._link("best", self.best_step)
        if self.best_step is None and jax.process_index() == 0 and (run_dir / "best").is_symlink():
            (run_dir / "best").unlink()  # the best by another monitor

    def _find_best(self) -> tuple[float | None, int | None]:
        metrics = {step: self._manager.metrics(step) for step in self._manager.all_steps()}
        step = best_step(metrics, self.monitor)
        return (None, None) if step is None else (metrics[step][self.monitor], step)

    def _tell_of_lost_best(self) -> None:
        """The link names the best until now: a run goes on without it, but not silently."""
        place = self.run_dir / "best"
        if jax.process_index() == 0 and place.is_symlink() and not place.exists():
            now = "none is" if self.best_step is None else f"{self.best_step} is"
            was = f"{place}: the best checkpoint, step {place.readlink().name}, is not there any more"
            logger.warning("%s; among those that are, %s", was, now)

    def newest(self) -> Path | None:
        """The folder of the newest step, or None. Waits until it is complete; raises as `save`."""
        self.wait()
        step = self._manager.latest_step()
        return None if step is None else self.run_dir / FOLDER / str(step)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif not issubclass(kind, KeyboardInterrupt | SystemExit):
            with suppress(CheckpointError):  # the first error is the one to report
                self.close()

    def would_be_best(self, metrics: dict[str, float]) -> bool:
        """Whether a checkpoint with these metrics would become the best: of equal ones the first stays it."""
        metric = metrics.get(self.monitor)
        return metric is not None and (self.best_metric is None or metric > self.best_metric)

    def save(
        self,
        params: Params,
        opt_state: PyTree,
        description: Description,
        *,
        loss_scale: PyTree = None,
        average: Params | None = None,
    ) -> None:
        """Begins to write one checkpoint, after the one before is complete. `opt_state` None: not to be resumed.

        JAX's arrays may be given away at once. NumPy's are not copied: they must stay as they are until `wait`. While
        it is written the arrays stay in the memory of the host, beside those that the next steps make.

        Raises CheckpointError naming the folder when it, or the one before, cannot be written (disk full, no
        permission).
        """
        self.wait()
        metric = description.metrics.get(self.monitor)
        trees = {"params": params, "optimizer": opt_state, "loss_scale": loss_scale, "average": average}
        items = {name: _arrays(tree) for name, tree in trees.items() if tree is not None}
        items["description"] = ocp.args.JsonSave(description.to_json())
        with self._naming(description.step):
            self._try_to_write()
            self._manager.save(
                description.step,
                args=ocp.args.Composite(**items),
                metrics=description.metrics or None,  # all: a later run may have another monitor
                force=True,
            )
        self._unfinished = description
        if self.would_be_best(description.metrics):
            self.best_metric, self.best_step = metric, description.step

    def poll(self) -> None:
        """Completes a checkpoint that has been written, and does not wait for one that has not. Raises as `save`."""
        if self._unfinished is not None and not self._manager.is_saving_in_progress():
            with self._naming(self._unfinished.step):
                is_complete = self._begin_checksums(self._unfinished.step).done()
            if is_complete:
                self.wait()

    def wait(self) -> None:
        """Until the last checkpoint is on disk; then the links name it. Raises as `save`."""
        if self._unfinished is None:
            return
        step = self._unfinished.step
        with self._naming(step):
            self._begin_checksums(step).result()
        self._unfinished = self._checksums = None
        self._link("latest", step)
        if step == self.best_step:
            self._link("best", step)
        _remove(self.run_dir / FOLDER, TO_DELETE)

    def _begin_checksums(self, step: int) -> Future[None]:
        """Reads what was written, beside the training, as soon as all is on disk; begins once."""
        if self._checksums is None:
            self._manager.wait_until_finished()
            sums = write_checksums if jax.process_index() == 0 else lambda _: None
            self._checksums = self._beside.submit(sums, self.run_dir / FOLDER / str(step))
        return self._checksums

    def _try_to_write(self) -> None:
        """Where Orbax cannot make its first folder, threads of its own wait ten minutes for that, and the process for
        them."""
        if jax.process_index() == 0:
            with tempfile.TemporaryDirectory(dir=self.run_dir / FOLDER, prefix=".") as folder:
                (Path(folder) / "file").touch()

    @contextmanager
    def _naming(self, step: int) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, OneFormerError) as error:
            self._failed, self._unfinished, self._checksums = True, None, None
            raise CheckpointError(
                f"checkpoint of step {step} could not be written: {_cause(error)}",
                where=str(self.run_dir / FOLDER),
                hint="free disk space or fix permissions, then run the same command again: it resumes",
            ) from error

    def _link(self, name: str, step: int | None) -> None:
        if jax.process_index() != 0 or step is None:
            return
        place, fresh = self.run_dir / name, self.run_dir / f".{name}.new"
        if place.is_dir() and not place.is_symlink():
            hint = f"was the run copied with links followed? remove this folder: it should be a link to {FOLDER}/{step}"
            raise CheckpointError("is a folder, not a link to a checkpoint", where=str(place), hint=hint)
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path(FOLDER) / str(step))
        fresh.replace(place)

    def close(self) -> None:
        """Waits for the last write. Raises as `save`."""
        try:
            self.wait()
        finally:
            self._manager.close()
            self._beside.shutdown()
        if not self._failed:
            self._quiet.__exit__(None)


def _cause(error: Exception) -> str:
    """What the system said: TensorStore wraps it into the names of arrays and temporary files."""
    found = re.search(r"([^:]+?) \[os_error_code", str(error))
    return found[1].strip() if found else (str(error) or type(error).__name__).splitlines()[0][:300]


class _Uncopied(np.ndarray):
    """An array that Orbax does not copy before it writes it: nobody changes it meanwhile."""

    def __deepcopy__(self, memo: dict[int, Any] | None, /) -> "_Uncopied":
        return self


def _arrays(tree: PyTree) -> ocp.args.PyTreeSave:
    """What StandardRestore reads, saved without holding it in memory once more."""
    tree = jax.tree.map(lambda leaf: leaf.view(_Uncopied) if isinstance(leaf, np.ndarray) else leaf, tree)
    return ocp.args.PyTreeSave(tree, ocdbt_target_data_file_size=DATA_FILE_SIZE)


def _remove(folder: Path, *patterns: str) -> None:
    """Removes what a killed save left behind, or the checkpoints that Orbax has put away because there are newer ones:
    who is killed while it deletes a checkpoint file by file would leave one that cannot be read.

    Orbax's own `cleanup_tmp_directories` does it in a thread that nothing waits for before the first save: a process
    that ends earlier ends with that thread's traceback.
    """
    if jax.process_index() == 0:
        for leftover in (path for pattern in patterns for path in folder.glob(pattern)):
            shutil.rmtree(leftover)


def _refuse_damaged_metrics(folder: Path) -> None:
    """Orbax reads the metrics of every step at once, and does not say whose are damaged; where there are none, another
    step would become the best, and this one could be deleted. What should be there stands in the description, too."""
    for step_dir in folder.glob("*"):
        if not step_dir.name.isdecimal():
            continue
        expected = _content(step_dir / "description" / "metadata")
        expected = expected.get("metrics") if isinstance(expected, dict) else None
        names = set(expected) if isinstance(expected, dict) else set()
        file = step_dir / "metrics" / "metrics"
        found = _content(file) if names or file.exists() else {}
        what = ""
        if isinstance(found, OneFormerError):
            what = found.what
        elif not isinstance(found, dict) or not all(fits(value, float) for value in found.values()):
            what = f"found {str(found)[:60]}, expected an object of numbers"
        elif missing := sorted(names - set(found)):
            what = f"{', '.join(missing)} of the description is missing there"
        if what:
            raise CheckpointError(
                f"`metrics` could not be read: {what}",
                where=str(step_dir),
                hint="the checkpoint is damaged: restore its file metrics/metrics, or remove this folder, and the run "
                "continues with its other checkpoints",
            )


def _content(file: Path) -> Any:
    """Of a JSON file, or the error that says why it cannot be read."""
    try:
        return read_json(file, error=CheckpointError)
    except CheckpointError as error:
        return error
