"""Fine-tuning starts at PyTorch's loss: the first record of a real training run beside Hugging Face's model.

A random model of Hugging Face's is saved as a folder and `cli.py train` starts from it (`train.pretrained_model`). The
total loss of the run's first step and each part of it must be those that the PyTorch model itself has on that batch.

This can be exact up to rounding: a batch is a function of the seed, dropout is off, and the points at which masks are
compared, the only other chance, are functions of seed, step, sample, segment and layer on our side. Hugging Face's loss
gets the same ones wherever it draws its own (`dealt_points`).
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from dealt_points import DealtPoints

from oneformer_jax.app.settings import data as datasets
from oneformer_jax.app.settings.training import criterion_config, pipeline_settings
from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.data.drawn_shapes import CATEGORIES, write_drawn_shapes
from oneformer_jax.data.pipeline import train_batches
from oneformer_jax.data.task_text import prompt_table, task_tokens
from oneformer_jax.training.logbook import read_log

# The last bit decides which points are the uncertain ones: only optimised programs agree. `make test`: test_losses.py
pytestmark = pytest.mark.prove

Differences = Callable[[Any, int], dict[str, float]]

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5
FAR = 100 * TOLERANCE
SEED, LAYERS, TEXT_LENGTH = 14, 3, 77
SWIN: dict[str, Any] = {
    "embed_dim": 8,
    "depths": [1, 2, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 2,
    "drop_path_rate": 0.0,
}
# Both sides call these alike. None is a default, so that a key that went unread would show.
OBJECTIVE: dict[str, Any] = {
    "class_weight": 1.5,
    "mask_weight": 4.0,
    "dice_weight": 3.0,
    "contrastive_weight": 0.7,
    "no_object_weight": 0.2,
    "train_num_points": 96,
    "oversample_ratio": 2.0,
    "importance_sample_ratio": 0.5,
}
# The last step of a run is always logged: here it is the first one.
SPEC = """
results_dir: {folder}/results
model:
  backbone: {{swin: {swin}}}
  sem_seg_head: {{num_classes: 7, convs_dim: 64, mask_dim: 64, transformer_enc_layers: 1}}
  one_former:
    {{hidden_dim: 64, nheads: 2, num_object_queries: 12, dim_feedforward: 32, dec_layers: 3, class_dec_layers: 1,
      dropout: 0.0, {objective}}}
  text_encoder: {{width: 64, num_layers: 2, n_ctx: 2}}
dataset:
  train:
    images: {folder}/data/train/images
    annotations: {folder}/data/train/annotations.json
    panoptic: {folder}/data/train/panoptic
    batch_size: 3
  task_prob_train: {{semantic: 1, instance: 1, panoptic: 1}}
  augmentation: {{train_crop_size: [64, 96]}}
  min_scale: 0.8
  max_scale: 1.5
train:
  seed: {seed}
  pretrained_model: {folder}/model
  optim: {{max_iter: 1}}
"""
PARTS = ("loss_cross_entropy", "loss_mask", "loss_dice", "loss_contrastive")


def random_model() -> Any:
    torch.manual_seed(0)
    config = transformers.OneFormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN, out_features=["stage1", "stage2", "stage3", "stage4"]),
        id2label=dict(enumerate(CATEGORIES.names)),  # a classifier of other classes would start anew
        is_training=True,
        dropout=0.0,
        hidden_dim=64,
        conv_dim=64,
        mask_dim=64,
        encoder_layers=1,
        num_queries=12,
        num_attention_heads=2,
        dim_feedforward=32,
        decoder_layers=LAYERS,
        query_dec_layers=1,
        text_encoder_width=64,
        text_encoder_num_layers=2,
        text_encoder_n_ctx=2,
        **OBJECTIVE,
    )
    model = transformers.OneFormerForUniversalSegmentation(config)
    with torch.no_grad():  # what starts at a constant would hide mistakes
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def spec_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec beside its data set and its pretrained model."""
    folder = tmp_path_factory.mktemp("finetuning")
    write_drawn_shapes(folder / "data", {"train": 4}, size=64, seed=1)
    random_model().save_pretrained(folder / "model")
    objective = ", ".join(f"{name}: {value}" for name, value in OBJECTIVE.items())
    (folder / "spec.yaml").write_text(SPEC.format(folder=folder, seed=SEED, swin=SWIN, objective=objective))
    return folder / "spec.yaml"


