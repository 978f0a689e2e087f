"""Which processes and devices an action runs on: the one order in which keys and environment count."""

import os
import platform
from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from rich.table import Table

from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.devices import DeviceChoice
from oneformer_jax.errors import OneFormerError, SpecError
from oneformer_jax.training.distributed import Processes, find_processes, gather, join
from oneformer_jax.training.sharding import Mesh, Strategy, available_devices, by_host, make_mesh

PER_NODE = "NUM_GPU_PER_NODE"


def join_processes(nodes: int | None, choice: DeviceChoice, processes: Processes) -> None:
    """Connects the processes of a training, before JAX starts; `nodes`: how many the spec names, None: it does not.

    Raises SpecError where the spec contradicts the environment, OneFormerError where the others cannot be found.
    """
    if nodes not in (None, processes.nodes):
        found = (
            f"{processes.source} names {processes.nodes}"
            if processes.count > 1
            else "nothing says which the others are"
        )
        raise SpecError(
            f"{nodes} nodes, but {found}",
            where="train.num_nodes",
            hint="on every node set WORLD_SIZE, NODE_RANK, MASTER_ADDR and MASTER_PORT (docs/multi-host.md), or try it "
            f"on this one: oneformer launch --num-processes {nodes} -- train ...",
        )
    join(processes, own_devices(choice, processes, os.environ))


def own_devices(choice: DeviceChoice, processes: Processes, environment: Mapping[str, str]) -> list[int]:
    """The indices, on its node, of the devices of this one of several processes: its part of those of the node.

    Raises SpecError where they are not as many as the environment says, or cannot be shared.
    """
    of_node = list(range(choice.count) if choice.indices is None else choice.indices)
    if "WORLD_SIZE" in environment and (text := environment.get(PER_NODE)):
        if not text.isdigit() or (choice.chosen and int(text) != len(of_node)):
            where = f"environment variable {PER_NODE}"
            raise SpecError(f"found '{text}', but the spec names {len(of_node)} device(s)", where=where)
        of_node = of_node if choice.chosen else list(range(int(text)))
    elif not choice.chosen:
        of_node = list(range(processes.per_node))
    if len(of_node) % processes.per_node:
        raise SpecError(
            f"{len(of_node)} devices cannot be divided evenly among the {processes.per_node} processes of a node",
            where="train.num_gpus",
            hint=f"it counts the devices of a node; {processes.source} started the processes",
        )
    share = len(of_node) // processes.per_node
    return of_node[processes.local_index * share : (processes.local_index + 1) * share]


def mesh_of_training(choice: DeviceChoice, strategy: Strategy, status: StatusFile) -> Mesh:
    """`mesh_of`, in which `hsdp` tells the hosts apart."""
    mesh = mesh_of(choice, status)
    return by_host(mesh, find_processes(os.environ).nodes) if strategy == "hsdp" else mesh


def mesh_of(choice: DeviceChoice, status: StatusFile) -> Mesh:
    """The devices of `choice`, or all where there are fewer than it counts, which is a warning.

    Of a training on several processes each has its share, and none may lack one. Raises SpecError for an index that no
    device has.
    """
    processes = find_processes(os.environ) if choice.section == "train" else Processes()
    if processes.count > 1:
        return make_mesh(len(own_devices(choice, processes, os.environ)))
    if choice.indices is not None:
        try:
            return make_mesh(choice.indices)
        except OneFormerError as error:
            raise SpecError(error.what, where=f"{choice.section}.gpu_ids", hint=error.hint) from None
    found = available_devices(choice.count)
    if len(found) < choice.count:
        kind = found[0].platform
        status.warning(
            f"{choice.section}.num_gpus is {choice.count}, but only {len(found)} {kind} device(s) are available: each "
            "gets the batch size of the spec, so the total batch is smaller"
        )
    return make_mesh(min(choice.count, len(found)))


def refuse_different_specs(keys: dict[str, Any]) -> None:
    """Raises SpecError where the processes of a training were not started with the same keys. All must call it."""
    first, *others = (flatten_dict(found, sep=".") for found in gather(keys))
    for process, keys in enumerate(others, start=1):
        different = sorted(name for name in first.keys() | keys.keys() if first.get(name) != keys.get(name))
        if different:
            name = different[0]
            raise SpecError(
                f"process 0 has {first.get(name)}, process {process} has {keys.get(name)}",
                where=name,
                hint="start all processes with the same spec file and the same overrides",
            )


def topology_table(mesh: Mesh, strategy: str) -> Table:
    """Who trains on what. Every process must call it."""
    table = Table("process", "host", "devices", title=f"{mesh.size} device(s), {strategy}")
    for process, host in enumerate(gather(platform.node())):
        there = [device for device in jax.devices() if device.process_index == process]
        used = [str(index) for index, device in enumerate(there) if device in set(mesh.devices.flat)]
        table.add_row(str(process), host, f"{there[0].device_kind} {', '.join(used)}")
    return table
