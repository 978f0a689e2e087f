"""Which devices an action runs on: the one order in which its keys count."""

from oneformer_jax.actions.status import StatusFile
from oneformer_jax.errors import OneFormerError, SpecError
from oneformer_jax.spec import Spec
from oneformer_jax.training.sharding import Mesh, available_devices, make_mesh


def mesh_of(spec: Spec, action: str, status: StatusFile) -> Mesh:
    """`gpu_ids` where they are changed; else the first `num_gpus` devices, or all where there are fewer: told so.

    Raises SpecError for an index that no device has.
    """
    section = spec.value(action)
    if spec.is_changed(f"{action}.gpu_ids"):
        try:
            return make_mesh(section.gpu_ids)
        except OneFormerError as error:
            raise SpecError(error.what, where=f"{action}.gpu_ids", hint=error.hint) from None
    found = available_devices(section.num_gpus)
    if len(found) < section.num_gpus:
        kind = found[0].platform
        status.warning(
            f"{action}.num_gpus is {section.num_gpus}, but only {len(found)} {kind} device(s) are there: each gets the "
            "batch size of the spec, so the batch over all of them is smaller"
        )
    return make_mesh(min(section.num_gpus, len(found)))
