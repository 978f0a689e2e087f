"""How many operations a traced program makes. Nothing is compiled, and what is in a loop counts as often as it runs."""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def operations(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    """Of its products of matrices and its convolutions; a multiplication and an addition are two. All else is left out:
    a few hundredths. Of branches the longest counts, and of a loop without a known end one turn."""
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return sum(map(_of, inner.eqns))


def _of(equation: JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = _shape(equation.invars[0])
        return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(kernel) // outputs
    if name == "pallas_call":
        return params["cost_estimate"].flops if params["cost_estimate"] is not None else 0
    inside = [operations(program) for program in _programs(params)]
    if name == "cond":
        return max(inside)
    return sum(inside) * params.get("length", 1)


def _programs(params: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    for value in params.values():
        for program in value if isinstance(value, list | tuple) else (value,):
            if isinstance(program, ClosedJaxpr | Jaxpr):
                yield program


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)
