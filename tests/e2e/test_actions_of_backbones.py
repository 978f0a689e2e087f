"""Each action with each backbone but Swin, which the other files have: a tiny model on the command line."""

import json
from pathlib import Path

import pytest
from conftest import CommandLine

pytestmark = pytest.mark.prove  # `make test`: Swin in the other files, and the gradients of every backbone

TINY = {
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


@pytest.fixture(scope="module", params=TINY)
def run(request: pytest.FixtureRequest, workspace: Path, command_line: CommandLine):
    """Runs an action with this backbone, and gives what it told; `folder` has the results."""

    def act(action: str, *overrides: str) -> str:
        keys = (f"results_dir={act.folder}", *TINY[request.param], *overrides)
        result = command_line(action, "--spec", workspace / "spec.yaml", *keys)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    act.folder = workspace / request.param
    return act


def test_train_resume_evaluate_export_and_quantize(run) -> None:
    run("train", "train.num_epochs=1")
    assert "resuming from step 3" in run("train", "train.num_epochs=2")
    run("evaluate", f"evaluate.checkpoint={run.folder}")
    assert 0 <= json.loads((run.folder / "evaluate" / "metrics.json").read_text())["mIoU"] <= 1
    run("export", f"export.checkpoint={run.folder}", *SIZE)
    assert json.loads((run.folder / "export" / "report.json").read_text())["parity"]["passed"]
    run("quantize", f"quantize.model_path={run.folder}", *SIZE)
    facts = json.loads((run.folder / "quantize" / "quantization.json").read_text())
    assert facts["after"]["size_MB"] < facts["before"]["size_MB"]
