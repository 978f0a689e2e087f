"""The model that an evaluation or an inference runs, opened. JAX only for a checkpoint."""

from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.errors import SpecError
from oneformer_jax.predict.exported import is_exported
from oneformer_jax.predict.predictor import Predictor, load_model
from oneformer_jax.predict.runs import ModelChoice


def open_model(choice: ModelChoice, usual_batch_size: int, status: StatusFile) -> tuple[Predictor, int]:
    """The model, and the batch size of all its devices together. `usual_batch_size` is that of one device, for a choice
    that gives none. What does not count is a warning. Raises OneFormerError."""
    section = choice.devices.section
    if choice.unused:
        status.warning(f"{section}.trt_engine and {section}.checkpoint are both set: the engine is used")
    if is_exported(choice.path):
        if choice.devices.count > 1:
            raise SpecError("an engine runs on one device", where=f"{section}.num_gpus", hint="set it to 1")
        model = load_model(choice.path, device_id=choice.devices.indices[0] if choice.devices.indices else 0)
        return model, model.batch_size(choice.batch_size, usual_batch_size)

    from oneformer_jax.app.run.devices import mesh_of
    from oneformer_jax.app.run.execute import enable_compilation_cache
    from oneformer_jax.app.settings.model import contradictions
    from oneformer_jax.predict.jax_backend import JaxBackend

    enable_compilation_cache()
    mesh = mesh_of(choice.devices, status)
    model = load_model(choice.path, mesh=mesh)
    assert isinstance(model.backend, JaxBackend)
    for contradiction in contradictions(choice.stated, model.backend.config):
        status.warning(contradiction)
    return model, model.batch_size(choice.batch_size, usual_batch_size) * mesh.size
