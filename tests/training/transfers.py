"""JAX's guard against hidden transfers, completed on CPU, where host and device share their memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import jax

READS = ("_single_device_array_to_np_array_did_copy", "_copy_single_device_array_to_host_async")
"""The methods of an array by which its numbers reach the host: `float`, `bool`, printing and `copy_to_host_async` call
one, `numpy.asarray` does where the device is not a CPU."""


@contextmanager
def explicit_transfers() -> Iterator[None]:
    """Within it numbers reach a device by `jax.device_put` alone, and the host by `jax.device_get` alone.

    On a GPU `jax.transfer_guard` says so. On CPU it does not see who reads an array that needs no copy.
    """
    array, get = type(jax.device_put(0.0)), jax.device_get
    asked_for = False

    def device_get(tree: Any) -> Any:
        nonlocal asked_for
        asked_for = True
        try:
            return get(tree)
        finally:
            asked_for = False

    def only_asked_for(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def guarded(self: Any) -> Any:
            assert asked_for, f"implicit device-to-host transfer of {self.dtype}{self.shape}"
            return read(self)

        return guarded

    with patch.object(jax, "device_get", device_get), jax.transfer_guard("disallow"):
        reads = {name: only_asked_for(getattr(array, name)) for name in READS}
        with patch.multiple(array, **reads):
            yield
