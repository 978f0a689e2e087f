"""The table of actions and backbones: each action with each backbone, a tiny model on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from conftest import CommandLine

from oneformer_jax.checkpoints.read import find_checkpoint, load_description

pytestmark = pytest.mark.prove  # `make test`: Swin in the other files, and the gradients of every backbone

TINY = {
    "swin": (),  # that of the spec
    "convnext": (
        "model.backbone.name=D2ConvNeXt",
        "model.backbone.convnext={depths: [1, 1, 1, 1], dims: [8, 16, 16, 32], init: fan_in}",
    ),
    "dinat": (
        "model.backbone.name=D2DiNAT",
        "model.backbone.dinat={embed_dim: 8, depths: [2, 1, 1, 1], num_heads: [1, 1, 2, 2], kernel_size: 3, "
        "dilations: [[1, 3], [2], [1], [1]], init: fan_in}",
    ),
    "radio": (
        "model.backbone.name=D2RADIO",
        "model.backbone.radio={backbone: vit_base_patch16_reg4_dinov2, embed_dim: 16, depth: 2, num_heads: 2, "
        "mlp_width: 32, cpe_max_size: 96, init: fan_in}",
    ),
}
SIZE = ("export.input_height=64", "export.input_width=64")


class Run:
    """Runs actions with one backbone; `folder` has the results."""

    def __init__(self, backbone: str, workspace: Path, command_line: CommandLine) -> None:
        self.backbone, self.workspace, self.command_line = backbone, workspace, command_line
        self.folder = workspace / f"with_{backbone}"

    def __call__(self, action: str, *overrides: str, folder: Path | None = None) -> str:
        """What the command told."""
        keys = (f"results_dir={folder or self.folder}", *TINY[self.backbone], *overrides)
        result = self.command_line(action, "--spec", self.workspace / "spec.yaml", *keys)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def read(self, *path: str) -> dict:
        """A file of JSON in the results."""
        return json.loads(self.folder.joinpath(*path).read_text())


@pytest.fixture(scope="module", params=TINY)
def trained(request: pytest.FixtureRequest, workspace: Path, command_line: CommandLine) -> Run:
    """After an epoch of training, which has three steps."""
    run = Run(request.param, workspace, command_line)
    run("train", "train.num_epochs=1")
    return run


def train(run: Run) -> None:
    description = load_description(find_checkpoint(run.folder))
    assert (description.step, type(description.model.backbone).__name__.lower()) == (3, f"{run.backbone}config")


def resume(run: Run) -> None:
    assert "resuming from step 3" in run("train", "train.num_epochs=2")
    assert load_description(find_checkpoint(run.folder / "train" / "latest")).step == 6


def evaluate(run: Run) -> None:
    run("evaluate", f"evaluate.checkpoint={run.folder}")
    scores = run.read("evaluate", "metrics.json")
    assert all(0 <= scores[score] <= 1 for score in ("mIoU", "PQ", "AP"))


def inference(run: Run) -> None:
    pictures = sorted((run.workspace / "data" / "val" / "images").iterdir())
    for mode in ("semantic", "instance", "panoptic"):
        run("inference", f"inference.checkpoint={run.folder}", f"inference.mode={mode}")
        overlays = [run.folder / "inference" / mode / f"{picture.stem}.jpg" for picture in pictures]
        assert all(cv2.imread(str(path)) is not None for path in overlays)


def export(run: Run) -> None:
    run("export", f"export.checkpoint={run.folder}", *SIZE)
    assert run.read("export", "report.json")["parity"]["passed"]


def quantize(run: Run) -> None:
    run("quantize", f"quantize.model_path={run.folder}", *SIZE)
    facts = run.read("quantize", "quantization.json")
    assert facts["after"]["size_MB"] < facts["before"]["size_MB"]


def automl(run: Run) -> None:
    keys = ("automl.max_recommendations=2", "automl.algorithm=random", "automl.hyperparameters=[train.optim.lr]")
    search = run.folder.with_name(f"{run.folder.name}_search")
    run("automl", "train.num_epochs=1", *keys, folder=search)
    results = json.loads((search / "automl" / "results.json").read_text())
    assert [trial["state"] for trial in results["trials"]] == ["complete"] * 2
    assert load_description(find_checkpoint(search / "automl")).metrics["mIoU"] == results["best"]["score"]


ACTIONS = (train, resume, evaluate, inference, export, quantize, automl)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_action(action: Callable[[Run], None], trained: Run) -> None:
    action(trained)
