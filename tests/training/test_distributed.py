"""The environment names processes, or contradicts itself; processes agree where to stop."""

import signal

import pytest

from oneformer_jax.errors import OneFormerError
from oneformer_jax.training import distributed
from oneformer_jax.training.distributed import (
    Processes,
    agreed_stop,
    coordination_client,
    find_processes,
    gather,
    kubernetes_cluster,
)

K8S = ("is_env_present", "get_process_count", "get_process_id")
TAO = {"WORLD_SIZE": "3", "NODE_RANK": "2", "MASTER_ADDR": "head", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Processes()),
        ({"NODE_RANK": "1", "MASTER_ADDR": "head"}, Processes()),
        ({"WORLD_SIZE": "1"}, Processes(source="WORLD_SIZE")),
        (TAO, Processes(3, 2, 3, 0, "head:29500", "WORLD_SIZE")),
        (SLURM, Processes(8, 5, 2, 1, "", "Slurm")),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, Processes()),  # a shell in an allocation, not a step
        (OPEN_MPI, Processes(4, 3, 2, 1, "", "Open MPI")),
        (SLURM | {"WORLD_SIZE": "8", "NODE_RANK": "5", "MASTER_ADDR": "a", "MASTER_PORT": "2000"}, (8, 5)),
        # Every pod has the first variable; the pods of a job that train alone say so.
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, Processes()),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1", "WORLD_SIZE": "1"}, (1, 0)),
    ],
)
def test_what_the_environment_names(environment: dict[str, str], expected: Processes | tuple[int, int]) -> None:
    found = find_processes(environment)
    assert expected in (found, (found.count, found.index))


@pytest.mark.tao(30)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: found 'two', expected a whole number >= 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: found '0'"),
        ({"NODE_RANK": "3"}, "NODE_RANK: found '3', expected a whole number from 0 to 2"),
        ({"NODE_RANK": None}, "NODE_RANK: is not set, and WORLD_SIZE is"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR: is not set, and WORLD_SIZE is"),
        ({"MASTER_PORT": "80"}, "MASTER_PORT: found '80', expected a whole number from 1024 to 65535"),
        (SLURM, "WORLD_SIZE: 3 processes, but Slurm has started 8"),
        ({"WORLD_SIZE": None} | SLURM | {"SLURM_NTASKS": "7"}, "Slurm started 7 processes on 2 nodes"),
        (
            {"WORLD_SIZE": None, "KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"},
            "a pod of an indexed job",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict[str, str | None], words: str) -> None:
    environment = {name: value for name, value in (TAO | changes).items() if value is not None}
    with pytest.raises(OneFormerError) as caught:
        find_processes(environment)
    assert words in str(caught.value)


def test_alone_there_is_nobody_to_agree_with() -> None:
    assert gather({"a": 1}) == [{"a": 1}]
    assert agreed_stop(None, 5) is None
    assert agreed_stop(signal.SIGTERM, 5) == signal.SIGTERM


def test_what_jax_has_no_public_name_for_is_where_it_was() -> None:
    """`jax._src.distributed.global_state.client` and `jax._src.clusters.k8s_cluster.K8sCluster`: another version of JAX
    may move them, and only a job of several processes would notice."""
    from jaxlib import _jax

    assert coordination_client() is None  # this process is alone
    client = _jax.DistributedRuntimeClient
    assert callable(client.key_value_set)
    assert callable(client.key_value_dir_get)
    cluster = kubernetes_cluster()
    assert all(callable(getattr(cluster, f"{name}")) for name in K8S)


class Store(dict):
    """The part of the coordinator's client that holds keys."""

    key_value_set = dict.__setitem__

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.items() if key.startswith(prefix)]


@pytest.mark.parametrize("second", [None, signal.SIGTERM])
def test_all_stop_before_the_same_step(monkeypatch: pytest.MonkeyPatch, second: int | None) -> None:
    """One gets a signal before step 7; the other has asked before, is in step 7, and may get one there itself."""
    client = Store()
    monkeypatch.setattr(distributed, "coordination_client", lambda: client)

    def ask(process: int, own: int | None, step: int) -> int | None:
        monkeypatch.setattr(distributed.jax, "process_index", lambda: process)
        return agreed_stop(own, step)

    assert ask(0, None, 7) is None
    assert ask(1, signal.SIGTERM, 7) is None
    assert ask(0, second, 8) == signal.SIGTERM
    assert ask(1, signal.SIGTERM, 8) == signal.SIGTERM
