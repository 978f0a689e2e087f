"""What a run is: typed keys with bounds, loading, cross-field checks. Free of jax."""

from oneformer_jax.spec.load import load_spec
from oneformer_jax.spec.spec import Spec, dump_yaml, require
from oneformer_jax.spec.support import unsupported_keys

__all__ = ["Spec", "dump_yaml", "load_spec", "require", "unsupported_keys"]
