"""The section `train`: length, devices, optimizer, schedule, clipping, checkpoints."""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from oneformer_jax.app.spec.field import SearchRange, Section, device_indices, key, location_key, own_key, section

Precision = Literal["32", "16-mixed", "bf16-mixed"]
PRECISION_ALIASES = (
    *(("fp32", "32"), ("32-true", "32")),
    *(("16", "16-mixed"), ("fp16", "16-mixed"), ("bf16", "bf16-mixed")),
)

_share = partial(key, minimum=0.0, maximum=1.0, math_cond="> 0.0", automl=True)


class Optim(Section):
    """`train.optim`"""

    type: Literal["AdamW", "Muon"] = key(
        "AdamW",
        "",
        "The optimizer. Muon orthogonalises the updates of matrices and convolutions, and leaves all else to AdamW.",
        enum=("AdamW",),
        tao="SGD is accepted too, and Muon is not",
    )
    muon_rms: PositiveFloat = own_key(
        1.6,
        "muon rms",
        "Root mean square of Muon's updates as a multiple of lr; AdamW's is about 0.2.",
        search=SearchRange(0.2, 4.0, log=True),
    )
    monitor_name: Literal["val_loss", "train_loss"] = key(
        "train_loss",
        "monitor_name",
        "Metric that an adaptive schedule would monitor.",
        only=("train_loss",),
        note="neither schedule monitors a metric: both depend on the iteration alone",
        tao="ignored",
    )
    lr: float = _share(
        1e-5,
        "learning rate",
        "Peak learning rate of all parameters except the backbone's.",
        search=SearchRange(1e-6, 1e-2, log=True),
    )
    backbone_multiplier: float = _share(
        0.1,
        "backbone learning rate multiplier",
        "Learning rate of the backbone as a share of lr.",
        search=SearchRange(0.01, 1.0, log=True),
        popular=True,
    )
    query_multiplier: NonNegativeFloat = own_key(
        1.0,
        "query learning rate multiplier",
        "Learning rate of the query embeddings as a multiple of lr.",
        tao="meant to be 2, but is effectively 1",
    )
    momentum: float = _share(
        0.9,
        "momentum - AdamW",
        "Decay rate of AdamW's first moment (beta 1).",
        search=SearchRange(0.8, 0.99),
        popular=True,
        tao="ignored",
    )
    weight_decay: float = _share(
        0.05,
        "weight decay",
        "Decoupled weight decay; not applied to normalisation and embedding weights.",
        search=SearchRange(1e-4, 0.5, log=True),
        popular=True,
    )
    lr_scheduler: Literal["MultiStep", "Warmuppoly"] = key(
        "Warmuppoly",
        "learning rate scheduler",
        "Warmuppoly: polynomial decay after a linear warmup; MultiStep: decay by a factor at given steps. Upper "
        "or lower case.",
        tao="ignored: the learning rate is constant",
    )
    milestones: tuple[NonNegativeInt, ...] = key(
        (88, 96),
        "learning rate decay epochs.",
        "Epochs at which MultiStep decays. Takes effect only when changed; see steps.",
        tao="ignored",
    )
    gamma: float = key(
        0.1,
        "gamma",
        "Factor by which MultiStep multiplies the learning rate at each decay.",
        math_cond="> 0.0",
        tao="ignored",
    )
    warmup_iters: NonNegativeInt = key(1000, "warmup iters", "Number of iterations of linear warmup.", tao="ignored")
    warmup_factor: NonNegativeFloat = key(
        0.001, "warmup factor", "Learning rate at the first iteration as a share of its peak.", tao="ignored"
    )
    max_iter: PositiveInt = key(
        368750, "max iter", "Upper limit on the number of training iterations, regardless of num_epochs.", tao="ignored"
    )
    steps: tuple[NonNegativeInt, ...] = key(
        (327778, 355092),
        "learning rate decay epochs.",
        "Iterations at which MultiStep decays, unless milestones is changed.",
        tao="ignored",
    )


class ClipGradients(Section):
    """`train.clip_gradients`"""

    enabled: bool = key(True, "enable clip gradient", "Clip gradients.", tao="ignored: nothing is clipped")
    clip_type: str = key(
        "full_model",
        "clip gradient type",
        "full_model: clip the norm over all parameters; value: clip each entry of the gradient.",
        only=("full_model", "value"),
        tao="ignored",
    )
    clip_value: PositiveFloat = key(
        1.0,
        "clip gradient value",
        "Largest norm of the gradient, or with clip_type value the largest magnitude of an entry.",
        tao="ignored",
    )
    norm_type: PositiveFloat = key(2.0, "clip gradient norm type", "Order of the norm.", tao="ignored")


class Cudnn(Section):
    """`train.cudnn`"""

    benchmark: bool = key(
        False,
        "",
        "Search for the fastest convolution kernels.",
        honoured=False,
        note="XLA chooses the kernels itself",
    )
    deterministic: bool = key(
        True,
        "",
        "Use deterministic kernels only.",
        honoured=False,
        note="set XLA_FLAGS=--xla_gpu_deterministic_ops=true for deterministic GPU kernels",
    )


