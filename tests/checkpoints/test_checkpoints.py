"""Checkpoints: what goes in comes out, the newest and the best stay, a failed save harms nothing."""

import gc
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from oneformer_jax.checkpoints import store as checkpoints
from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.read import (
    LOGGERS,
    Checkpoint,
    find_checkpoint,
    load_description,
    load_item,
    load_params,
)
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.data.geometry import EvaluationPolicy, Letterbox
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.postprocess.results import Thresholds


def describe(step: int, **metrics: float) -> Description:
    return Description(
        model=OneFormerConfig(num_classes=2, backbone=SwinConfig(depths=(1, 1, 1, 1), qk_scale=0.5)),
        categories=Categories((Category(7, "road", False, (1, 2, 3)), Category(9, "car", True, (4, 5, 6)))),
        pixel_mean=(1.0, 2.0, 3.0),
        pixel_std=(4.0, 5.0, 6.0),
        spec={"train": {"num_epochs": 3}},
        policy=EvaluationPolicy(64, 128, (32, 48)),
        thresholds=Thresholds(0.1, 0.2, 7),
        step=step,
        epoch=step // 2,
        metrics=metrics,
    )


def arrays(value: float) -> dict:
    return {"a": {"b": jnp.full((3, 2), value)}, "c": jnp.arange(4)}


@pytest.fixture
def run(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, keep=2, monitor="mIoU")


