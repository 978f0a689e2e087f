"""What we write, transformers loads and computes alike; and both sides finish the same logits alike."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from transformers import OneFormerForUniversalSegmentation, OneFormerProcessor
from transformers.models.oneformer.image_processing_pil_oneformer import OneFormerImageProcessorPil

from converters.files.read import Source, read_classes, read_source, read_statistics
from converters.weights import convert
from converters.write_huggingface import write_huggingface
from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.data.geometry import Geometry
from oneformer_jax.data.task_text import encode as encode_words
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.errors import CheckpointError, OneFormerError
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)
from oneformer_jax.models.oneformer import encode, init, predict
from oneformer_jax.models.predictions import Predictions
from oneformer_jax.postprocess.results import Thresholds, instance_segmentation, panoptic_segmentation, semantic_map

CONFIG = OneFormerConfig(
    num_classes=5,
    backbone=SwinConfig(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), window_size=4, drop_path_rate=0.1),
    pixel_decoder=PixelDecoderConfig(conv_dim=64, mask_dim=64, num_layers=2, num_heads=2, dim_feedforward=48),
    transformer=TransformerConfig(hidden_dim=64, num_queries=9, num_heads=2, dim_feedforward=40, dec_layers=4),
    text_encoder=TextEncoderConfig(width=64, num_layers=1, vocab_size=64, context_length=12, n_ctx=2),
    task_seq_len=9,
)
THINGS = (0, 1, 2)
NAMES = ["person", "cat", "boat", "sky", "road"]
KINDS = {
    "categories": Categories(
        tuple(Category(10 * i + 1, name, i in THINGS, (i, 50, 200)) for i, name in enumerate(NAMES))
    ),
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (58.395, 57.12, 57.375),
}


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    """Every array random, biases too: what starts at a constant would hide mistakes."""
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        kind, fan_in = path[-1].key, max(1, int(np.prod(leaf.shape[:-1])))
        deviation = fan_in**-0.5 if kind == "kernel" else 0.3
        return (deviation * rng.standard_normal(leaf.shape) + (kind == "scale")).astype(np.float32)

    return jax.tree.map_with_path(draw, jax.eval_shape(partial(init, CONFIG), jax.random.key(0)))


@pytest.fixture(scope="module")
def folder(params: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    write_huggingface(folder, params, CONFIG, **KINDS)
    return folder


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    return OneFormerForUniversalSegmentation.from_pretrained(folder, output_loading_info=True)


@pytest.mark.slow
def test_it_loads_without_a_missing_or_unexpected_name(folder: Path) -> None:
    model, info = load(folder)
    assert (set(info["missing_keys"]), set(info["unexpected_keys"]), set(info["mismatched_keys"])) == (set(),) * 3
    assert model.config.id2label == dict(enumerate(NAMES))


def test_it_loads_for_training_too(params: dict[str, Any], tmp_path: Path) -> None:
    write_huggingface(tmp_path / "model", params, CONFIG, **KINDS, training=True)
    model, info = load(tmp_path / "model")
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.is_training
    np.testing.assert_array_equal(model.model.text_mapper.prompt_ctx.weight.detach(), params["prompt_ctx"])


@pytest.mark.parametrize("training", [False, True])
def test_it_converts_back_to_the_same(training: bool, params: dict[str, Any], tmp_path: Path) -> None:
    write_huggingface(tmp_path / "model", params, CONFIG, **KINDS, training=training)
    converted = convert(read_source(tmp_path / "model"))
    kept = params if training else {part: params[part] for part in converted.params}
    jax.tree.map(np.testing.assert_array_equal, converted.params, kept)
    text_encoder = CONFIG.text_encoder if training else TextEncoderConfig(width=64)
    assert converted.config == dataclasses.replace(CONFIG, text_encoder=text_encoder)
    assert "text_encoder" not in converted.params or training


@pytest.mark.slow
def test_it_computes_the_same(params: dict[str, Any], folder: Path) -> None:
    rng = np.random.default_rng(1)
    image = rng.standard_normal((2, 70, 90, 3)).astype(np.float32)
    tasks = rng.integers(0, 9, (2, CONFIG.task_seq_len)).astype(np.int32)
    with torch.no_grad():
        pixels, ids = torch.from_numpy(image.transpose(0, 3, 1, 2)), torch.from_numpy(tasks.astype(np.float32))
        theirs = load(folder)[0].eval()(pixels, ids)

    @jax.jit
    def predicted(params: Any, image: jax.Array, tasks: jax.Array) -> Predictions:
        return predict(params, encode(params, image, config=CONFIG), tasks, config=CONFIG)

    ours = predicted(params, image, tasks)
    np.testing.assert_allclose(ours.class_logits, theirs.class_queries_logits.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.mask_logits, theirs.masks_queries_logits.numpy(), rtol=0, atol=1e-4)


def test_the_processor_knows_classes_and_statistics(folder: Path) -> None:
    processor = OneFormerImageProcessorPil.from_pretrained(folder)
    assert processor.metadata["thing_ids"] == list(THINGS)
    assert processor.metadata["class_names"] == NAMES
    assert (processor.size["shortest_edge"], processor.size["longest_edge"]) == (800, 1333)
    assert (processor.num_text, processor.num_labels) == (7, 5)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (pixels,) = processor(image, ["semantic"], do_resize=False, return_tensors="np")["pixel_values"]
    expected = (image - np.array(KINDS["pixel_mean"])) / np.array(KINDS["pixel_std"])
    np.testing.assert_allclose(pixels.transpose(1, 2, 0), expected, atol=1e-5)


def test_the_classes_come_back(folder: Path, tmp_path: Path) -> None:
    assert Categories.from_json(read_classes(folder), isthing_required=True) == KINDS["categories"]
    # What transformers saves has names and things alone, in the configuration of the processor itself.
    OneFormerImageProcessorPil.from_pretrained(folder).save_pretrained(tmp_path)
    assert not (tmp_path / "class_info.json").exists()
    saved = Categories.from_json(read_classes(tmp_path), isthing_required=True)
    assert [(c.name, c.isthing) for c in saved.items] == [(name, i in THINGS) for i, name in enumerate(NAMES)]


def test_the_statistics_come_back(folder: Path, tmp_path: Path) -> None:
    assert read_statistics(folder) == (KINDS["pixel_mean"], KINDS["pixel_std"])
    assert read_statistics(tmp_path) is None
    settings = {"image_mean": [0.5, 0.25, 0], "image_std": [0.5, 0.5, 1.0], "rescale_factor": 1 / 127.5}
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(settings))
    assert read_statistics(tmp_path) == ((63.75, 31.875, 0.0), (63.75, 63.75, 127.5))
    for change in ({"image_std": [1, 1, 0]}, {"image_mean": 0.5}, {"rescale_factor": "x"}, {"do_normalize": False}):
        path.write_text(json.dumps(settings | change))
        with pytest.raises(CheckpointError, match="expected"):
            read_statistics(tmp_path)


class PaddingTokenizer:
    """CLIP's tokenizer as Hugging Face configures it: the end token pads, and a mask tells it from the text's own."""

    def __call__(self, texts: list[str], max_length: int, **_: Any) -> dict[str, list[list[int]]]:
        rows = [encode_words(text) for text in texts]
        return {
            "input_ids": [row + [49407] * (max_length - len(row)) for row in rows],
            "attention_mask": [[1] * len(row) + [0] * (max_length - len(row)) for row in rows],
        }


def their_task_inputs(*tasks: str) -> torch.Tensor:
    """What `OneFormerProcessor` makes of its tasks."""
    processor = SimpleNamespace(tokenizer=PaddingTokenizer())
    return OneFormerProcessor._preprocess_text(processor, [f"the task is {task}" for task in tasks], 77).float()


@pytest.mark.slow
def test_tao_computes_the_same_from_texts_padded_with_zeros(shared: Path, tmp_path: Path) -> None:
    """Outputs that TAO's code recorded with its padding, from the exported model with Hugging Face's padding.

    Class and mask logits reach 9 and 43; the tolerances are those between the code bases with one padding.
    """
    with np.load(shared / "reference/golden/tao_tiny_dev.npz") as golden:
        arrays = {name: golden[name] for name in golden.files}
    tao = convert(Source("tao", {name[3:]: x for name, x in arrays.items() if name.startswith("sd/")}, None))
    assert isinstance(tao.config, OneFormerConfig)
    categories = Categories(tuple(Category(i, f"class {i}", True, (i, i, i)) for i in range(tao.config.num_classes)))
    adapted = write_huggingface(tmp_path / "model", tao.params, tao.config, **KINDS | {"categories": categories})
    assert len(adapted) == 1
    assert "padding with 49407" in adapted[0]

    tasks = their_task_inputs("panoptic", "instance")
    assert arrays["in/task_tokens"][:, 7:].tolist() == [[49407] * 70] * 2
    assert tasks[:, 7:].tolist() == [[0] * 70] * 2
    with torch.no_grad():
        theirs = load(tmp_path / "model")[0].eval()(torch.from_numpy(arrays["in/image"]), tasks)
    np.testing.assert_allclose(theirs.class_queries_logits, arrays["out/pred_logits"], rtol=0, atol=3e-4)
    np.testing.assert_allclose(theirs.masks_queries_logits, arrays["out/pred_masks"], rtol=0, atol=1e-3)


@pytest.mark.tao(35)
@pytest.mark.parametrize("task", [0, 1, 2], ids=["semantic", "instance", "panoptic"])
def test_every_task_vector_survives_another_padding(task: int, params: dict[str, Any], tmp_path: Path) -> None:
    """In float32 the vector is exact to 1e-6 of its largest entry: the ids multiply every rounding by 49407."""
    rng = np.random.default_rng(2)
    config = dataclasses.replace(CONFIG, task_seq_len=77, task_pad_id=49407)
    first = {"kernel": rng.uniform(-0.11, 0.11, (77, 64)).astype(np.float32), "bias": np.ones(64, np.float32)}
    ours = params | {"task_mlp": params["task_mlp"] | {"layer_0": first}}
    write_huggingface(tmp_path / "model", ours, config, **KINDS)
    encoder = load(tmp_path / "model")[0].model.task_encoder
    name = ("semantic", "instance", "panoptic")[task]
    with torch.no_grad():
        theirs = encoder(their_task_inputs(name)).numpy()[0]
    second = {key: x.astype(np.float64) for key, x in params["task_mlp"]["layer_1"].items()}
    hidden = np.maximum(task_tokens(49407, 77)[task] @ first["kernel"].astype(np.float64) + first["bias"], 0)
    expected = hidden @ second["kernel"] + second["bias"]
    np.testing.assert_allclose(theirs, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@dataclasses.dataclass(frozen=True)
class Scene:
    """Logits of queries whose rectangles tile an image, each sure of its class, and of as many that see nothing.

    Where masks are unsure the two sides differ by design: the original drops pixels outside a query's own mask and
    multiplies an instance's score by its mask's mean probability; Hugging Face does neither.
    """

    class_logits: np.ndarray
    mask_logits: np.ndarray

    @property
    def outputs(self) -> SimpleNamespace:
        return SimpleNamespace(
            class_queries_logits=torch.from_numpy(self.class_logits)[None],
            masks_queries_logits=torch.from_numpy(self.mask_logits)[None],
        )


def scene(seed: int, classes: tuple[int, ...]) -> Scene:
    rng = np.random.default_rng(seed)
    num_queries, (height, width) = 2 * len(classes), (24, 36)
    class_logits = rng.standard_normal((num_queries, 6)).astype(np.float32)
    mask_logits = rng.uniform(-30, -25, (num_queries, height, width)).astype(np.float32)
    edges = np.sort(rng.choice(np.arange(1, width), len(classes) - 1, replace=False))
    bounds = [0, *edges.tolist(), width]
    queries = rng.permutation(num_queries)
    for query, label, start, stop in zip(queries, classes, bounds, bounds[1:], strict=False):
        class_logits[query, label] += rng.uniform(6, 9)
        mask_logits[query, :, start:stop] = rng.uniform(25, 30, (height, stop - start))
    class_logits[queries[len(classes) :], -1] += 12
    return Scene(class_logits, mask_logits)


SCENES = [scene(0, (0, 1, 3)), scene(1, (2, 2, 4, 0)), scene(2, (3, 0, 3, 4))]
SIZE = Geometry((24, 36), (24, 36), (24, 36))
IS_THING = np.isin(np.arange(5), THINGS)


@pytest.mark.parametrize("scene", SCENES)
def test_semantic_maps_agree(scene: Scene, folder: Path) -> None:
    processor = OneFormerImageProcessorPil.from_pretrained(folder)
    (theirs,) = processor.post_process_semantic_segmentation(scene.outputs)
    np.testing.assert_array_equal(semantic_map(scene.class_logits, scene.mask_logits, SIZE), theirs)


@pytest.mark.parametrize("scene", SCENES)
def test_panoptic_segments_agree(scene: Scene, folder: Path) -> None:
    processor = OneFormerImageProcessorPil.from_pretrained(folder)
    stuff = set(np.flatnonzero(~IS_THING).tolist())
    (theirs,) = processor.post_process_panoptic_segmentation(scene.outputs, label_ids_to_fuse=stuff)
    thresholds = Thresholds(object_mask_threshold=0.5, overlap_threshold=0.8)
    ours = panoptic_segmentation(scene.class_logits, scene.mask_logits, SIZE, IS_THING, thresholds)
    np.testing.assert_array_equal(ours.ids, theirs["segmentation"])
    merged: dict[int, dict[str, Any]] = {}  # they list the queries of a merged segment one by one
    for segment in theirs["segments_info"]:
        known = merged.setdefault(segment["id"], segment)
        known["score"] = max(known["score"], segment["score"])
    assert [(s.id, s.category) for s in ours.segments] == [(s["id"], s["label_id"]) for s in merged.values()]
    np.testing.assert_allclose([s.score for s in ours.segments], [s["score"] for s in merged.values()], atol=1e-4)


@pytest.mark.parametrize("scene", SCENES)
def test_instances_agree(scene: Scene, folder: Path) -> None:
    processor = OneFormerImageProcessorPil.from_pretrained(folder)
    (theirs,) = processor.post_process_instance_segmentation(scene.outputs, task_type="panoptic")
    thresholds = Thresholds(test_topk_per_image=len(scene.class_logits))
    found = instance_segmentation(scene.class_logits, scene.mask_logits, SIZE, IS_THING, thresholds)
    ours = [instance for instance in found if instance.score > 0.5]
    expected = sorted(theirs["segments_info"], key=lambda segment: -segment["score"])
    assert len(expected) > 0
    assert [instance.category for instance in ours] == [segment["label_id"] for segment in expected]
    np.testing.assert_allclose([i.score for i in ours], [segment["score"] for segment in expected], atol=1e-4)
    # Pixels of stuff belong to nobody here and to some instance there.
    segmentation = np.asarray(theirs["segmentation"])
    masks = [coco_mask.decode(instance.mask).astype(bool) for instance in ours]
    covered = np.any(masks, axis=0)
    for mask, segment in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask[covered], segmentation[covered] == segment["id"])


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("backbone", {"ape": True}, "backbone.ape"),
        ("backbone", {"patch_norm": False}, "backbone.patch_norm off"),
        ("backbone", {"qk_scale": 0.1}, "backbone.qk_scale"),
        ("pixel_decoder", {"num_points": 8}, "pixel_decoder.num_points other than 4"),
        ("pixel_decoder", {"num_heads": 4}, "pixel_decoder.num_heads other than transformer.num_heads"),
        ("pixel_decoder", {"conv_dim": 96, "mask_dim": 96}, "pixel_decoder.conv_dim other than transformer.hidden_dim"),
        ("pixel_decoder", {"mask_dim": 96}, "pixel_decoder.mask_dim other than conv_dim"),
        ("transformer", {"enforce_input_proj": True}, "transformer.enforce_input_proj"),
        ("transformer", {"enc_layers": 1}, "transformer.enc_layers"),
    ],
)
def test_what_hugging_face_cannot_hold_is_refused_before_anything_is_written(
    part: str, changes: dict[str, Any], message: str, params: dict[str, Any], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, **{part: dataclasses.replace(getattr(CONFIG, part), **changes)})
    with pytest.raises(CheckpointError, match=f"cannot hold this model: {message}"):
        write_huggingface(tmp_path / "model", params, config, **KINDS)
    assert not (tmp_path / "model").exists()


def test_all_obstacles_are_named_at_once(params: dict[str, Any], tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, task_pad_id=5, num_classes=6)
    inference = {part: x for part, x in params.items() if part not in ("task_mlp", "text_encoder")}
    message = r"task_pad_id 5 .*; no task_mlp; no text_encoder; 5 categories for 6 classes"
    with pytest.raises(CheckpointError, match=message):
        write_huggingface(tmp_path / "model", inference, config, **KINDS, training=True)


def test_a_text_encoder_without_heads_is_refused(params: dict[str, Any], tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, text_encoder=dataclasses.replace(CONFIG.text_encoder, width=32))
    with pytest.raises(CheckpointError, match=r"cannot hold this model: text_encoder\.width below 64"):
        write_huggingface(tmp_path / "model", params, config, **KINDS, training=True)


def test_a_folder_in_use_is_left_alone(params: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="the folder is not empty"):
        write_huggingface(tmp_path, params, CONFIG, **KINDS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(OneFormerError, match="cannot be written: Not a directory"):
        write_huggingface(tmp_path / "notes.txt" / "model", params, CONFIG, **KINDS)
