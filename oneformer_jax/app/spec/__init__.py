"""What a run is: typed keys with bounds, loading, cross-field checks. Free of jax."""

from oneformer_jax.app.spec.load import load_spec
from oneformer_jax.app.spec.spec import Spec, dump_yaml, given_values, require, to_yaml, unsupported_keys
from oneformer_jax.app.spec.validate import oddities

__all__ = ["Spec", "dump_yaml", "given_values", "load_spec", "oddities", "require", "to_yaml", "unsupported_keys"]
