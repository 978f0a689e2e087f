"""A data set, a spec and a trained run that the end-to-end tests share."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import CommandServer

from oneformer_jax.data.drawn_shapes import write_drawn_shapes

ROOT = Path(__file__).resolve().parents[2]

TINY = """
results_dir: {folder}/results
model:
  backbone:
    swin:
      {{embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], window_size: 4, mlp_ratio: 2.0,
        drop_path_rate: 0.1}}
  sem_seg_head: {{num_classes: 7, convs_dim: 64, mask_dim: 64, transformer_enc_layers: 1}}
  one_former:
    {{hidden_dim: 64, nheads: 2, num_object_queries: 12, dim_feedforward: 32, dec_layers: 2, class_dec_layers: 1,
      train_num_points: 64}}
  text_encoder: {{width: 64, num_layers: 1, n_ctx: 2, proj_num_layers: 1}}
  test: {{semantic_on: true, instance_on: true, panoptic_on: true}}
dataset:
  train:
    images: {folder}/data/train/images
    annotations: {folder}/data/train/annotations.json
    panoptic: {folder}/data/train/panoptic
    batch_size: 4
  val:
    images: {folder}/data/val/images
    annotations: {folder}/data/val/annotations.json
    panoptic: {folder}/data/val/panoptic
    batch_size: 2
  test: {{images: {folder}/data/val/images}}
  label_map: {folder}/data/label_map.json
  augmentation: {{train_crop_size: [64, 64], test_min_size: 64, test_max_size: 64}}
train:
  num_epochs: 2
  optim: {{lr: 1.0e-3, warmup_iters: 1}}
"""

CommandLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command_server() -> Iterator[CommandServer]:
    """Starts commands in forks."""
    server = CommandServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def command_line(command_server: CommandServer) -> CommandLine:
    """Runs `python cli.py ...` in the checkout, after the words of `before`; without them in a fork."""

    def run(
        *arguments: str | Path, before: tuple[str, ...] = (), cwd: Path = ROOT, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        words, environment = list(map(str, arguments)), os.environ | {"COLUMNS": "120"}
        if not before and command_server.can_run(environment):
            return command_server.run(words, environment, cwd, timeout)
        command, options = [*before, sys.executable, str(ROOT / "cli.py"), *words], {"env": environment, "cwd": cwd}
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, **options)

    return run


def write_workspace(folder: Path) -> None:
    write_drawn_shapes(folder / "data", {"train": 10, "val": 3}, size=64, seed=1)
    (folder / "spec.yaml").write_text(TINY.format(folder=folder))


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/` (10 training and 3 validation pictures) and `spec.yaml`."""
    folder = tmp_path_factory.mktemp("workspace")
    write_workspace(folder)
    return folder


@pytest.fixture(scope="session")
def trained(workspace: Path, command_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder after `train` ran to its end: a copy of what one of all workers has trained."""
    workers = tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else workspace
    shared = workers / "trained"
    with open(workers / "trained.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            write_workspace(shared)
            result = command_line("train", "--spec", shared / "spec.yaml", "train.profile_steps=2")
            assert result.returncode == 0, result.stdout + result.stderr
    shutil.copytree(shared / "results", workspace / "results", symlinks=True)
    return workspace / "results"
