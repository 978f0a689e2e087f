"""What a run writes down while it trains: TensorBoard scalars, log.jsonl and learning curves."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from oneformer_jax.errors import OneFormerError
from oneformer_jax.writing import write_bytes, write_text

logger = logging.getLogger(__name__)


@runtime_checkable
class ScalarWriter(Protocol):
    """What takes the curves besides TensorBoard."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """One value of the curve `tag`."""


@runtime_checkable
class Reporter(Protocol):
    """What shows a person how the training goes."""

    def step(self, step: int, scalars: Mapping[str, float], images_per_second: float) -> None:
        """Every few seconds: `step` updates are done. `scalars` hold at least `loss` and `lr`."""

    def message(self, text: str) -> None:
        """One line of text."""


class Logbook:
    """Scalars of one run. A record of log.jsonl is `{"step", "kind": "train" | "validation", name: value, ...}`, one
    for each step and validation. Records hold no times: those of a resumed run are those of one never stopped.

    `writers` get every scalar that TensorBoard gets, under the same name.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        start_step: int,
        reporter: Reporter,
        writers: Sequence[ScalarWriter] = (),
    ) -> None:
        # It imports PyTorch where that is installed: whoever reads a log or looks at data need not wait for that.
        from tensorboardX import SummaryWriter

        self._path = run_dir / "log.jsonl"
        _keep_until(self._path, start_step)
        self._board_dir = run_dir / "tensorboard"
        with self._naming_board():
            self._board = SummaryWriter(str(self._board_dir), purge_step=start_step, flush_secs=30)
        self._file = self._path.open("a")
        self._writers: tuple[ScalarWriter, ...] = (self._board, *writers)
        self._reporter = reporter

    def train(self, step: int, scalars: dict[str, float], images_per_second: float | None) -> None:
        """One training step: `scalars` hold at least `loss` and `lr`. Where `images_per_second` is given, it is also
        reported and a point of the curves."""
        self._record(step, "train", scalars)
        if images_per_second is None:
            return
        self._plot(step, "train", scalars | {"images_per_second": images_per_second})
        self._reporter.step(step, scalars, images_per_second)

    def validation(self, step: int, scalars: dict[str, float]) -> None:
        """The metrics of one validation."""
        self._record(step, "validation", scalars)
        self._plot(step, "validation", scalars)

    def message(self, text: str) -> None:
        """One line of text for the person who watches."""
        self._reporter.message(text)

    def _record(self, step: int, kind: str, scalars: dict[str, float]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in scalars.items()}
        try:
            self._file.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
            self._file.flush()
        except OSError as error:
            error.filename = str(self._path)  # a write does not say it
            raise

    @contextmanager
    def _naming_board(self) -> Iterator[None]:
        """TensorBoard's files are written by a thread, whose errors name none, or a file that nobody knows."""
        try:
            yield
        except OSError as error:
            error.filename = str(self._board_dir)
            raise

    def _plot(self, step: int, kind: str, scalars: dict[str, float]) -> None:
        with self._naming_board():
            for name, value in scalars.items():
                for writer in self._writers:
                    writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flushes everything and draws the curves."""
        self._file.close()
        with self._naming_board():
            self._board.close()
        picture = self._path.with_name("curves.png")
        try:
            draw_curves(self._path, picture)
        except OneFormerError as error:  # a full disk: why the run ended comes first
            self.message(f"warning: {error}")


class SilentLogbook(Logbook):
    """That of a process beside the first one, which writes everything down."""

    def __init__(self) -> None:
        pass

    def train(self, step: int, scalars: dict[str, float], images_per_second: float | None) -> None:
        pass

    def validation(self, step: int, scalars: dict[str, float]) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


def read_log(path: Path, *, warn: bool = False) -> list[dict[str, Any]]:
    """The records of a log.jsonl, [] if there is none; lines that are damaged or half written are left out. `warn`: it
    is said how many, but for a last one that a killed process has not ended."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    parsed = [_record(line) for line in lines]
    if warn and (lost := parsed[:-1].count(None)):
        logger.warning("%s: %d damaged lines are left out", path, lost)
    return [record for record in parsed if record is not None]


def _record(line: str) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        content = json.loads(line)
        if _is_record(content):
            return dict(content)
    return None


def _is_record(content: Any) -> bool:
    if not isinstance(content, dict) or type(content.get("step")) is not int:
        return False
    numbers = [value for name, value in content.items() if name not in ("step", "kind")]
    is_whole = content.get("kind") == "validation" or (content.get("kind") == "train" and "loss" in content)
    return is_whole and all(value is None or type(value) in (int, float) for value in numbers)


def _keep_until(path: Path, step: int) -> None:
    """Drops the records after `step`: a resumed run makes these steps again. Whenever it is killed, all others stay."""
    records = read_log(path, warn=True)
    kept = [record for record in records if record["step"] <= step]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))


def draw_curves(log_path: Path, picture_path: Path) -> None:
    """Training loss and validation metrics over the steps, as one picture."""
    from matplotlib.figure import Figure

    records = read_log(log_path)
    train = [r for r in records if r["kind"] == "train" and r["loss"] is not None]
    validations = [r for r in records if r["kind"] == "validation"]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([r["step"] for r in train], [r["loss"] for r in train], linewidth=0.8)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    for name in ("mIoU", "PQ", "AP"):
        points = [(r["step"], r[name]) for r in validations if r.get(name) is not None]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    right.set(xlabel="step", ylabel="validation", ylim=(0, 1))
    if right.lines:
        right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    picture = BytesIO()
    figure.savefig(picture, dpi=120)
    write_bytes(picture_path, picture.getvalue())
