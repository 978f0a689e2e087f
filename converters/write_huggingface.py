"""Parameters written as a folder that Hugging Face's transformers loads.

    model = OneFormerForUniversalSegmentation.from_pretrained(folder)
    images = OneFormerImageProcessor.from_pretrained(folder)

CLIP's vocabulary is not written, so a whole `OneFormerProcessor` needs `CLIPTokenizer.from_pretrained(
"openai/clip-vit-base-patch32")` beside the image processor. The image processor finds the names of the classes by the
absolute path of the folder: after a move, load it with `repo_path=` the new one.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from converters.files.read import CLASS_INFO
from converters.huggingface_config import model_json
from converters.names.huggingface import rules_with
from converters.rules import Params, from_params
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.errors import CheckpointError
from oneformer_jax.losses.matching import CriterionConfig
from oneformer_jax.models.backbones import DinatConfig, SwinConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import PARTS, TEMPERATURE, TRAINING_ONLY
from oneformer_jax.writing import new_folder, write_json

_LAYER_NORM = "model.pixel_level_module.encoder.swin.layernorm"


def write_huggingface(
    folder: Path,
    params: Params,
    config: OneFormerConfig,
    *,
    categories: Categories,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
    image_size: tuple[int, int] = (800, 1333),
    training: bool = False,
) -> list[str]:
    """Writes config.json, model.safetensors, preprocessor_config.json, processor_config.json and class_info.json.

    Returns a line about each layer that was adapted to what Hugging Face's processor writes.

    Args:
        folder: a new or empty folder.
        params: float32 parameters of `config`.
        categories: the classes in order; class_info.json holds all of them, so that it converts back.
        pixel_mean, pixel_std: of R, G, B on 0..255.
        image_size: shortest and longest edge of the images that the processor makes.
        training: with the text encoder, for training on; the model then demands texts with every image.

    Raises CheckpointError naming every setting that Hugging Face's model cannot hold, before anything is written, and
    when the folder is not empty; OneFormerError when it cannot be written: it then holds nothing.
    """
    problems = obstacles(config)
    if training and config.text_encoder.width < 64:
        problems.append("text_encoder.width below 64 (one attention head)")
    needed = [part for part in PARTS if part != "prompt_ctx" or config.text_encoder.n_ctx]
    problems += [f"no {part}" for part in needed if part not in params and (training or part not in TRAINING_ONLY)]
    if len(categories) != config.num_classes:
        problems.append(f"{len(categories)} categories for {config.num_classes} classes")
    if problems:
        raise CheckpointError("Hugging Face's OneFormer cannot hold this model: " + "; ".join(problems))

    statistics = {name: [x / 255 for x in xs] for name, xs in (("image_mean", pixel_mean), ("image_std", pixel_std))}
    images = {
        "image_processor_type": "OneFormerImageProcessor",
        "processor_class": "OneFormerProcessor",
        "repo_path": str(folder.resolve()),
        "class_info_file": CLASS_INFO,
        "num_text": config.transformer.num_queries - config.text_encoder.n_ctx,
        "num_labels": config.num_classes,
        "ignore_index": 255,
        "size": dict(zip(("shortest_edge", "longest_edge"), image_size, strict=True)),
        **statistics,
    }
    texts = {
        "processor_class": "OneFormerProcessor",
        "max_seq_length": config.text_encoder.context_length,
        "task_seq_length": config.task_seq_len,
    }
    adapted = []
    if config.task_pad_id:
        params = pad_with_zeros(params, config)
        adapted.append(
            f"adapted: task_mlp/layer_0 expects task texts padded with 0, as Hugging Face pads them: what padding with "
            f"{config.task_pad_id} added is now in its bias"
        )
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError("the folder is not empty", where=str(folder), hint="give a new one")
    with new_folder(folder) as fresh:
        write_safetensors(fresh / "model.safetensors", _state(params, config, training))
        write_json(fresh / "config.json", model_json(config, categories.names, training=training))
        write_json(fresh / CLASS_INFO, {str(i): entry for i, entry in enumerate(categories.to_json())})
        write_json(fresh / "preprocessor_config.json", images)
        write_json(fresh / "processor_config.json", texts)
    return adapted


def obstacles(config: OneFormerConfig) -> list[str]:
    """Settings that Hugging Face's model cannot hold, by their names; empty where all is well."""
    backbone, pixel, transformer = config.backbone, config.pixel_decoder, config.transformer
    refused: dict[str, bool]
    if isinstance(backbone, SwinConfig):
        refused = {
            "backbone.ape (its embedding fits one image size only)": backbone.ape,
            "backbone.patch_norm off": not backbone.patch_norm,
            "backbone.qk_scale": backbone.qk_scale is not None,
        }
    elif isinstance(backbone, DinatConfig):
        is_another = backbone.attention != "shifted_with_bias"
        refused = {f"backbone.attention {backbone.attention} (its own is shifted_with_bias)": is_another}
    else:
        return [f"the backbone is a {type(backbone).__name__}, neither a Swin transformer nor a DiNAT"]
    refused |= {
        "pixel_decoder.num_points other than 4": pixel.num_points != 4,
        "pixel_decoder.num_heads other than transformer.num_heads": pixel.num_heads != transformer.num_heads,
        "pixel_decoder.conv_dim other than transformer.hidden_dim": pixel.conv_dim != transformer.hidden_dim,
        "pixel_decoder.mask_dim other than conv_dim": pixel.mask_dim != pixel.conv_dim,
        "transformer.enforce_input_proj": transformer.enforce_input_proj,
        "transformer.enc_layers": transformer.enc_layers > 0,
        f"task_pad_id {config.task_pad_id} (its processor pads with 0)": not _padding_is_constant(config),
    }
    return [name for name, applies in refused.items() if applies]


