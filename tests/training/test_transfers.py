"""What leaves the device is asked for, as the guard of a training demands it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transfers import explicit_transfers

from oneformer_jax.training.sharding import batch_sharding, make_mesh, own_part


def test_a_process_reads_its_part_explicitly() -> None:
    """Numbers of four bits are copied on CPU too, where others are shared: there, too, the guard sees them leave."""
    numbers = np.arange(-8, 8).reshape(2, 8).astype(jnp.int4)
    split = jax.device_put(numbers, batch_sharding(make_mesh(1), axis=1))
    with jax.transfer_guard("disallow"):
        part, place = own_part(split, axis=1)
    np.testing.assert_array_equal(part, numbers)
    assert place == slice(0, 8)


@pytest.mark.parametrize("read", [float, bool, str, lambda x: x.copy_to_host_async(), lambda x: x.tolist()])
def test_the_tests_see_who_reads_without_asking(read: Callable[[jax.Array], object]) -> None:
    number = jax.device_put(np.float32(0.5))
    with explicit_transfers():
        assert jax.device_get(number) == 0.5
        with pytest.raises(AssertionError, match="implicit device-to-host"):
            read(number)
    read(number)
