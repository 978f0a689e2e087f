"""Weights of any known source as a model in memory, in one call."""

from pathlib import Path

import jax

from converters.infer_backbone import Facts
from converters.weights import read_weights
from oneformer_jax.checkpoints.read import Checkpoint
from oneformer_jax.data.storage.addresses import is_address
from oneformer_jax.errors import CheckpointError


def from_pretrained(location: str, *, backbone: Facts | None = None, device: jax.Device | None = None) -> Checkpoint:
    """The model of a Hugging Face repository, "owner/name" or "owner/name@revision", or of whatever else `convert`
    reads: a file, a folder, an address. What is fetched is kept where its library keeps it.

    Args:
        backbone: what the weights do not hold of theirs, such as `{"dilations": ...}`.
        device: for the parameters; by default the first.

    Without the files of an image processor classes are numbered, and all are stuff. Raises CheckpointError: nothing
    there, damaged, of no known source, a backbone alone, or what `converters.weights.convert` raises.
    """
    is_name = not is_address(location) and location.count("/") == 1 and not Path(location).exists()
    weights = read_weights(f"hf://{location}" if is_name else location, backbone=backbone)
    if "predictor" not in weights.params:
        hint = "to train from a backbone, use train.pretrained_backbone"
        raise CheckpointError("a backbone alone", where=location, hint=hint)
    params = jax.device_put(weights.params, device or jax.local_devices()[0])
    return Checkpoint(params, weights.described(weights.categories or weights.classes))