@pytest.mark.tao(20)
def test_round_trip(run: Checkpoints, tmp_path: Path) -> None:
    run.save(arrays(1.5), {"mu": arrays(2.5)}, describe(4, mIoU=0.5, PQ=0.25))
    run.close()
    folder = find_checkpoint(tmp_path)
    assert load_description(folder) == describe(4, mIoU=0.5, PQ=0.25)
    like = jax.eval_shape(lambda: arrays(0.0))
    for ours, theirs in zip(jax.tree.leaves(load_params(folder, like)), jax.tree.leaves(arrays(1.5)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    restored = load_item(folder, "optimizer", {"mu": like})
    np.testing.assert_array_equal(restored["mu"]["a"]["b"], np.full((3, 2), 2.5))


def test_a_description_knows_the_geometry_and_the_thresholds_that_its_run_evaluates_with() -> None:
    letterboxed = replace(describe(1), policy=Letterbox((64, 96)))
    content = json.loads(json.dumps(letterboxed.to_json()))
    assert Description.from_json(content) == letterboxed
    del content["policy"], content["thresholds"]  # a checkpoint of version 0.1
    old = Description.from_json(content)
    assert (old.policy, old.thresholds) == (EvaluationPolicy(800, 1333), Thresholds())


SAVE_FROM_TWO_DEVICES = """
import sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 2)
from test_checkpoints import arrays, describe
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.training.sharding import make_mesh, put_replicated
run = Checkpoints(Path(sys.argv[1]), keep=0, monitor="mIoU")
run.save(put_replicated(arrays(1.5), make_mesh(2)), put_replicated(arrays(2.5), make_mesh(2)), describe(4))
run.close()
"""


@pytest.mark.slow
def test_one_device_reads_what_two_have_saved(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", SAVE_FROM_TWO_DEVICES, tmp_path], check=True, env=environment)
    folder, like = find_checkpoint(tmp_path), jax.eval_shape(lambda: arrays(0.0))
    np.testing.assert_array_equal(load_params(folder, like)["a"]["b"], np.full((3, 2), 1.5))
    np.testing.assert_array_equal(load_item(folder, "optimizer", like)["a"]["b"], np.full((3, 2), 2.5))


def test_a_save_fills_one_file_after_the_other(
    run: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is packed stays in memory until its file is full: noise cannot be packed any smaller."""
    size = 2**20
    monkeypatch.setattr(checkpoints, "DATA_FILE_SIZE", size)
    rng = np.random.default_rng(0)
    params: dict = {name: rng.standard_normal(size // 8, np.float32) for name in "abcdef"}
    params["larger than a file"] = rng.standard_normal((3, size // 8), np.float32)
    run.save(params, None, describe(1))
    run.close()
    folder = find_checkpoint(tmp_path)
    sizes = [path.stat().st_size for path in (folder / "params").rglob("*") if path.is_file()]
    assert sum(sizes) > 4 * size
    assert max(sizes) < 2 * size
    jax.tree.map(np.testing.assert_array_equal, load_params(folder, jax.eval_shape(lambda: params)), params)


def test_a_save_copies_no_array(run: Checkpoints, tmp_path: Path) -> None:
    """tracemalloc counts the memory of NumPy; the arrays here lie in a file, in the order of PyTorch."""
    mapped = np.memmap(tmp_path / "weights", np.float32, "w+", shape=(4, 1024, 1024))
    mapped[:] = np.arange(4)[:, None, None]
    params = {str(i): np.asarray(array).T for i, array in enumerate(mapped)}
    tracemalloc.start()
    run.save(params, None, describe(1))
    run.close()  # threads that still write would free what tracemalloc no longer counts: a segmentation fault
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < mapped.nbytes / 4
    like = jax.eval_shape(lambda: params)
    jax.tree.map(np.testing.assert_array_equal, load_params(find_checkpoint(tmp_path), like), params)


def test_a_checkpoint_in_one_file_is_read(run: Checkpoints, tmp_path: Path) -> None:
    """As Orbax writes arrays unless told otherwise."""
    run.save(arrays(1.5), {"mu": arrays(2.5)}, describe(4))
    run.close()
    with ocp.CheckpointManager(tmp_path / "other") as manager:
        items = {"params": ocp.args.StandardSave(arrays(1.5)), "optimizer": ocp.args.StandardSave({"mu": arrays(2.5)})}
        manager.save(4, args=ocp.args.Composite(**items))
    like = jax.eval_shape(lambda: arrays(0.0))
    for step_dir in (find_checkpoint(tmp_path), tmp_path / "other" / "4"):
        jax.tree.map(np.testing.assert_array_equal, load_params(step_dir, like), arrays(1.5))
        jax.tree.map(np.testing.assert_array_equal, load_item(step_dir, "optimizer", {"mu": like}), {"mu": arrays(2.5)})


def test_what_a_killed_save_left_behind_is_removed(run: Checkpoints, tmp_path: Path) -> None:
    run.save(arrays(1.0), arrays(2.0), describe(1))
    run.wait()
    leftover = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    (leftover / "params").mkdir(parents=True)
    again = Checkpoints(tmp_path, keep=2, monitor="mIoU")
    assert not leftover.exists()
    assert again.newest() == tmp_path / "checkpoints" / "1"


@pytest.mark.tao(36)
def test_the_newest_two_and_the_best_are_kept(run: Checkpoints, tmp_path: Path) -> None:
    for step, score in enumerate([0.1, 0.9, 0.3, 0.2, 0.4], start=1):
        run.save(arrays(step), arrays(step), describe(step, mIoU=score))
    run.close()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [2, 4, 5]
    assert (tmp_path / "best").resolve().name == "2"
    assert (tmp_path / "latest").resolve().name == "5"
    assert find_checkpoint(tmp_path).name == "2"
    again = Checkpoints(tmp_path, keep=2, monitor="mIoU")
    assert (again.best_metric, again.best_step) == (0.9, 2)
    again.close()


def test_of_equal_scores_the_first_stays_the_best_and_is_kept(run: Checkpoints, tmp_path: Path) -> None:
    scores = {10: 0.1, 20: 0.5, 30: 0.5, 40: 0.2, 50: 0.1, 60: 0.1}
    for step, score in scores.items():
        run.save(arrays(step), None, describe(step, PQ=1 - score, mIoU=score))
        first = max(scores, key=lambda at: (at <= step and scores[at], -at))
        run.wait()
        assert (run.best_step, (tmp_path / "best").resolve().name) == (first, str(first))
    run.close()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [20, 50, 60]
    assert find_checkpoint(tmp_path).name == "20"
    # Another monitor of the same run: its scores are in every checkpoint.
    again = Checkpoints(tmp_path, keep=1, monitor="PQ")
    assert (again.best_metric, again.best_step) == (0.9, 50)
    again.save(arrays(70), None, describe(70, PQ=0.9, mIoU=0.9))
    again.close()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [50, 70]
    assert find_checkpoint(tmp_path).name == "50"
    # A monitor that no checkpoint has been scored by: there is no best one yet.
    Checkpoints(tmp_path, keep=1, monitor="AP").close()
    assert not (tmp_path / "best").is_symlink()


def test_without_metrics_there_is_no_best(run: Checkpoints, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        run.save(arrays(step), arrays(step), describe(step))
    run.close()
    assert not (tmp_path / "best").exists()
    assert find_checkpoint(tmp_path).name == "3"


def test_an_unwritable_checkpoint_names_the_folder_and_harms_nothing(
    run: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save(arrays(1.0), arrays(0.0), describe(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run._manager, "save", full)
    with pytest.raises(CheckpointError, match="No space left") as caught:
        run.save(arrays(2.0), arrays(0.0), describe(2))
    assert str(tmp_path) in str(caught.value)
    run.close()
    assert find_checkpoint(tmp_path).name == "1"


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may become larger than 100 kB."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_in_the_background_is_told_by_the_next_poll(
    run: Checkpoints, tmp_path: Path, small_files: None
) -> None:
    run.save(arrays(1.0), arrays(0.0), describe(1, mIoU=0.1))
    run.wait()
    noise = {"a": jax.random.normal(jax.random.key(0), (1_000_000,))}
    run.save(noise, None, describe(2, mIoU=0.5))  # begins, and comes back
    while run._manager.is_saving_in_progress():
        time.sleep(0.01)
    with pytest.raises(CheckpointError, match=r"step 2 could not be written: .*File too large"):
        run.poll()
    run.close()
    assert {(tmp_path / name).resolve().name for name in ("best", "latest")} == {"1"}
    assert find_checkpoint(tmp_path).name == "1"
    load_params(find_checkpoint(tmp_path), jax.eval_shape(lambda: arrays(0.0)))


def test_a_save_that_cannot_begin_leaves_no_thread_to_wait_for(run: Checkpoints, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").touch()
    before = set(threading.enumerate())
    with pytest.raises(CheckpointError, match="step 1 could not be written"):
        run.save(arrays(1.0), None, describe(1))
    assert not [thread for thread in set(threading.enumerate()) - before if not thread.daemon]


def test_the_training_goes_on_while_checksums_are_computed(
    run: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, write = threading.Event(), checkpoints.write_checksums
    monkeypatch.setattr(checkpoints, "write_checksums", lambda folder: may_end.wait(60) and write(folder))
    run.save(arrays(1.0), None, describe(1))
    while run._manager.is_saving_in_progress():
        time.sleep(0.01)
    run.poll()
    run.poll()
    assert not (tmp_path / "latest").exists()
    may_end.set()
    while not (tmp_path / "latest").exists():
        run.poll()
        time.sleep(0.01)
    assert (tmp_path / "latest" / "checksums.json").is_file()


class Lines(logging.Handler):
    """What the loggers that Orbax uses let through."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    handler = Lines()
    for name in LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "handlers", [handler])
        monkeypatch.setattr(logging.getLogger(name), "filters", [])  # those of runs that other tests left open
    return handler.texts


def test_of_all_that_is_logged_only_orbax_is_silent_and_only_while_it_works(tmp_path: Path, lines: list[str]) -> None:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    run = Checkpoints(tmp_path, keep=2, monitor="mIoU")
    run.save(arrays(1.0), None, describe(1))  # Orbax warns: there are no metrics
    loggers[0].warning("from another library")
    run.wait()
    load_params(find_checkpoint(tmp_path), jax.eval_shape(lambda: arrays(0.0)))
    loggers[1].error("Task was destroyed but it is pending!")
    run.close()
    assert lines == ["from another library", "Task was destroyed but it is pending!"]
    assert [logger.filters for logger in loggers] == [[], []]
    with ocp.CheckpointManager(tmp_path / "plain", options=ocp.CheckpointManagerOptions(best_fn=len)) as manager:
        manager.save(1, args=ocp.args.StandardSave(arrays(1.0)))
    assert any("metric" in text for text in lines)


def test_a_failed_save_logs_nothing_even_when_it_is_collected(
    tmp_path: Path, lines: list[str], small_files: None
) -> None:
    with pytest.raises(CheckpointError), Checkpoints(tmp_path, keep=2, monitor="mIoU") as run:
        run.save({"a": jax.random.normal(jax.random.key(0), (1_000_000,))}, None, describe(2))
    gc.collect()
    assert lines == []


def test_arrays_may_be_given_away_while_they_are_written(run: Checkpoints, tmp_path: Path) -> None:
    """As the next step does with all of its state."""
    state = {"a": jnp.arange(1_000_000.0), "b": jnp.zeros((7, 3))}
    run.save(state, None, describe(1))
    state = jax.jit(lambda state: jax.tree.map(lambda x: -1 - x, state), donate_argnums=0)(state)
    jax.block_until_ready(state)
    run.close()
    saved = load_params(find_checkpoint(tmp_path), jax.eval_shape(lambda: state))
    np.testing.assert_array_equal(saved["a"], np.arange(1_000_000.0))
    np.testing.assert_array_equal(saved["b"], np.zeros((7, 3)))


def test_links_and_leftovers_of_a_run_that_was_killed_are_put_in_order(run: Checkpoints, tmp_path: Path) -> None:
    """Killed after a checkpoint was complete and before the links named it, and while an old one was deleted."""
    run.save(arrays(1.0), None, describe(1, mIoU=0.5))
    run.save(arrays(2.0), None, describe(2, mIoU=0.7))
    run.close()
    folder = tmp_path / "checkpoints"
    for name in ("best", "latest"):
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to("checkpoints/0")
    (folder / checkpoints.TO_DELETE / "0" / "params").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "best"):
        with pytest.raises(CheckpointError, match=r"best: names checkpoints/0, which is not a checkpoint") as caught:
            find_checkpoint(place)
        assert f"the newest one is {folder / '2'}" in caught.value.hint
    again = Checkpoints(tmp_path, keep=2, monitor="mIoU")
    assert {(tmp_path / name).resolve().name for name in ("best", "latest")} == {"2"}
    assert not (folder / checkpoints.TO_DELETE).exists()
    again.close()


def test_a_copy_that_followed_links_is_named(run: Checkpoints, tmp_path: Path) -> None:
    run.save(arrays(1.0), None, describe(4, mIoU=0.5))
    run.close()
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "checkpoints", copy / "checkpoints")
    shutil.copytree(tmp_path / "latest", copy / "latest")  # the folder that it shows
    with pytest.raises(CheckpointError, match=r"copy/latest: is a folder, not a link.*"):
        Checkpoints(copy, keep=2, monitor="mIoU")
    shutil.rmtree(copy / "latest")
    Checkpoints(copy, keep=2, monitor="mIoU").close()
    assert (copy / "latest").resolve() == copy / "checkpoints" / "4"
    shutil.copytree(tmp_path / "checkpoints" / "4", copy / "mine")
    with pytest.raises(CheckpointError, match=r"copy/mine: the folder of a checkpoint must keep the name of its step"):
        load_description(copy / "mine")


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        find_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)


