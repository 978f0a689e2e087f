"""Export of a tiny model in this process: failures, operator sets, post-processing, and models left as they are."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from models.tiny import TINY

from converters.onnx import export as module
from converters.onnx.export import export_model, write
from converters.onnx.operators import layer_norms_as_nodes, operations
from converters.onnx.settings import Ending
from converters.onnx.trace import build_graph
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.drawn_shapes import draw_picture
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.errors import EngineError
from oneformer_jax.models import oneformer, ops
from oneformer_jax.models.layers import Dropout
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.exported import open_session
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.predict.parity import Parity
from oneformer_jax.predict.predictor import load_model

pytestmark = pytest.mark.slow

PICTURE = draw_picture(80, np.random.default_rng(0))[0]
CATEGORIES = Categories.from_json([{"id": i, "name": name, "isthing": i % 2} for i, name in enumerate("abc")])
METADATA = Metadata(
    categories=CATEGORIES,
    num_classes=3,
    num_queries=5,
    image_size=(64, 64),
    batch_size=-1,
    pixel_mean=(100.0, 110.0, 120.0),
    pixel_std=(50.0, 60.0, 70.0),
    task_pad_id=0,
    task_tokens=tuple(map(tuple, task_tokens(0, TINY.task_seq_len).tolist())),
    checkpoint="random weights",
)


@pytest.fixture(scope="module")
def params():
    return oneformer.init(TINY, jax.random.key(3))


def exported(params, path: Path, *, opset: int = 17, ending: Ending | None = None, **metadata: object):
    told = dataclasses.replace(METADATA, **metadata)
    return export_model(params, TINY, metadata=told, path=path, opset=opset, ending=ending, pictures=[PICTURE])


def test_a_graph_that_computes_something_else_is_kept_under_another_name(
    params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.jax_forward

    def other(*arguments):
        forward = real(*arguments)
        return lambda *inputs: (forward(*inputs)[0], forward(*inputs)[1] * 1.01)

    monkeypatch.setattr(module, "jax_forward", other)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"of before")
    with pytest.raises(EngineError, match=r"model\.failed\.onnx: .*of the entries of pred_masks agree, not 99\.9 %"):
        exported(params, path)
    assert path.read_bytes() == b"of before"
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.failed.onnx"}
    onnx.checker.check_model(str(tmp_path / "model.failed.onnx"))


def test_the_reference_is_computed_in_float64(params, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    tokens = METADATA.tokens_of("semantic")[None]
    single = jax.jit(lambda *x: oneformer.predict(*x, config=TINY))
    features = oneformer.encode(params, jnp.asarray(images).transpose(0, 2, 3, 1), config=TINY)
    expected = single(params, features, jnp.asarray(tokens))
    real, seen = oneformer.predict, []

    def predict(*inputs, **facts):
        seen.extend(leaf.dtype for leaf in jax.tree.leaves(inputs))
        outputs = real(*inputs, **facts)
        seen.extend(leaf.dtype for leaf in jax.tree.leaves(outputs))
        return outputs

    monkeypatch.setattr(oneformer, "predict", predict)
    exact = module.jax_forward(params, TINY)(images, tokens)
    assert set(seen) == {np.dtype(np.float64)}
    for a, b in zip(exact, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())
    assert jnp.ones(1).dtype == np.float32, "float32 again"


@pytest.mark.prove  # `make test`: other threads, below, and the nodes of what tests/e2e/test_export.py writes
def test_models_compute_the_same_before_and_after(params, tmp_path: Path) -> None:
    images, tokens = jnp.ones((1, 64, 64, 3)), jnp.ones((1, TINY.task_seq_len))

    def forward(params, images, tokens):
        features = oneformer.encode(params, images, config=TINY)
        return oneformer.decode(params, features, tokens, config=TINY).class_logits

    before = jax.jit(forward)(params, images, tokens)  # compiled and cached: the trace for the graph must not take it
    result = exported(params, tmp_path / "model.onnx")
    assert "GatherND" in result.nodes
    assert "GridSample" not in result.nodes
    assert before.shape == (3, 1, 5, 4)
    traced = jax.make_jaxpr(forward)(params, images, tokens)
    assert "oneformer." not in str(traced)
    np.testing.assert_array_equal(jax.jit(lambda *x: forward(*x))(params, images, tokens), before)


def test_other_threads_compute_as_ever_while_the_model_is_traced_for_a_graph(params) -> None:
    """Equations and layers that the graph has other formulations of."""
    maps, dense, norm = jnp.arange(24.0).reshape(2, 3, 4), nn.Dense(5), nn.LayerNorm()
    of_dense, of_norm = (layer.init(jax.random.key(0), maps) for layer in (dense, norm))

    def computed() -> list[np.ndarray]:
        product = jnp.einsum("bqc,bkc->bqk", maps, maps)
        tokens = maps[:, :, None]
        attended = ops.attend((tokens, tokens, tokens), Dropout(0.0, True), scale=1.0)
        layers = dense.apply(of_dense, maps), norm.apply(of_norm, maps)
        return [np.asarray(x) for x in (product, attended, *layers)]

    expected, found = computed(), []

    def forward(images: jax.Array, tokens: jax.Array) -> Any:
        config = dataclasses.replace(TINY, ops=operations("grid_sample"))
        features = oneformer.encode(params, images, config=config)
        with ops.using(config.ops), ThreadPoolExecutor(1) as another:
            found.extend(another.submit(computed).result())
        return oneformer.predict(params, features, tokens, config=config)

    with layer_norms_as_nodes():
        traced = jax.make_jaxpr(forward)(jnp.ones((1, 64, 64, 3)), jnp.ones((1, TINY.task_seq_len)))
    assert {"oneformer.matmul", "oneformer.layer_norm", "oneformer.grid_sample"} <= {
        equation.primitive.name for equation in traced.eqns
    }
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_another_operator_set_and_a_static_batch(params, tmp_path: Path) -> None:
    result = exported(params, tmp_path / "model.onnx", opset=20, batch_size=2)
    model = onnx.load(str(result.path))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert [value.type.tensor_type.shape.dim[0].dim_value for value in model.graph.input] == [2, 2]
    assert result.parity.images == {"random": 4, "real": 1}


def test_weights_of_a_large_model_stand_beside_it(params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ONE_FILE_BYTES", 1000)
    result = exported(params, tmp_path / "model.onnx")
    weights = tmp_path / "model.onnx.data"
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert weights.stat().st_size > result.path.stat().st_size / 4
    assert result.megabytes == pytest.approx((weights.stat().st_size + result.path.stat().st_size) / 1e6, abs=1e-3)
    assert load_model(result.path).categories == CATEGORIES


def test_post_processing_in_the_graph_is_compared_and_refused_for_scoring(params, tmp_path: Path) -> None:
    ending = Ending("panoptic", Thresholds(object_mask_threshold=0.0, overlap_threshold=0.0))
    result = exported(params, tmp_path / "model.onnx", ending=ending, postprocess="panoptic")
    assert min(result.parity.agreement.values()) >= 0.999
    model = onnx.load(str(result.path))
    assert [value.name for value in model.graph.input] == ["images"]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [value.name for value in model.graph.output] == ["segment_ids", "labels", "scores"]
    with pytest.raises(EngineError, match=r"exported with post-processing \(panoptic\)"):
        load_model(result.path)


def test_what_is_not_a_number_does_not_agree() -> None:
    assert Parity({}, {}, {"random": float("nan")}).failures
    assert not Parity({}, {}, {"random": 0.999}).failures


@pytest.mark.parametrize("pad_id", [0, 49407])
def test_rows_of_tokens_are_read_whatever_they_are_padded_with(params, tmp_path: Path, pad_id: int) -> None:
    """As TAO Deploy gives them to a model that was trained with the original's padding, and the other way round."""
    config = dataclasses.replace(TINY, task_pad_id=pad_id)
    write(build_graph(params, config, METADATA, opset=17), tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx", device="cpu", device_id=0)
    images = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    texts = {"semantic": [29119, 1550], "instance": [34572], "panoptic": [1072, 24755]}  # ids of CLIP's vocabulary
    length = TINY.task_seq_len
    by_padding = []
    for padding in (0, 49407):
        rows = [[49406, 518, 10549, 533, *word, 49407] for word in texts.values()]
        tokens = np.array([row + [padding] * (length - len(row)) for row in rows], np.float32)
        if padding == pad_id:
            np.testing.assert_array_equal(tokens, task_tokens(pad_id, length))
        by_padding.append(session.run(None, {"images": images, "task_tokens": tokens}))
    for one, other in zip(*by_padding, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.ptp(by_padding[0][0], axis=0).max() > 1e-4, "the tasks differ"
