"""Keys of training on real files: a dry run leaves nothing, and frozen parts, accumulation and CutMix work together."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from oneformer_jax import load_checkpoint
from oneformer_jax.checkpoints import read as ckpt
from oneformer_jax.training.step import first_loss_scale

pytestmark = pytest.mark.slow


@pytest.mark.tao(5)
def test_a_dry_run_makes_one_step_and_leaves_nothing(workspace: Path, command_line, tmp_path: Path) -> None:
    keys = ["train.is_dry_run=true", "train.verbose=true"]
    result = command_line("train", "-e", workspace / "spec.yaml", f"results_dir={tmp_path}", *keys)
    assert result.returncode == 0, result.stderr
    assert "one step and one validation batch" in result.stdout
    left = {path.name for path in (tmp_path / "train").iterdir() if not path.name.startswith(".")}
    assert left == {"experiment.yaml", "status.json"}
    last = json.loads((tmp_path / "train" / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "SUCCESS"
    assert last["message"].startswith("Dry run")


@pytest.mark.prove  # `make test` has each alone: training/test_step.py, training/test_frozen.py, data/test_cutmix.py
def test_a_frozen_accumulating_mixing_training(workspace: Path, command_line, tmp_path: Path) -> None:
    keys = ["train.freeze=[backbone]", "train.accumulate_grad_batches=2", "dataset.cutmix_prob=0.5"]
    keys += ["train.checkpoint_interval_unit=step", "dataset.train.batch_size=2", "train.num_epochs=1"]
    keys += ["train.ema_decay=0.5", "train.precision=16", "train.verbose=true", "train.optim.type=Muon"]
    keys += ["dataset.image_size=[64,32]", "train.val_check_interval=0.5", "train.checkpoint_keep=0"]
    result = command_line("train", "-e", workspace / "spec.yaml", f"results_dir={tmp_path}", *keys)
    assert result.returncode == 0, result.stdout + result.stderr
    assert any("backbone" in line and "frozen" in line for line in result.stdout.splitlines())
    folder = tmp_path / "train" / "checkpoints"
    assert sorted(int(path.name) for path in folder.iterdir()) == [1, 2, 3]  # 10 images, 4 in an update
    first, last = (load_checkpoint(folder / step) for step in ("1", "3"))
    jax.tree.map(np.testing.assert_array_equal, first.params["backbone"], last.params["backbone"])
    assert np.any(first.params["predictor"]["query_embed"] != last.params["predictor"]["query_embed"])
    embedding = last.params["predictor"]["query_embed"]
    step = ckpt.load_item(folder / "3", "params", last.description.shapes())["predictor"]["query_embed"]
    assert np.any(embedding != step)  # what is used is the average
    np.testing.assert_allclose(embedding, step, atol=1e-2)
    assert 1 <= ckpt.load_item(folder / "3", "loss_scale", first_loss_scale("16-mixed")).value <= 2**16
    log = [json.loads(line) for line in (tmp_path / "train" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log if record["kind"] == "validation"] == [2, 3]


@pytest.mark.prove  # in `make test` training/test_step_reports.py shows it without a model
def test_ten_steps_without_a_finite_loss_name_the_images(workspace: Path, command_line, tmp_path: Path) -> None:
    """Weights of the losses beyond what a float32 holds."""
    keys = ["model.one_former.mask_weight=1e38", "model.one_former.dice_weight=1e38", "train.iters_per_epoch=12"]
    result = command_line("train", "-e", workspace / "spec.yaml", f"results_dir={tmp_path}", *keys)
    assert result.returncode == 1, result.stdout
    assert "the loss was not finite at 10 steps in a row (1 to 10)" in result.stderr
    assert f"{workspace}/data/train/images/" in result.stderr
    assert "the last good checkpoint: " in result.stderr
    assert "Traceback" not in result.stderr
