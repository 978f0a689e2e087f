"""The devices that a spec chooses for an action."""

from oneformer_jax.app.spec import Spec
from oneformer_jax.devices import DeviceChoice


def device_choice(spec: Spec, action: str) -> DeviceChoice:
    """`<action>.gpu_ids` where it is changed, else `<action>.num_gpus`."""
    section = spec.value(action)
    by_index = spec.is_changed(f"{action}.gpu_ids")
    return DeviceChoice(
        count=len(section.gpu_ids) if by_index else section.num_gpus,
        indices=tuple(section.gpu_ids) if by_index else None,
        chosen=by_index or spec.is_changed(f"{action}.num_gpus"),
        section=action,
    )
