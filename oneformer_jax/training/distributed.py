"""Which processes train together: found in the environment, joined before JAX starts; what they send each other; and
after which step a signal stops them all.

The variables are TAO's (WORLD_SIZE counts nodes, one process each: NODE_RANK, MASTER_ADDR, MASTER_PORT), else those of
the clusters that JAX knows. Process 0 writes the results; every process holds its share of the batch and of the state.
"""

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jax.experimental import multihost_utils

from oneformer_jax.errors import OneFormerError

HEARTBEAT_SECONDS = 25
"""A process that is silent for so long is gone: XLA then ends the others, without an exception of Python."""

GOODBYE_SECONDS = 50
"""How long a process that has ended its work waits for the others, which may still be writing."""

SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
KUBERNETES = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"}

STOP = "oneformer_jax/stop/"

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This is process `index` of `count` on `nodes` nodes. `coordinator` is the address (host:port) of process 0, empty
    where JAX finds it by itself; `source` says who started them."""

    count: int = 1
    index: int = 0
    nodes: int = 1
    local_index: int = 0
    coordinator: str = ""
    source: str = "alone"

    @property
    def per_node(self) -> int:
        return self.count // self.nodes

    @property
    def is_first(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0


def find_processes(environment: Mapping[str, str]) -> Processes:
    """The processes that the environment names. Raises OneFormerError where its variables contradict each other."""
    cluster = _cluster(environment)
    if "WORLD_SIZE" not in environment:
        return _kubernetes() if environment.keys() >= KUBERNETES else cluster
    count = _number(environment, "WORLD_SIZE", 1)
    if cluster.count not in (1, count):
        raise OneFormerError(
            f"{count} processes, but {cluster.source} has started {cluster.count}",
            where="environment variable WORLD_SIZE",
            hint="leave it out, or start one process a node",
        )
    if count == 1:
        return Processes(source="WORLD_SIZE")
    index, port = _number(environment, "NODE_RANK", 0, count - 1), _number(environment, "MASTER_PORT", 1024, 65535)
    address = environment.get("MASTER_ADDR")
    if not address:
        raise OneFormerError("is not set, and WORLD_SIZE is", where="environment variable MASTER_ADDR")
    return Processes(count, index, count, 0, f"{address}:{port}", "WORLD_SIZE")


def _cluster(environment: Mapping[str, str]) -> Processes:
    """What `jax.distributed.initialize` would find by itself."""
    if all(name in environment for name in SLURM):
        count, nodes = int(environment["SLURM_NTASKS"]), int(environment.get("SLURM_STEP_NUM_NODES", "1"))
        index, local = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
        return _evenly(Processes(count, index, nodes, local, source="Slurm"))
    if "OMPI_MCA_orte_hnp_uri" in environment:
        count, index = int(environment["OMPI_COMM_WORLD_SIZE"]), int(environment["OMPI_COMM_WORLD_RANK"])
        on_node = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
        local = int(environment["OMPI_COMM_WORLD_LOCAL_RANK"])
        return _evenly(Processes(count, index, max(1, count // on_node), local, source="Open MPI"))
    return Processes()


def _kubernetes() -> Processes:
    """An indexed job, about which JAX asks the cluster."""
    try:
        import kubernetes  # noqa: F401

        cluster = kubernetes_cluster()
        if not cluster.is_env_present():
            return Processes()
        count = cluster.get_process_count()
        return Processes(count, cluster.get_process_id(), count, source="Kubernetes")
    except (ImportError, RuntimeError) as error:
        raise OneFormerError(
            f"this is a pod of an indexed job, and the cluster says nothing about the others: {error}",
            hint="set WORLD_SIZE, NODE_RANK, MASTER_ADDR and MASTER_PORT as docs/multi-host.md shows, "
            "or WORLD_SIZE=1 to train in this pod alone",
        ) from error


# JAX has no public name (0.10 to 0.12) for these two, and there is no other way to what they give.


def kubernetes_cluster() -> Any:
    """JAX's own detection of a job's pods: `jax.distributed.initialize` uses it, and the numbers must agree."""
    from jax._src.clusters.k8s_cluster import K8sCluster

    return K8sCluster


@runtime_checkable
class KeyValueStore(Protocol):
    """What the processes of a run share while they train: texts by key."""

    def key_value_set(self, key: str, value: str) -> None: ...
    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]: ...


def coordination_client() -> KeyValueStore | None:
    """None where there is one process."""
    from jax._src import distributed

    return distributed.global_state.client


def _evenly(processes: Processes) -> Processes:
    if processes.count % processes.nodes:
        raise OneFormerError(
            f"{processes.source} started {processes.count} processes on {processes.nodes} nodes",
            hint="start equally many on each node",
        )
    return processes


def _number(environment: Mapping[str, str], name: str, smallest: int, largest: int | None = None) -> int:
    text = environment.get(name, "")
    bounds = f">= {smallest}" if largest is None else f"from {smallest} to {largest}"
    if not (text.isascii() and text.isdigit() and smallest <= int(text) <= (largest or 2**31)):
        found = f"found '{text}'" if name in environment else "is not set, and WORLD_SIZE is"
        raise OneFormerError(
            f"{found}, expected a whole number {bounds}",
            where=f"environment variable {name}",
            hint="WORLD_SIZE counts nodes, NODE_RANK is this one; unset WORLD_SIZE to train on this node alone",
        )
    return int(text)


def join(processes: Processes, local_devices: list[int]) -> None:
    """Connects the processes, before JAX starts, once; `local_devices` are the indices of this process's GPUs on its
    node. Raises OneFormerError where that fails.
    """
    if processes.count == 1 or jax.distributed.is_initialized():
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        jax.distributed.initialize(
            num_processes=processes.count,
            process_id=processes.index,
            local_device_ids=local_devices,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=GOODBYE_SECONDS,
            coordinator_address=processes.coordinator or None,
            cluster_detection_method="deactivate" if processes.coordinator else None,
        )
    except (RuntimeError, ValueError) as error:
        raise OneFormerError(
            f"process {processes.index} of {processes.count} cannot reach the others: {str(error).splitlines()[0]}",
            where=processes.coordinator,
            hint="MASTER_ADDR must be the host of process 0, and MASTER_PORT free there",
        ) from error
    if threading.current_thread() is threading.main_thread():
        # JAX listens to SIGTERM for Orbax, and forgets who did before; the loop does it itself (`agreed_stop`).
        signal.signal(signal.SIGTERM, on_sigterm)


def leave_the_others(code: int, defect: Exception | None) -> None:
    """Ends a process that has failed, where it is one of several: they wait for its numbers, and it must not wait for
    them to end. A `defect` is printed with its traceback."""
    if jax.distributed.is_initialized():
        if defect is not None:
            traceback.print_exception(defect)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def gather(value: T) -> list[T]:
    """The `value` of every process, in their order; all must call it. It is pickled on the way."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.asarray(data.size)))
    room = 1 << int(max(sizes) - 1).bit_length()  # few shapes: each is compiled once
    padded = np.zeros(room, np.uint8)
    padded[: data.size] = data
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def agreed_stop(own: int | None, step: int) -> int | None:
    """The signal after which all processes stop before update `step`, None: go on. `own`: what this one has received.

    Call it before every step. A process that has a signal names the next step before it starts this one. None of the
    others can be further: in every step all wait for each other's numbers of segments.
    """
    client = coordination_client()
    if client is None:
        return own
    if own is not None and not client.key_value_dir_get(STOP):
        client.key_value_set(f"{STOP}{jax.process_index()}", f"{own} {step + 1}")
    stops = [text.split() for _, text in client.key_value_dir_get(STOP)]
    number, last = min(((int(number), int(at)) for number, at in stops), key=lambda stop: stop[1], default=(0, 0))
    return number if stops and step >= last else None
