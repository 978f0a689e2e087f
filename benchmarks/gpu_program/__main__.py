"""A training step or an inference pass compiled for an H100 without one: kernels, memory, and where time would go.

    pip install -e '.[cuda]'    # JAX's plugin for CUDA and NVIDIA's wheels; no GPU, no driver
    python -m benchmarks.gpu_program --backbone swin_l --size 1024 --batch 2 --precision bf16-mixed
    python -m benchmarks.gpu_program --compare before.json after.json

XLA's compiler for CUDA needs no device where it is told what the device is. So the program is real: its kernels, its
buffers, its dtypes, what it sends. Its time is **modelled**: a kernel lasts as long as its bytes take at the memory's
bandwidth (those of gathers and scatters at the cache's), as its products take at the peak of the tensor cores, or as a
start takes, whichever is longest. Real kernels take longer; which ones are slow should be right. Not counted: the host,
workspaces of cuDNN and cuBLAS, and that a compiler with a GPU measures which variant of a product is fastest.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.command import RESULTS, write
from benchmarks.gpu_program.case import Case
from benchmarks.gpu_program.compiling import compiled_parts
from benchmarks.gpu_program.figures import comparison, result_of
from benchmarks.gpu_program.tables import show
from benchmarks.workload import BACKBONES
from oneformer_jax.tasks import TASKS


def main() -> None:
    """Compiles a case, prints its tables and writes its result; or compares two results."""
    options = _options().parse_args()
    if options.compare:
        print("\n".join(comparison(*(json.loads(path.read_text()) for path in options.compare))))
        return
    case = Case(
        options.backbone,
        options.size,
        options.batch,
        options.precision,
        options.devices,
        options.strategy,
        "inference" if options.inference else "training",
        options.inference or Case.task,
        options.remat,
    )
    parts = compiled_parts(case, options.programs, quick=options.quick)
    for name, part in parts.items():
        show(name, part, options.rows)
    try:
        result = result_of(case, parts)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"\n{case.name}: {result['step_kernels']} kernels, at least {result['step_ms']} ms (modelled)")
    print(write(options.output, case.name, result))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_program",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--backbone", choices=BACKBONES, default="swin_t")
    add("--size", type=int, default=512, help="side of the square images")
    add("--batch", type=int, default=2, help="images of a device")
    add("--precision", choices=("32", "bf16-mixed", "16-mixed"), default="32")
    add("--devices", type=int, default=1)
    add("--strategy", choices=("ddp", "fsdp", "hsdp"), default="ddp")
    add("--inference", choices=TASKS, help="a prediction for this task, not a training step")
    add("--remat", choices=("auto", "none", "light", "dots", "blocks"), default="auto")
    add("--quick", action="store_true", help="make no machine code, which takes two thirds of the time")
    add("--rows", type=int, default=16, help="of each table")
    add("--programs", type=Path, help="folder that keeps the compiled programs; those of this revision are read again")
    add("--output", type=Path, default=RESULTS, help="folder of the result")
    add("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="print two results beside each other")
    return parser


if __name__ == "__main__":
    main()