def pad_with_zeros(params: Params, config: OneFormerConfig) -> Params:
    """Parameters that compute from task texts padded with 0 what `params` compute from those of `config`.

    At every place where these texts differ all tasks have the same id: TAO pads with the end token, so the longer
    texts end with what pads the shorter. What that id adds to the first layer of the task MLP is therefore a constant.
    It joins the bias, and the kernel's rows there become 0, for the end token remains in the longer texts.
    """
    texts, differ = _task_texts(config)
    layer = params["task_mlp"]["layer_0"]
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    constant = texts[0, differ].astype(np.float64) @ kernel[differ].astype(np.float64)
    adapted = {
        "kernel": np.where(differ[:, None], np.float32(0), kernel),
        "bias": (bias + constant).astype(np.float32),
    }
    return params | {"task_mlp": params["task_mlp"] | {"layer_0": adapted}}


def _padding_is_constant(config: OneFormerConfig) -> bool:
    """Whether all tasks have the same id wherever texts padded with 0 differ from those of `config`."""
    if config.task_pad_id == 0:
        return True
    texts, differ = _task_texts(config)
    return bool((texts == texts[0])[:, differ].all())


def _task_texts(config: OneFormerConfig) -> tuple[Int32[np.ndarray, "3 t"], Bool[np.ndarray, " t"]]:
    """The ids of all tasks as the weights know them, and where Hugging Face's differ for any of them."""
    own, padded_with_0 = (task_tokens(pad_id, config.task_seq_len) for pad_id in (config.task_pad_id, 0))
    return own, (own != padded_with_0).any(axis=0)


def _state(params: Params, config: OneFormerConfig, training: bool) -> dict[str, np.ndarray]:
    """The published names, with what Hugging Face stores besides parameters."""
    kept = {
        part: tree for part, tree in params.items() if training or part not in TRAINING_ONLY or part == "logit_scale"
    }
    kept.setdefault("logit_scale", np.float32(math.log(1 / TEMPERATURE)))
    class_weights = np.ones(config.num_classes + 1, np.float32)
    class_weights[-1] = CriterionConfig.no_object_weight
    rules = rules_with("swin" if isinstance(config.backbone, SwinConfig) else "dinat")
    published = {name: array.astype(np.float32, copy=False) for name, array in from_params(kept, rules).items()}
    published["criterion.empty_weight"] = class_weights
    if isinstance(config.backbone, SwinConfig):
        # Of the classifier that Swin once was; version 5 has it and never uses it.
        width = config.backbone.embed_dim * 8
        published[f"{_LAYER_NORM}.weight"] = np.ones(width, np.float32)
        published[f"{_LAYER_NORM}.bias"] = np.zeros(width, np.float32)
    return published


def write_safetensors(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes float32 arrays one after the other, so that no more than one is copied at a time.

    The format: length of the header (little-endian, 8 bytes), header (JSON), arrays
    (https://huggingface.co/docs/safetensors).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in state.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for array in state.values():
            file.write(np.ascontiguousarray(array).data)  # not tofile, whose errors do not say what is wrong