def test_damaged_metrics_name_their_checkpoint_and_going_on_is_possible_without_it(
    run: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        run.save(arrays(step), arrays(step), describe(step, mIoU=0.1 * step))
    run.close()
    damaged = tmp_path / "checkpoints" / "2"
    file = damaged / "metrics" / "metrics"
    for text in ('{"mIoU": ', "5", "null", "[]", '{"mIoU": "x"}', '{"mIoU": true}', '{"PQ": 0.5}', None, "folder"):
        shutil.rmtree(file.parent, ignore_errors=True)
        if text is not None:
            (file if text == "folder" else file.parent).mkdir(parents=True)
        if text not in (None, "folder"):
            file.write_text(text)
        with pytest.raises(CheckpointError, match="checkpoints/2: `metrics` could not be read: ") as caught:
            Checkpoints(tmp_path, keep=2, monitor="mIoU")
        assert "remove this folder" in str(caught.value)
        assert os.readlink(tmp_path / "best") == "checkpoints/2", "nothing was moved"
    shutil.rmtree(damaged)
    again = Checkpoints(tmp_path, keep=2, monitor="mIoU")
    assert "the best checkpoint, step 2, is not there any more; among those that are, 1 is" in caplog.text
    assert again.newest() == tmp_path / "checkpoints" / "1"
    again.close()


def test_what_the_system_said_is_told_without_the_names_of_temporary_files(
    run: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise ValueError(
            'OUT_OF_RANGE: Error writing "a/0" in "/f/": Failed to write 9 bytes: No space [os_error_code=1]'
        )

    monkeypatch.setattr(run._manager, "save", full)
    with pytest.raises(CheckpointError, match=r"step 2 could not be written: No space\n"):
        run.save(arrays(2.0), arrays(0.0), describe(2))
    run.close()


def test_a_damaged_checkpoint_is_named(run: Checkpoints, tmp_path: Path) -> None:
    run.save(arrays(1.0), arrays(0.0), describe(1))
    run.close()
    folder = find_checkpoint(tmp_path)
    for path in (folder / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    like = jax.eval_shape(lambda: arrays(0.0))
    with pytest.raises(CheckpointError, match="a file of `params` is not as it was written"):
        load_params(folder, like)
    (folder / "checksums.json").unlink()  # as where the process was killed before they were written
    with pytest.raises(CheckpointError, match="could not be read"):
        load_params(folder, like)


def test_a_bit_that_has_changed_in_an_array_is_found(run: Checkpoints, tmp_path: Path) -> None:
    """Random numbers of a layer's size: Orbax itself reads them without a word."""
    noise = jax.random.normal(jax.random.key(0), (300, 300))
    run.save({"kernel": noise}, arrays(0.0), describe(1))
    run.close()
    folder, like = find_checkpoint(tmp_path), jax.eval_shape(lambda: {"kernel": noise})
    assert bool((load_params(folder, like)["kernel"] == noise).all())
    files = [path for path in (folder / "params").rglob("*") if path.is_file()]
    data = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"(?s){data.name}.*size and checksum are .* expected"):
        load_params(folder, like)
    load_description(folder)
    data.unlink()
    with pytest.raises(CheckpointError, match=f"{data.name}: a file of `params` is missing"):
        load_params(folder, like)


def test_a_model_is_shown_in_one_line() -> None:
    params = {"layer": {"kernel": np.zeros((1000, 1500), np.float32)}}
    assert repr(Checkpoint(params, describe(20))).endswith("step 20, 1.5 million parameters)")
    assert len(repr(Checkpoint(params, describe(20)))) < 100
