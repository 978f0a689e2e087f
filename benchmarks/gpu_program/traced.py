"""What a traced program says that XLA's text of it no longer does."""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from benchmarks.gpu_program.areas import ATTENTION
from benchmarks.gpu_program.custom_calls import StatedCost


def stated_costs(program: ClosedJaxpr) -> list[StatedCost]:
    """What the own kernels of a traced program state: JAX drops it when it lowers them for GPUs."""
    found = set()
    for equation, _ in _equations(program.jaxpr, ""):
        if equation.primitive.name == "pallas_call":
            name = equation.params["name"] or equation.params["jaxpr"].debug_info.func_name
            shapes = tuple(map(_shape, equation.outvars))
            if (cost := equation.params["cost_estimate"]) is not None:
                found.add(StatedCost(name, shapes, cost.flops, cost.transcendentals, cost.bytes_accessed))
    return sorted(found)


def attention_entries(program: ClosedJaxpr) -> set[int]:
    """How many entries the logits of its attentions have: what an exponential is taken of there. Kernels, which keep
    theirs to themselves, do not count."""
    return {
        math.prod(_shape(equation.invars[0]))
        for equation, scope in _equations(program.jaxpr, "")
        if equation.primitive.name == "exp" and ATTENTION.search(scope)
    }


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)


def _equations(jaxpr: Jaxpr, scope: str) -> Iterator[tuple[JaxprEqn, str]]:
    """Those of a program and of all programs inside it with their scopes, but not what kernels are made of."""
    for equation in jaxpr.eqns:
        path = f"{scope}/{equation.source_info.name_stack}"
        yield equation, path
        if equation.primitive.name == "pallas_call":
            continue
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else (value,):
                if isinstance(inner, ClosedJaxpr | Jaxpr):
                    yield from _equations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner, path)
