"""A checkpoint for evaluate and inference, on the devices that the spec chooses."""

from pathlib import Path

from oneformer_jax.actions.architecture import contradictions
from oneformer_jax.actions.devices import mesh_of
from oneformer_jax.actions.execute import enable_compilation_cache
from oneformer_jax.actions.model_to_run import ModelToRun
from oneformer_jax.actions.status import StatusFile
from oneformer_jax.inference.predictor import load_model
from oneformer_jax.spec import Spec


def checkpoint_to_run(spec: Spec, action: str, batch_size: int, status: StatusFile) -> ModelToRun:
    """Opens `<action>.checkpoint`; its architecture counts, and model keys that contradict it are told."""
    enable_compilation_cache()
    mesh = mesh_of(spec, action, status)
    model = load_model(Path(spec.value(action).checkpoint), mesh)
    for contradiction in contradictions(spec, model.config):
        status.warning(contradiction)
    return ModelToRun(model, batch_size * mesh.size)
