"""Hugging Face's side of the comparisons: `transformers` in PyTorch, eager on a CPU, compiled on a GPU.

`export_weights` carries its random weights over to this project. Nothing here imports JAX before that is called.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.oneformer.modeling_oneformer import multi_scale_deformable_attention

from benchmarks.machine import cores, peak_memory_mib
from benchmarks.workload import (
    BACKBONES,
    CLASSES,
    DROP_PATH,
    LEARNING_RATE,
    MAX_NORM,
    SEGMENTS,
    WEIGHT_DECAY,
    AttentionWorkload,
    Workload,
)


def build(workload: Workload) -> Any:
    """The model with random weights, the same in every process."""
    swin: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"], "drop_path_rate": DROP_PATH}
    swin_config = transformers.SwinConfig(**BACKBONES[workload.backbone] | swin)
    options: dict[str, Any] = {"num_labels": CLASSES, "is_training": workload.training}
    torch.manual_seed(0)
    model = transformers.OneFormerForUniversalSegmentation(
        transformers.OneFormerConfig(backbone_config=swin_config, **options)
    )
    # From zero weights all queries would sample the same regular pattern, which no trained model does.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "sampling_offsets.weight" in name or "attention_weights.weight" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.train(workload.training)


def export_weights(workload: Workload, path: Path) -> None:
    """Writes the weights as this project's parameters: a safetensors file by slash-joined names."""
    from flax.traverse_util import flatten_dict
    from safetensors.numpy import save_file

    from benchmarks.this_project import model_config
    from converters.names.huggingface import published_names, rules_with
    from converters.rules import carry_over
    from oneformer_jax.models.oneformer import TRAINING_ONLY, shapes

    state = {name: array.numpy() for name, array in build(workload).state_dict().items()}
    params, _ = carry_over(published_names(state), rules_with("swin")).fit(
        shapes(model_config(workload)), optional=TRAINING_ONLY
    )
    save_file({"/".join(keys): np.ascontiguousarray(array) for keys, array in flatten_dict(params).items()}, path)


class HuggingFace:
    """What all sides of this side share."""

    def __init__(self, device: str, precision: str = "32") -> None:
        torch.set_num_threads(cores())
        torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as in XLA
        self._device = torch.device("cuda" if device == "gpu" else "cpu")
        self._halves = partial(torch.autocast, self._device.type, torch.bfloat16, enabled=precision == "bf16")

    def _model(self, workload: Workload) -> Any:
        model = build(workload).to(self._device)
        if workload.device == "gpu":
            model.model = torch.compile(model.model)  # the network; matching and losses leave the graph anyway
        return model

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def _finish(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def memory(self) -> float:
        """Peak in MiB: of the process, on a GPU that of the device."""
        on_gpu = self._device.type == "cuda"
        return torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_memory_mib()


class Inference(HuggingFace):
    """Pixel values and task tokens -> class and mask logits."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload.device, workload.precision)
        self._network = self._model(workload)
        self._inputs = self._tensor(workload.images).permute(0, 3, 1, 2).contiguous(), self._tensor(workload.task)

    @torch.inference_mode()
    def _forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        with self._halves():
            outputs = self._network(*self._inputs)
        return outputs.class_queries_logits, outputs.masks_queries_logits

    def run(self) -> None:
        self._forward()
        self._finish()

    def outputs(self) -> list[np.ndarray]:
        return [x.float().cpu().numpy() for x in self._forward()]


class Training(HuggingFace):
    """The model's own loss, its gradients, clipping, AdamW."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload.device, workload.precision)
        self._network = self._model(workload)
        table = np.zeros((len(workload.prompt_table), 77), np.int64)
        table[:, : workload.prompt_table.shape[1]] = workload.prompt_table
        masks = (workload.segments[:, None] == np.arange(SEGMENTS)[None, :, None, None]).astype(np.float32)
        self._inputs = {
            "pixel_values": self._tensor(workload.images).permute(0, 3, 1, 2).contiguous(),
            "task_inputs": self._tensor(workload.task),
            "text_inputs": self._tensor(table[workload.prompts]),
            "mask_labels": list(self._tensor(masks)),
            "class_labels": list(self._tensor(workload.segment_class.astype(np.int64))),
        }
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._loss = torch.zeros(())

    def run(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        with self._halves():
            loss = self._network(**self._inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), MAX_NORM)
        self._optimizer.step()
        self._loss = loss.detach()
        self._finish()

    def loss(self) -> float:
        """Of the last step."""
        return float(self._loss)


class Attention(HuggingFace):
    """The deformable attention of `transformers` between its projections: sums, and gradients of all three inputs."""

    def __init__(self, workload: AttentionWorkload) -> None:
        super().__init__(workload.device)
        *inputs, cotangent = (self._tensor(x) for x in workload.arrays())
        self._inputs, self._cotangent = [x.requires_grad_() for x in inputs], cotangent
        self._shapes = list(workload.shapes)

    def _both(self) -> list[torch.Tensor]:
        value, locations, weights = self._inputs
        sums = multi_scale_deformable_attention(value, self._shapes, locations, weights)
        return [sums.detach(), *torch.autograd.grad(sums, self._inputs, self._cotangent)]

    def run(self) -> None:
        self._both()
        self._finish()

    def outputs(self) -> list[np.ndarray]:
        return [x.cpu().numpy() for x in self._both()]
