"""The section `train`: length, devices, optimizer, schedule, clipping, checkpoints."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from oneformer_jax.app.spec.field import SearchRange, Section, key, section

ClipType = Literal["full_model", "value"]


class Optim(Section):
    """`train.optim`"""

    type: Literal["AdamW"] = key("AdamW", "", "The optimizer.", tao="SGD is taken too")
    monitor_name: Literal["val_loss", "train_loss"] = key(
        "train_loss",
        "monitor_name",
        "Quantity an automatic schedule would watch.",
        only=("train_loss",),
        note="no schedule watches a metric: both follow the iteration",
        tao="ignored",
    )
    lr: float = key(
        1e-5,
        "learning rate",
        "Peak learning rate of everything but the backbone.",
        minimum=0.0,
        maximum=1.0,
        math_cond="> 0.0",
        automl=True,
        search=SearchRange(1e-6, 1e-2, log=True),
    )
    backbone_multiplier: float = key(
        0.1,
        "backbone learning rate multiplier",
        "Learning rate of the backbone as a share of lr.",
        minimum=0.0,
        maximum=1.0,
        math_cond="> 0.0",
        automl=True,
        search=SearchRange(0.01, 1.0, log=True),
        popular=True,
    )
    query_multiplier: NonNegativeFloat = key(
        1.0,
        "query learning rate multiplier",
        "Learning rate of the query embeddings as a multiple of lr.",
        extension=True,
        tao="2 is meant, 1 is what happens",
    )
    momentum: float = key(
        0.9,
        "momentum - AdamW",
        "First moment decay (beta 1) of AdamW.",
        minimum=0.0,
        maximum=1.0,
        math_cond="> 0.0",
        automl=True,
        search=SearchRange(0.8, 0.99),
        popular=True,
        tao="ignored",
    )
    weight_decay: float = key(
        0.05,
        "weight decay",
        "Decoupled weight decay; normalisation and embedding weights have none.",
        minimum=0.0,
        maximum=1.0,
        math_cond="> 0.0",
        automl=True,
        search=SearchRange(1e-4, 0.5, log=True),
        popular=True,
    )
    lr_scheduler: Literal["MultiStep", "Warmuppoly"] = key(
        "Warmuppoly",
        "learning rate scheduler",
        "Polynomial decay after a warmup, or steps by a factor. Any case.",
        tao="ignored: the learning rate is constant",
    )
    milestones: tuple[NonNegativeInt, ...] = key(
        (88, 96),
        "learning rate decay epochs.",
        "Epochs at which MultiStep decays. Counts only when changed; see steps.",
        tao="ignored",
    )
    gamma: float = key(0.1, "gamma", "Factor of each decay of MultiStep.", math_cond="> 0.0", tao="ignored")
    warmup_iters: NonNegativeInt = key(1000, "warmup iters", "Iterations of linear warmup.", tao="ignored")
    warmup_factor: NonNegativeFloat = key(
        0.001, "warmup factor", "Share of the learning rate at the first iteration.", tao="ignored"
    )
    max_iter: PositiveInt = key(
        368750, "max iter", "Upper limit of training iterations, whatever num_epochs says.", tao="ignored"
    )
    steps: tuple[NonNegativeInt, ...] = key(
        (327778, 355092),
        "learning rate decay epochs.",
        "Iterations at which MultiStep decays, unless milestones is changed.",
        tao="ignored",
    )

    def decay_steps(self, steps_per_epoch: int) -> tuple[int, ...]:
        """The iterations at which MultiStep decays: `steps`, unless `milestones` differs from its default.

        Both changed is a contradiction which loading refuses.
        """
        if self.milestones != type(self).model_fields["milestones"].default:
            return tuple(epoch * steps_per_epoch for epoch in self.milestones)
        return self.steps


class ClipGradients(Section):
    """`train.clip_gradients`"""

    enabled: bool = key(True, "enable clip gradient", "Clip gradients.", tao="ignored: nothing is clipped")
    clip_type: str = key(
        "full_model",
        "clip gradient type",
        "Clip the norm over all parameters, or each value.",
        only=("full_model", "value"),
        tao="ignored",
    )
    clip_value: PositiveFloat = key(1.0, "clip gradient value", "Largest norm of the gradient.", tao="ignored")
    norm_type: PositiveFloat = key(2.0, "clip gradient norm type", "Order of the norm.", tao="ignored")


class Cudnn(Section):
    """`train.cudnn`"""

    benchmark: bool = key(
        False,
        "",
        "Search for the fastest convolution kernels.",
        honoured=False,
        note="XLA picks the kernels itself",
    )
    deterministic: bool = key(
        True,
        "",
        "Use deterministic kernels only.",
        honoured=False,
        note="set XLA_FLAGS=--xla_gpu_deterministic_ops=true for deterministic GPU kernels",
    )


@dataclass(frozen=True)
class GradientClip:
    """`full_model`: all gradients are scaled so that their norm of order `norm_type` is at most `max_norm`; `value`:
    each entry is cut to [-max_norm, max_norm]."""

    max_norm: float
    norm_type: float = 2.0
    clip_type: ClipType = "full_model"


class Train(Section):
    """`train`"""

    num_gpus: PositiveInt = key(
        1,
        "number of gpus",
        "Devices to train on: the first ones, unless gpu_ids is changed; at most those that there are.",
        published=8,
        tao="1 when the spec leaves it out, whatever the schema says",
    )
    gpu_ids: tuple[NonNegativeInt, ...] = key(
        (0,),
        "GPU IDs",
        "Indices of the devices among the visible ones. Counts only when changed; num_gpus must then agree or be 1.",
        popular=True,
        tao="with num_gpus the larger count wins",
    )
    num_nodes: PositiveInt = key(
        1,
        "number of nodes",
        "Hosts to train on. Counts only when changed: the environment must then name as many (docs/multi-host.md).",
        tao="taken from the environment, and only where the file has the key",
    )
    seed: NonNegativeInt = key(123, "seed", "Seed of every random draw.")
    cudnn: Cudnn = section(Cudnn, "Kernel selection on NVIDIA GPUs.")
    num_epochs: PositiveInt = key(50, "number of epochs", "Passes over the training data.")
    checkpoint_interval: PositiveInt = key(
        1,
        "checkpoint interval",
        "Distance between checkpoints, in checkpoint_interval_unit.",
    )
    checkpoint_interval_unit: Literal["epoch", "step"] = key(
        "epoch",
        "Checkpoint interval unit",
        "Unit of checkpoint_interval.",
    )
    checkpoint_keep: NonNegativeInt = key(
        3,
        "checkpoints kept",
        "Newest checkpoints kept beside the best one; 0 keeps all.",
        extension=True,
    )
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = key(
        0.0,
        "moving average",
        "Decay of a moving average of the parameters, which is validated, evaluated, exported and converted in their "
        "place; 0: none.",
        extension=True,
    )
    profile_steps: NonNegativeInt = key(
        0,
        "profiled steps",
        "Steps of which JAX's profiler writes a trace to <results_dir>/train/profile, after the first three.",
        extension=True,
    )
    validation_interval: PositiveInt = key(1, "validation interval", "Epochs between validations.")
    val_check_interval: Annotated[float, Field(gt=0.0, le=1.0)] = key(
        1.0,
        "validation check interval",
        "Below 1: validate after this share of an epoch, in place of validation_interval.",
        extension=True,
        tao="read, but not in the schema",
    )
    monitor: str = key(
        "",
        "monitor",
        "Score that decides which checkpoint is the best; empty: mIoU, AP or PQ, by the first task that is validated.",
        extension=True,
    )
    resume_training_checkpoint_path: str = key("", "", "Checkpoint to continue from.")
    results_dir: str = key("", "Results directory", "Folder of this action; empty: <results_dir>/train.")
    freeze: tuple[str, ...] = key(
        (),
        "freeze",
        "Parts of the model that are not trained, by TAO's dotted names or ours: backbone, sem_seg_head.pixel_decoder. "
        "They run without dropout and have no optimizer state.",
        tao="a name that matches nothing only warns",
    )
    pretrained_model: str = key(
        "",
        "",
        "Weights that start the training: a checkpoint of ours, or any that `cli.py convert` reads.",
        tao="crashes",
    )
    clip_grad_norm: NonNegativeFloat = key(
        0.1,
        "clip gradient norm",
        "Largest gradient norm, 0: no clipping. Counts only when changed; see clip_gradients.",
        math_cond="> 0.0",
        tao="ignored",
    )
    clip_grad_norm_type: PositiveFloat = key(
        2.0,
        "clip gradient norm type",
        "Order of the norm for clip_grad_norm.",
        extension=True,
        tao="in the code, not in the schema; ignored",
    )
    clip_grad_type: str = key(
        "full",
        "clip gradient type",
        "What clip_grad_norm is taken over: all parameters together.",
        only=("full",),
        tao="ignored",
    )
    is_dry_run: bool = key(
        False,
        "Is dry run",
        "Check spec and data with one step and one validation batch; no checkpoint is written.",
        tao="ignored",
    )
    optim: Optim = section(Optim, "Optimizer and learning rate schedule.", "optimizer")
    precision: Literal["32", "16-mixed", "bf16-mixed"] = key(
        "32",
        "precision",
        "Number format of the products in training; parameters, sums, losses and all of an evaluation are float32.",
        enum=("fp16", "fp32"),
        aliases=(("fp32", "32"), ("32-true", "32"), ("16", "16-mixed"), ("fp16", "16-mixed"), ("bf16", "bf16-mixed")),
        published="fp32",
        template="32",
        tao="fp32, the schema's default, crashes",
    )
    distributed_strategy: Literal["ddp", "fsdp"] = key(
        "ddp",
        "distributed_strategy",
        "Parameters and optimizer state: whole on every device (ddp), or split over all of them (fsdp).",
        tao="always ddp",
    )
    verbose: bool = key(
        False,
        "enable verbose logs",
        "Print learning rate and weight decay of every part of the model.",
        tao="ignored",
    )
    accumulate_grad_batches: PositiveInt = key(
        1,
        "accumulate grad batches",
        "Batches whose gradients make one iteration, normalised as one large batch. The contrastive loss compares the "
        "images of each batch alone.",
        tao="ignored",
    )
    pretrained_backbone: str = key(
        "",
        "",
        "Weights that start the backbone: an ImageNet Swin, or any model that train.pretrained_model takes.",
    )
    iters_per_epoch: PositiveInt | None = key(
        None,
        "iteration per epoch",
        "Iterations of an epoch; unset or -1: the length of the training data.",
        tao="ignored",
    )
    clip_gradients: ClipGradients = section(ClipGradients, "Gradient clipping.", "clip gradients")

    @field_validator("iters_per_epoch", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return None if value == -1 else value

    def gradient_clip(self) -> GradientClip | None:
        """The clipping that both groups of keys ask for; None: no clipping.

        `clip_gradients` decides (norm 1.0 by default) unless `clip_grad_norm` differs from its default: then that one
        does, and 0 switches clipping off. Both changed is a contradiction which loading refuses.
        """
        if self.clips_by_grad_norm:
            return GradientClip(self.clip_grad_norm, self.clip_grad_norm_type) if self.clip_grad_norm > 0 else None
        clip = self.clip_gradients
        kind: ClipType = "value" if clip.clip_type == "value" else "full_model"
        return GradientClip(clip.clip_value, clip.norm_type, kind) if clip.enabled else None

    @property
    def clips_by_grad_norm(self) -> bool:
        """Whether `clip_grad_norm` was changed and so decides."""
        return bool(self.clip_grad_norm != type(self).model_fields["clip_grad_norm"].default)
