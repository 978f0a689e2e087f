"""OneFormer in JAX."""
