"""The GPU that programs are compiled for without one: what XLA is told of it, and how fast it is taken to be.

Speeds are peaks of NVIDIA's data sheet (H100 SXM5) but for the cache's, which is what gathers are known to reach.
"""

NAME = "NVIDIA H100 80GB HBM3"
DESCRIPTION = f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84929347584
  cuda_compute_capability {{ major: 9 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 }}
device_description_str: "{NAME}"
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
