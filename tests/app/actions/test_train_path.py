"""From the command to the jitted forward pass: few frames, and a train action that names few parts."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import oneformer_jax
from oneformer_jax.app.cli.commands import app
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.training.step import TrainStep

PACKAGE = Path(oneformer_jax.__file__).parent
ROOT = PACKAGE.parent
PROJECT = ("oneformer_jax", "converters")
MOST_FRAMES, MOST_IMPORTS = 8, 12

SPEC = """
model:
  backbone:
    swin: {embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 1, 1], window_size: 4, mlp_ratio: 2.0}
  sem_seg_head: {num_classes: 7, convs_dim: 32, mask_dim: 32, transformer_enc_layers: 1}
  one_former:
    {hidden_dim: 32, nheads: 1, num_object_queries: 8, dim_feedforward: 8, dec_layers: 2, class_dec_layers: 1,
      train_num_points: 16}
  text_encoder: {width: 32, num_layers: 1, n_ctx: 2, proj_num_layers: 1}
dataset:
  train:
    {images: FOLDER/train/images, annotations: FOLDER/train/annotations.json, panoptic: FOLDER/train/panoptic}
  augmentation: {train_crop_size: [32, 32]}
"""


class Reached(Exception):
    """Ends a training where the forward pass would begin."""


@pytest.mark.slow
def test_few_frames_lie_between_the_command_and_the_forward_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def forward(*_: Any) -> None:
        stack = [(Path(frame.filename), frame.function) for frame in inspect.stack(context=0)]
        seen.extend(f"{path.stem}.{name}" for path, name in reversed(stack) if path.is_relative_to(PACKAGE))
        raise Reached

    made = TrainStep.__init__

    def with_probe(self: TrainStep, *arguments: Any) -> None:
        made(self, *arguments)
        self.forward = forward

    monkeypatch.setattr(TrainStep, "__init__", with_probe)
    write_drawn_shapes(tmp_path, {"train": 2}, size=32, seed=3)
    (tmp_path / "spec.yaml").write_text(SPEC.replace("FOLDER", str(tmp_path)))
    keys = [f"results_dir={tmp_path / 'results'}", "train.optim.max_iter=1"]
    result = CliRunner().invoke(app, ["train", "-e", str(tmp_path / "spec.yaml"), *keys])
    assert isinstance(result.exception, Reached), result.output
    path = seen[seen.index("commands.train") :]
    print("\n" + " -> ".join([*path, "forward"]))
    assert path[1:3] == ["train.train", "loop.train_loop"]
    assert len(path) + 1 <= MOST_FRAMES  # the forward pass itself is one more


def imported(file: Path) -> Iterator[tuple[str, str]]:
    """The modules of the project that a file imports from, with the name that it takes of each."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] in PROJECT)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PROJECT:
            yield from ((node.module, alias.name) for alias in node.names)


def modules_behind(module: str, name: str) -> set[str]:
    """The modules that stand behind a name: a package counts as all that it passes on, a module that passes the name on
    as the one that it comes from."""
    place = ROOT.joinpath(*module.split("."))
    if not place.is_dir():
        passed_on = [pair for pair in imported(place.with_suffix(".py")) if pair[1] == name]
    elif (place / name).is_dir() or (place / f"{name}.py").is_file():
        return {f"{module}.{name}"}
    else:
        passed_on = list(imported(place / "__init__.py"))
    return set().union(*(modules_behind(*pair) for pair in passed_on)) if passed_on else {module}


def test_the_train_action_names_few_parts() -> None:
    found = set().union(*(modules_behind(*pair) for pair in imported(PACKAGE / "app/actions/train/train.py")))
    print(f"\n{len(found)} modules:", *sorted(found), sep="\n")
    assert len(found) <= MOST_IMPORTS


def test_a_package_counts_as_what_it_passes_on() -> None:
    parts = {f"oneformer_jax.app.spec.{name}" for name in ("load", "spec", "validate")}
    assert modules_behind("oneformer_jax.app.spec", "load_spec") == parts
    assert modules_behind("oneformer_jax.models", "oneformer") == {"oneformer_jax.models.oneformer"}
