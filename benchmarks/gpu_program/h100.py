"""How fast the GPU is taken to be that programs are compiled for (`oneformer_jax.models.gpu.described`).

Speeds are peaks of NVIDIA's data sheet (H100 SXM5) but for the cache's, which is what gathers are known to reach.
"""

BANDWIDTH = 3.35e12
"""Bytes a second, of the memory."""
CACHE_BANDWIDTH = 5.5e12
"""Bytes a second that gathers and scatters reach in a table that the cache holds."""
CACHE = 50e6
"""Bytes of the cache."""
SECTOR = 32
"""Bytes that the memory moves at least, for one number too."""
LAUNCH = 2.5e-6
"""Seconds from the start of one short kernel to the next, in a CUDA graph."""
LINK = 450e9
"""Bytes a second that a GPU sends to others of its host."""
PEAK = {"bf16": 990e12, "f16": 990e12, "tf32": 495e12, "f32": 67e12, "f64": 67e12, "f8e4m3fn": 1980e12, "exp": 4.2e12}
"""Operations a second by the dtype that is multiplied; `exp`: exponentials and their like, 16 a cycle and core."""