class Train(Section):
    """`train`"""

    num_gpus: PositiveInt = key(
        1,
        "number of gpus",
        "Number of devices to train on, at most as many as are available: the first ones unless gpu_ids is changed.",
        published=8,
        tao="1 if the spec leaves it out, regardless of the schema",
    )
    gpu_ids: tuple[NonNegativeInt, ...] = device_indices(tao="the larger of num_gpus and the number of gpu_ids is used")
    num_nodes: PositiveInt = key(
        1,
        "number of nodes",
        "Number of hosts to train on. Takes effect only when changed: the environment must then name as many "
        "hosts (docs/multi-host.md).",
        tao="taken from the environment, and only if the file contains the key",
    )
    seed: NonNegativeInt = key(123, "seed", "Seed of all random draws.")
    cudnn: Cudnn = section(Cudnn, "Kernel selection on NVIDIA GPUs.")
    num_epochs: PositiveInt = key(50, "number of epochs", "Number of passes over the training data.")
    checkpoint_interval: PositiveInt = key(
        1,
        "checkpoint interval",
        "Interval between checkpoints, in units of checkpoint_interval_unit.",
    )
    checkpoint_interval_unit: Literal["epoch", "step"] = key(
        "epoch",
        "Checkpoint interval unit",
        "Unit of checkpoint_interval.",
    )
    checkpoint_keep: NonNegativeInt = own_key(
        3, "checkpoints kept", "Number of newest checkpoints to keep in addition to the best one; 0 keeps all."
    )
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = own_key(
        0.0,
        "moving average",
        "Decay of an exponential moving average of the parameters, which replaces them in validation, evaluation,"
        " export and conversion; 0: no average.",
    )
    profile_steps: NonNegativeInt = own_key(
        0,
        "profiled steps",
        "Number of steps that JAX's profiler traces to <results_dir>/train/profile, beginning after the third step.",
    )
    validation_interval: PositiveInt = key(1, "validation interval", "Number of epochs between validations.")
    val_check_interval: Annotated[float, Field(gt=0.0, le=1.0)] = own_key(
        1.0,
        "validation check interval",
        "If below 1: validate after this share of an epoch, instead of at validation_interval.",
        tao="read, but not in the schema",
    )
    monitor: str = own_key(
        "",
        "monitor",
        "Score by which the best checkpoint is chosen; empty: mIoU, AP or PQ, that of the first validated "
        "task that the data defines. A score that the data never defines is refused.",
    )
    early_stopping: PositiveInt | None = own_key(
        None,
        "early stopping",
        "Validations in a row without a better score (train.monitor) after which the training ends; unset: never.",
    )
    resume_training_checkpoint_path: str = location_key("", "", "Checkpoint to continue from.")
    results_dir: str = location_key(
        "", "Results directory", "Folder for the results of this action; empty: <results_dir>/train."
    )
    freeze: tuple[str, ...] = key(
        (),
        "freeze",
        "Parts of the model that are not trained, by TAO's dotted names or this project's, such as backbone or "
        "sem_seg_head.pixel_decoder. They run without dropout and have no optimizer state.",
        tao="a name that matches nothing only causes a warning",
    )
    pretrained_model: str = location_key(
        "",
        "",
        "Weights to start the training from: a checkpoint of this project, or any weights that the action convert"
        " reads.",
        tao="crashes",
    )
    clip_grad_norm: NonNegativeFloat = key(
        0.1,
        "clip gradient norm",
        "Largest gradient norm; 0: no clipping. Takes effect only when changed, and then replaces clip_gradients.",
        math_cond="> 0.0",
        tao="ignored",
    )
    clip_grad_norm_type: PositiveFloat = own_key(
        2.0,
        "clip gradient norm type",
        "Order of the norm that clip_grad_norm limits.",
        tao="in the code, not in the schema; ignored",
    )
    clip_grad_type: str = key(
        "full",
        "clip gradient type",
        "What clip_grad_norm is computed over: all parameters together.",
        only=("full",),
        tao="ignored",
    )
    is_dry_run: bool = key(
        False,
        "Is dry run",
        "Check spec and data by running one step and one validation batch; no checkpoint is written.",
        tao="ignored",
    )
    optim: Optim = section(Optim, "Optimizer and learning rate schedule.", "optimizer")
    precision: Precision = key(
        "32",
        "precision",
        "Number format of matrix products and convolutions in training; parameters, sums, losses and all of "
        "validation are float32.",
        enum=("fp16", "fp32"),
        aliases=PRECISION_ALIASES,
        published="fp32",
        template="32",
        tao="fp32, the schema's default, crashes",
    )
    remat: Literal["auto", "none", "light", "dots", "blocks"] = own_key(
        "auto",
        "recomputation",
        "What each block keeps for the backward pass, which computes the rest once more. none: everything; light: what "
        "products return, and in the backbone what they multiply; dots: what products return; blocks: what enters the "
        "block. auto: light on GPUs, none on CPU.",
    )
    distributed_strategy: Literal["ddp", "fsdp", "hsdp"] = key(
        "ddp",
        "distributed_strategy",
        "ddp: every device holds all parameters and optimizer state; fsdp: both are sharded over the devices; hsdp: "
        "over those of a host, the same on every host.",
        enum=("ddp", "fsdp"),
        tao="always ddp",
    )
    verbose: bool = key(
        False,
        "enable verbose logs",
        "Print the learning rate and weight decay of every part of the model.",
        tao="ignored",
    )
    accumulate_grad_batches: PositiveInt = key(
        1,
        "accumulate grad batches",
        "Number of batches whose gradients are accumulated for one iteration and normalised as one large batch. "
        "The contrastive loss compares images only within each batch.",
        tao="ignored",
    )
    pretrained_backbone: str = location_key(
        "",
        "",
        "Weights to start the backbone from: those of ImageNet, or any model that train.pretrained_model accepts.",
    )
    iters_per_epoch: PositiveInt | None = key(
        None,
        "iteration per epoch",
        "Number of iterations per epoch; unset or -1: one pass over the training data.",
        tao="ignored",
    )
    clip_gradients: ClipGradients = section(ClipGradients, "Gradient clipping.", "clip gradients")

    @field_validator("iters_per_epoch", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return None if value == -1 else value
