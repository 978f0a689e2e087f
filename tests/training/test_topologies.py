"""One process or several, one device or eight, parameters whole or split: the same training.

For `make prove`; `make test` compares two processes with one in e2e/test_several_processes.py.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clusters import ended, start_nodes
from collectives import collectives, sent, talks_to_the_host

from benchmarks.scaling import FLOAT32, least_bytes
from oneformer_jax.data.drawn_shapes import write_drawn_shapes

SPEC = """
model:
  backbone:
    swin: {{embed_dim: 16, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], window_size: 4, mlp_ratio: 2.0, init: fan_in}}
  sem_seg_head: {{num_classes: 7, convs_dim: 32, mask_dim: 32, transformer_enc_layers: 1}}
  one_former:
    {{hidden_dim: 32, nheads: 2, num_object_queries: 12, dim_feedforward: 32, dec_layers: 2, class_dec_layers: 1,
      train_num_points: 512}}
  text_encoder: {{width: 32, num_layers: 1, n_ctx: 2, proj_num_layers: 1}}
dataset:
  train:
    images: {folder}/train/images
    annotations: {folder}/train/annotations.json
    panoptic: {folder}/train/panoptic
    num_workers: 0
  augmentation: {{train_crop_size: [32, 32]}}
train:
  clip_gradients: {{enabled: false}}
  optim: {{lr: 1.0e-3, warmup_iters: 1}}
