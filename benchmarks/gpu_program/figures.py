"""What a result keeps of the programs of a case, and two results beside each other."""

import dataclasses
from collections.abc import Mapping
from datetime import date
from typing import Any

from benchmarks.gpu_program.areas import ATTENTION
from benchmarks.gpu_program.case import Case
from benchmarks.gpu_program.compiling import Part, revision
from benchmarks.gpu_program.schedule import Event, Network, events_of, times_of
from benchmarks.gpu_program.tables import operations_of
from oneformer_jax.models.gpu.described import NAME

MIB, GIB = 2**20, 2**30


def result_of(case: Case, parts: Mapping[str, Part]) -> dict[str, Any]:
    """The content of the result's file. Raises ValueError: a custom call of which nothing says what it costs."""
    if calls := sorted({call for part in parts.values() for call in part.program.uncounted}):
        raise ValueError(
            f"nothing says what these custom calls cost: {', '.join(calls)}; a kernel of this project needs a "
            "cost_estimate, one of a library a rule in benchmarks/gpu_program/custom_calls.py"
        )
    events = [event for part in parts.values() for event in events_of(part.program)]
    kernels = [kernel for part in parts.values() for kernel in part.program.kernels]
    first = next(iter(parts.values()))
    to_device, to_host = first.host
    figures: dict[str, Any] = {
        "step_ms": 1e3 * times_of(events, case.devices, Network()).together,
        "step_kernels": sum(kernel.times for kernel in kernels),
        "moved_gb": sum(kernel.bytes for kernel in kernels) / 1e9,
        "tflop": operations_of(kernels).total() / 1e12,
        "largest_array_mib": max(_largest(part, part.program.arrays()) for part in parts.values()),
        "largest_attention_mib": max(_largest(part, _attention_arrays(part)) for part in parts.values()),
        "to_device_mb": to_device / case.devices / 1e6,
        "to_host_mb": to_host / case.devices / 1e6,
    }
    if case.purpose == "training":
        figures |= {
            "kept_gib": parts["forward"].sizes["output"] / GIB,
            "update_ms": _milliseconds(parts["update"]),
            "update_temp_mib": parts["update"].sizes["temp"] / MIB,
        }
    here = revision()
    result = {
        "kind": "gpu_program",
        "modelled": True,
        "workload": dataclasses.asdict(case) | {"device": NAME},
        "date": date.today().isoformat(),
        "revision": here,
        "machine": {"processor": "Modelled", "device": NAME, "versions": f"Revision {here}, {first.versions}"},
        **{name: _rounded(value) for name, value in figures.items()},
        "parts": {name: _part_figures(part) for name, part in parts.items()},
    }
    return result if case.devices == 1 else result | {"schedule": [_written(event) for event in events]}


def events_in(result: Mapping[str, Any]) -> list[Event]:
    """The schedule that a result of several devices keeps."""
    return [tuple(event) for event in result["schedule"]]


def comparison(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Two results, figure by figure, as lines of text."""
    lines = [f"{'':32}{before['revision']:>16}{after['revision']:>16}{'ratio':>8}"]
    rows = {name: (before.get(name), value) for name, value in after.items()}
    for part, figures in after["parts"].items():
        old = before["parts"].get(part, {})
        rows |= {f"{part}: {name}": (old.get(name), value) for name, value in figures.items()}
    for name, (old, new) in rows.items():
        if isinstance(new, int | float) and not isinstance(new, bool):
            ratio = f"{new / old:8.2f}" if old else ""
            lines.append(f"{name:32}{'' if old is None else old:>16}{new:>16}{ratio}")
    return lines


def _part_figures(part: Part) -> dict[str, Any]:
    kernels = part.program.kernels
    figures = {
        "kernels": sum(kernel.times for kernel in kernels),
        "ms": _milliseconds(part),
        "moved_gb": sum(kernel.bytes for kernel in kernels) / 1e9,
        **{f"{name}_mib": size / MIB for name, size in part.sizes.items()},
    }
    return {name: _rounded(value) for name, value in figures.items()}


def _milliseconds(part: Part) -> float:
    return 1e3 * sum(kernel.seconds for kernel in part.program.kernels)


def _attention_arrays(part: Part) -> Any:
    """The logits and weights of attentions among the arrays of a program, and their cotangents."""
    for shape, scope in part.program.arrays():
        if "f" in shape.dtype and shape.count in part.attention_entries and ATTENTION.search(scope):
            yield shape, scope


def _largest(part: Part, arrays: Any) -> float:
    return max((shape.bytes for shape, _ in arrays), default=0.0) / MIB


def _rounded(value: float) -> float:
    """Four digits; whole numbers as they are."""
    return value if isinstance(value, int) else float(f"{value:.4g}")


def _written(event: Event) -> list[Any]:
    return [_rounded(value) if isinstance(value, float) else value for value in event]
