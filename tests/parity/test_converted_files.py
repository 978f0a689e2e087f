"""The goldens as the files that users have, converted by the command: recorded outputs come out of what it wrote."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import Golden, channels_last, load_golden
from omegaconf import OmegaConf
from safetensors.numpy import save_file
from typer.testing import CliRunner

from oneformer_jax import load_checkpoint
from oneformer_jax.app.cli.commands import app

pytestmark = [pytest.mark.slow, pytest.mark.again]


def shi_file(golden: Golden, folder: Path) -> Path:
    path = folder / "model_final.pth"
    torch.save({"model": tensors(golden.state), "iteration": 7, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def tao_file(golden: Golden, folder: Path) -> Path:
    """What Lightning writes: prefixed names, and the configuration as OmegaConf objects."""
    path = folder / "oneformer_model_latest.pth"
    config = OmegaConf.create({"model": {"one_former": {"nheads": 4}, "names": ["a", "b"]}, "lr": 1e-4})
    state = tensors({f"model.{name}": array for name, array in golden.state.items()})
    torch.save({"state_dict": state, "hyper_parameters": {"experiment_spec": config}, "epoch": 3}, path)
    return path


def huggingface_folder(golden: Golden, folder: Path) -> Path:
    path = folder / "oneformer_tiny"
    path.mkdir()
    save_file({name: np.array(array, order="C") for name, array in golden.state.items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(golden.meta["hf_config"]))
    return path


def tensors(state: dict[str, np.ndarray]) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((name, torch.from_numpy(np.array(array))) for name, array in state.items())


@pytest.mark.parametrize(
    ("name", "write"), [("shi", shi_file), ("tao", tao_file), ("hf", huggingface_folder)], ids=["shi", "tao", "hf"]
)
def test_the_command_converts_the_file(name: str, write, shared: Path, tmp_path: Path) -> None:
    golden = load_golden(shared / f"reference/golden/{name}_tiny_dev.npz")
    report = tmp_path / "report.json"
    arguments = ["convert", write(golden, tmp_path), tmp_path / "converted", "--report", report]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    content = json.loads(report.read_text())
    assert content["missing"] == content["unexpected"] == []

    model = load_checkpoint(tmp_path / "converted")
    predictions = model.forward(channels_last(golden["in/image"]), golden["in/task_tokens"])
    np.testing.assert_allclose(predictions.class_logits, golden["out/pred_logits"], rtol=0, atol=3e-4)
    np.testing.assert_allclose(predictions.mask_logits, golden["out/pred_masks"], rtol=0, atol=1e-3)
    assert model.config.task_pad_id == (49407 if name == "tao" else 0)