@pytest.fixture(scope="module")
def logged(spec_path: Path) -> dict[str, float]:
    """What the command line's training wrote down of its first step."""
    command = [sys.executable, str(ROOT / "cli.py"), "train", "--spec", str(spec_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    (record,) = read_log(spec_path.parent / "results" / "train" / "log.jsonl")
    assert record["step"] == 1
    return record


@pytest.fixture(scope="module")
def spec(spec_path: Path) -> Spec:
    return load_spec(spec_path)


@pytest.fixture(scope="module")
def batch(spec: Spec) -> Batch:
    """The run's first batch, made once more."""
    dataset = open_dataset(datasets.dataset_files(spec, "train"))
    with closing(train_batches(dataset, pipeline_settings(spec), first_sample=0)) as batches:
        batch = next(batches)
    assert sorted(batch.task) == [0, 1, 2]
    return batch


def inputs(batch: Batch, spec: Spec) -> dict[str, Any]:
    """The batch as Hugging Face's model takes it."""
    pixels = (batch.images - np.array(spec.dataset.pixel_mean)) / np.array(spec.dataset.pixel_std)
    texts = prompt_table(CATEGORIES.names)[batch.prompts]
    texts = np.pad(texts, ((0, 0), (0, 0), (0, TEXT_LENGTH - texts.shape[-1])))
    classes = [table[table >= 0] for table in batch.segment_class]
    masks = [
        index[0] == np.arange(len(c))[:, None, None] for index, c in zip(batch.segment_index, classes, strict=True)
    ]
    return {
        "pixel_values": torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32)),
        "task_inputs": torch.from_numpy(task_tokens(0, TEXT_LENGTH)[batch.task]),
        "text_inputs": torch.from_numpy(texts).long(),
        "mask_labels": [torch.from_numpy(mask.astype(np.float32)) for mask in masks],
        "class_labels": [torch.from_numpy(c).long() for c in classes],
    }


def load(spec: Spec) -> Any:
    """The pretrained model, its text encoder with the causal mask that Hugging Face builds and forgets to apply."""
    model = transformers.OneFormerForUniversalSegmentation.from_pretrained(spec.train.pretrained_model)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(TEXT_LENGTH)
    for layer in model.model.text_mapper.text_encoder.transformer.layers:
        layer.self_attn.forward = partial(layer.self_attn.forward, attn_mask=mask)
    return model


def pytorch_losses(model: Any, inputs: dict[str, Any], points: DealtPoints) -> dict[str, float]:
    """The weighted total, and the output layer's losses before they are weighted, by the names of our log."""
    parts: dict[str, float] = {}

    def note(_criterion: Any, _inputs: Any, losses: dict[str, torch.Tensor]) -> None:
        parts.update((name.replace("cross_entropy", "ce"), losses[name].item()) for name in PARTS)

    model.matcher.register_forward_hook(points.note_pairs)
    model.criterion.register_forward_hook(note)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "rand", points.rand)
        total = model(**inputs).loss.item()
    assert points.are_used_up()
    return {"loss": total, **parts}


@pytest.fixture(scope="module")
def differences(logged: dict[str, float], spec: Spec, batch: Batch) -> Differences:
    """How far the run's losses are from a model's at the points of a seed, relative."""
    ready = inputs(batch, spec)

    def measure(model: Any, seed: int) -> dict[str, float]:
        points = DealtPoints(batch, seed, LAYERS, criterion_config(spec.model.one_former))
        theirs = pytorch_losses(model, ready, points)
        return {name: abs(logged[name] / truth - 1) for name, truth in theirs.items()}

    return measure


def test_the_run_starts_at_pytorchs_loss(spec: Spec, differences: Differences) -> None:
    found = differences(load(spec), SEED)
    assert len(found) == 1 + len(PARTS)
    assert max(found.values()) < TOLERANCE, found


def test_other_points_would_show(spec: Spec, differences: Differences) -> None:
    found = differences(load(spec), SEED + 1)
    assert min(found[name] for name in ("loss", "loss_mask", "loss_dice")) > FAR, found


@pytest.mark.parametrize(
    ("weight", "shown_by"),
    [
        ("model.pixel_level_module.encoder.hidden_states_norms.stage4.bias", ("loss", "loss_mask")),
        ("model.transformer_module.decoder.class_embed.bias", ("loss", "loss_ce")),
        ("model.transformer_module.decoder.mask_embed.layers.2.0.bias", ("loss", "loss_mask", "loss_dice")),
        ("model.text_mapper.text_encoder.positional_embedding", ("loss_contrastive",)),
        ("criterion.logit_scale", ("loss", "loss_contrastive")),
    ],
)
def test_one_other_number_would_show(
    weight: str, shown_by: tuple[str, ...], spec: Spec, differences: Differences
) -> None:
    model = load(spec)
    with torch.no_grad():
        model.get_parameter(weight).view(-1)[0] += 1
    found = differences(model, SEED)
    assert min(found[name] for name in shown_by) > FAR, found
