"""A checkpoint for evaluate and inference, on the devices that the spec chooses."""

from pathlib import Path

from oneformer_jax.app.run.devices import mesh_of
from oneformer_jax.app.run.execute import enable_compilation_cache
from oneformer_jax.app.run.model import ModelToRun
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.devices import device_choice
from oneformer_jax.app.settings.model import contradictions, stated_fields
from oneformer_jax.app.spec import Spec
from oneformer_jax.predict.jax_backend import JaxBackend
from oneformer_jax.predict.predictor import load_model


def checkpoint_to_run(spec: Spec, action: str, batch_size: int, status: StatusFile) -> ModelToRun:
    """Opens `<action>.checkpoint`; its architecture counts, and model keys that contradict it are told."""
    enable_compilation_cache()
    mesh = mesh_of(device_choice(spec, action), status)
    model = load_model(Path(spec.value(action).checkpoint), mesh=mesh)
    assert isinstance(model.backend, JaxBackend)
    for contradiction in contradictions(stated_fields(spec), model.backend.config):
        status.warning(contradiction)
    return ModelToRun(model, batch_size * mesh.size)
