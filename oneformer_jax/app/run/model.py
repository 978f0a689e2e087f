"""What evaluate and inference run: a checkpoint in JAX, or an exported model without it. One face for both."""

from dataclasses import dataclass

from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.spec import Spec, require
from oneformer_jax.data.geometry import Letterbox
from oneformer_jax.errors import SpecError
from oneformer_jax.predict.predictor import Predictor, load_model


@dataclass(frozen=True)
class ModelToRun:
    """`batch_size` is that of all devices together; `policy` is the one geometry that an engine takes."""

    model: Predictor
    batch_size: int
    policy: Letterbox | None = None


def require_model(spec: Spec, action: str) -> None:
    """Raises SpecError unless there is an engine or a checkpoint to run."""
    if not spec.value(action).trt_engine:
        require(spec, f"{action}.checkpoint")


def model_to_run(spec: Spec, action: str, default_batch_size: int, status: StatusFile) -> ModelToRun:
    """Opens `<action>.trt_engine` where it is set, else `<action>.checkpoint`.

    `<action>.batch_size` counts the images of one device; where it is -1 there are `default_batch_size`, or what an
    engine takes that comes next to it. Raises OneFormerError.
    """
    section = spec.value(action)
    if not section.trt_engine:
        from oneformer_jax.app.run.checkpoint import checkpoint_to_run  # imports JAX

        asked = section.batch_size if section.batch_size > 0 else default_batch_size
        return checkpoint_to_run(spec, action, asked, status)
    if section.checkpoint:
        status.warning(f"{action}.trt_engine and {action}.checkpoint are both set: the engine counts")
    if section.num_gpus > 1 or len(section.gpu_ids) > 1:
        raise SpecError("an engine runs on one device", where=f"{action}.num_gpus", hint="set it to 1")
    engine = load_model(section.trt_engine, device_id=section.gpu_ids[0])
    assert isinstance(engine.policy, Letterbox)
    wanted = section.batch_size if section.batch_size > 0 else None
    return ModelToRun(engine, engine.batch_size(wanted, default_batch_size), engine.policy)
