"""What the compiled parts of a training step send between devices."""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oneformer_jax.losses.criterion import Normalisers
from oneformer_jax.losses.matching import Pairs
from oneformer_jax.training.sharding import put_batch, put_pairs, put_replicated

KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
LINE = re.compile(rf"= (?P<shapes>.*?) (?P<kind>{KINDS})(?:-start)?\(")
ARRAY = re.compile(r"\b[a-z]+\d*\[([\d,]*)\]")
HOST = re.compile(r"callback|infeed|outfeed|\bsend\(|\brecv\(")


class Collective(NamedTuple):
    """`entries`: the numbers in its result; `operation`: where in the step it comes from."""

    kind: str
    entries: int
    operation: str


def programs(step_fn: Any, state: Any, host_batch: Any, mesh: Any) -> dict[str, str]:
    """The optimised HLO of the parts of a step."""
    batch = put_batch(host_batch, mesh)
    arguments = state.params, state.step, batch
    outputs, _, _, pullback = step_fn.forward(*arguments)
    layers, groups = outputs[0].class_logits.shape[0], len(mesh.local_devices)
    empty = np.zeros((groups, 16), np.int32)
    pairs = put_pairs(Pairs(np.full((layers, groups, 16), -1, np.int32), empty, empty), mesh)
    over = put_replicated(Normalisers(*np.ones(3, np.float32)), mesh)
    parts = {
        "forward": step_fn.forward.lower(*arguments),
        "losses": step_fn.losses.lower(outputs, state.step, batch, pairs, over, state.loss_scale),
        "backward": step_fn.backward.lower(state.params, pullback, jax.tree.map(jnp.ones_like, outputs)),
        "update": step_fn.update.lower(state, state.params, put_replicated(np.zeros((), np.float32), mesh)),
    }
    return {name: lowered.compile().as_text() for name, lowered in parts.items()}


def collectives(program: str) -> list[Collective]:
    """Those of an optimised HLO program."""
    found = []
    for line in program.splitlines():
        if match := LINE.search(line):
            entries = sum(math.prod(map(int, filter(None, dims.split(",")))) for dims in ARRAY.findall(match["shapes"]))
            operation = re.search(r'op_name="([^"]*)"', line)
            found.append(Collective(match["kind"], entries, operation[1] if operation else ""))
    return found


def sent(program: str, kind: str) -> int:
    """The numbers in the results of the collectives of a kind."""
    return sum(collective.entries for collective in collectives(program) if collective.kind == kind)


def talks_to_the_host(program: str) -> bool:
    """Whether a compiled program calls Python, or waits for the host."""
    return bool(HOST.search(program))