"""
pytestmark = [pytest.mark.long, pytest.mark.prove]
IMAGES = 8
BOTH = ("float64:ddp", "float64:fsdp")
TOPOLOGIES: dict[str, tuple[int, int, tuple[str, ...]]] = {  # nodes, devices of each, and the runs
    "1x1": (1, 1, ("float32:ddp", "float64:ddp")),
    "1x8": (1, 8, BOTH),
    "2x4": (2, 4, ("float32:fsdp", "float64:hsdp", *BOTH)),
    "2x1": (2, 1, BOTH),
}
Results = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each run of each topology computed: `loss` of each step, parameters, first gradients, and by the names of
    the step's parts their programs."""
    folder = tmp_path_factory.mktemp("topologies")
    write_drawn_shapes(folder / "data", {"train": 12}, size=64, seed=1)
    (folder / "spec.yaml").write_text(SPEC.format(folder=folder / "data"))

    def train(name: str) -> Results:
        nodes, devices, runs = TOPOLOGIES[name]
        (folder / name).mkdir()
        arguments = [folder / "spec.yaml", folder / name, str(IMAGES // (nodes * devices)), str(devices), *runs]
        processes = start_nodes(Path(__file__).with_name("topology_worker.py"), arguments, nodes=nodes, devices=devices)
        with ended(processes), ThreadPoolExecutor(nodes) as pool:  # who is not read, stops
            texts = list(pool.map(lambda process: process.communicate(timeout=1200)[0], processes))
        for process, text in zip(processes, texts, strict=True):
            assert process.returncode == 0, text
        return {(name, run): read(folder / name, run.replace(":", "-")) for run in runs}

    def read(place: Path, run: str) -> dict[str, Any]:
        texts = {file.stem.removeprefix(f"{run}-"): file.read_text() for file in place.glob(f"{run}-*.txt")}
        return dict(np.load(place / f"{run}.npz")) | texts

    with ThreadPoolExecutor(2) as pool:
        return {key: found for found in pool.map(train, TOPOLOGIES) for key, found in found.items()}


def others(dtype: str) -> list[Any]:
    """The runs in `dtype` on more than one device, as parameters of a test."""
    runs = [(name, run) for name, (*_, runs) in TOPOLOGIES.items() for run in runs if name != "1x1"]
    chosen = [run for run in runs if run[1].startswith(dtype)]
    return [pytest.param(run, id="-".join(run)) for run in chosen]


@pytest.mark.tao(30)
@pytest.mark.parametrize("run", others("float64"))
def test_twenty_steps_are_the_same(results: Results, run: tuple[str, str]) -> None:
    one, other = results["1x1", "float64:ddp"], results[run]
    assert len(one["loss"]) == 20
    assert one["loss"][-1] < one["loss"][0]
    np.testing.assert_allclose(other["loss"], one["loss"], rtol=1e-9)
    for name in (name for name in one if name.startswith("parameter/")):
        assert one[name].dtype == np.float64
        np.testing.assert_allclose(other[name], one[name], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("run", others("float32"))
def test_the_first_loss_and_its_gradients_agree_in_float32(results: Results, run: tuple[str, str]) -> None:
    one, other = results["1x1", "float32:ddp"], results[run]
    np.testing.assert_allclose(other["loss"][0], one["loss"][0], rtol=1e-6)
    names = [name for name in one if name.startswith("gradient/")]
    largest = max(float(np.abs(one[name]).max()) for name in names)
    assert largest > 0
    for name in names:
        np.testing.assert_allclose(other[name], one[name], rtol=0, atol=1e-5 * largest, err_msg=name)


@pytest.mark.tao(5)
@pytest.mark.parametrize("name", ["1x8", "2x4"])
def test_split_parameters_and_moments_need_an_eighth_of_the_memory(results: Results, name: str) -> None:
    assert 6 * results[name, "float64:fsdp"]["bytes"] < results["1x1", "float64:ddp"]["bytes"]


def test_what_a_host_splits_needs_twice_the_memory_of_what_two_split(results: Results) -> None:
    fsdp, hsdp = (int(results["2x4", f"float64:{strategy}"]["bytes"]) for strategy in ("fsdp", "hsdp"))
    assert 1.8 * fsdp < hsdp < 2.1 * fsdp


@pytest.mark.parametrize("name", ["1x8", "2x4"])
def test_whole_parameters_are_whole_on_each_device(results: Results, name: str) -> None:
    assert results[name, "float64:ddp"]["bytes"] == results["1x1", "float64:ddp"]["bytes"]


STRATEGIES = ("ddp", "fsdp")
NOTHING = 200  # numbers: counts of segments, losses, the key of the step
VOCABULARY, WORDS = 49408, 200  # of the token embedding; rows of it that the prompts show, at most


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_matching_needs_neither_other_devices_nor_the_host_inside_a_program(results: Results, strategy: str) -> None:
    """The forward pass ends with the costs; all that it gathers are parameters, where they are split."""
    found = results["1x8", f"float64:{strategy}"]
    for program in ("forward", "losses", "backward", "update"):
        assert not talks_to_the_host(found[program])
    rest = [one for one in collectives(found["forward"]) if "sharding_constraint" not in one.operation]
    shown = WORDS * 32 if strategy == "fsdp" else 0  # token embeddings, taken from where they are split
    assert sum(one.entries for one in rest) < NOTHING + shown
    assert (sent(found["forward"], "all-gather") > NOTHING) == (strategy == "fsdp")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_text_queries_are_gathered_for_the_losses(results: Results, strategy: str) -> None:
    program, texts = results["1x8", f"float64:{strategy}"]["losses"], IMAGES * 12 * 32  # images, queries, width
    assert sent(program, "all-gather") == texts
    assert texts <= sent(program, "all-reduce") < texts + NOTHING  # and their gradient
    assert {one.kind for one in collectives(program)} == {"all-gather", "all-reduce"}


def test_the_bytes_of_a_step_are_those_of_the_page(results: Results) -> None:
    """docs/multi-host.md; rings send 2 (n - 1) / n of what they reduce and (n - 1) / n of what they gather."""
    sizes = {name: array.size for name, array in results["1x1", "float64:ddp"].items() if name.startswith("parameter/")}
    embedding = sizes["parameter/text_encoder/token_embedding"]
    parameters = sum(sizes.values()) - embedding
    few = embedding // VOCABULARY * WORDS
    whole, split = (results["1x8", f"float64:{strategy}"] for strategy in STRATEGIES)
    ring = 7 / 8 * FLOAT32
    reduced = 2 * ring * sent(whole["backward"], "all-reduce")
    most = least_bytes(parameters + few, 8, "ddp")
    assert 0.98 * least_bytes(parameters, 8, "ddp") <= reduced <= most
    assert sent(whole["backward"], "all-gather") + sent(whole["update"], "all-gather") < NOTHING

    gathered = sent(split["forward"], "all-gather") + sent(split["backward"], "all-gather")
    reduced = sent(split["backward"], "all-reduce")  # on CPU; a reduce-scatter sends half of what that does
    least, most = (least_bytes(number, 8, "fsdp") for number in (parameters, parameters + few))
    assert 0.95 * least <= ring * (gathered + reduced) <= 1.05 * most
