"""The optimizer chain against torch.optim.AdamW with the same parameter groups, and clipping that clips."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from oneformer_jax.models import oneformer
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)
from oneformer_jax.training.optimizer import (
    NO_DECAY,
    OptimizerConfig,
    _norm_of_rows,
    global_norm,
    make_optimizer,
    parameter_names,
)

LR = 1e-2


def tree(rng: np.random.Generator) -> dict:
    def array(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return {
        "backbone": {"block": {"kernel": array(3, 4)}, "norm1": {"scale": array(4)}},
        "predictor": {"query_embed": array(5, 4), "class_embed": {"kernel": array(4, 2), "bias": array(2)}},
    }


@pytest.mark.slow
@pytest.mark.tao(5)
def test_matches_torch_adamw_with_groups() -> None:
    rng = np.random.default_rng(0)
    params, gradients = tree(rng), [tree(rng) for _ in range(5)]
    config = OptimizerConfig(weight_decay=0.1, momentum=0.8, backbone_multiplier=0.25, clip_value=0.0)
    optimizer = make_optimizer(config, optax.constant_schedule(LR))

    names = jax.tree.leaves(parameter_names(params))
    tensors = [torch.nn.Parameter(torch.tensor(leaf)) for leaf in jax.tree.leaves(params)]
    undecayed = {"backbone/norm1/scale", "predictor/query_embed"}
    reference = torch.optim.AdamW(
        [
            {
                "params": [tensor],
                "lr": LR * (0.25 if name.startswith("backbone/") else 1.0),
                "weight_decay": 0.0 if name in undecayed else 0.1,
            }
            for name, tensor in zip(names, tensors, strict=True)
        ],
        betas=(0.8, 0.999),
    )
    ours = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(ours)
    for gradient in gradients:
        for tensor, leaf in zip(tensors, jax.tree.leaves(gradient), strict=True):
            tensor.grad = torch.tensor(leaf)
        reference.step()
        updates, state = optimizer.update(gradient, state, ours)
        ours = optax.apply_updates(ours, updates)
    for leaf, tensor in zip(jax.tree.leaves(ours), tensors, strict=True):
        np.testing.assert_allclose(leaf, tensor.detach().numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [frozenset(), frozenset({"backbone/block/kernel"})])
def test_after_an_update_that_was_left_out_the_rate_is_that_of_the_step(frozen: frozenset[str]) -> None:
    """Updates 1 and 4 of 6 are left out: the last one is made at the rate that the schedule ends with."""
    params = {"backbone": {"block": {"kernel": jnp.ones(2)}}, "head": {"kernel": jnp.ones(2)}}
    gradient = jax.tree.map(jnp.ones_like, params)
    optimizer = make_optimizer(
        OptimizerConfig(weight_decay=0.0, clip_value=0.0), lambda step: 0.1 * (6 - step), frozen=frozen
    )
    state = optimizer.init(params)
    for step in (0, 2, 3, 5):
        updates, state = optimizer.update(gradient, state, params, step=jnp.asarray(step))
        # Of equal gradients every update of Adam is 1.
        np.testing.assert_allclose(updates["head"]["kernel"], -0.1 * (6 - step), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.tao(2)
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
def test_full_model_clipping_bounds_the_norm_that_torch_computes(norm_type: float) -> None:
    gradients = tree(np.random.default_rng(1))
    tensors = [torch.zeros(leaf.shape, requires_grad=True) for leaf in jax.tree.leaves(gradients)]
    for tensor, leaf in zip(tensors, jax.tree.leaves(gradients), strict=True):
        tensor.grad = torch.tensor(leaf)
    norm = torch.nn.utils.clip_grad_norm_(tensors, 0.5, norm_type=norm_type)
    assert float(global_norm(gradients, norm_type)) == pytest.approx(float(norm), rel=1e-5)

    # The first moment after one update is (1 - momentum) times the gradient that came out of the clip.
    clip = make_optimizer(OptimizerConfig(clip_value=0.5, clip_norm_type=norm_type), optax.constant_schedule(1.0))
    _, state = clip.update(gradients, clip.init(gradients), gradients)
    for moment, tensor in zip(jax.tree.leaves(state[1].mu), tensors, strict=True):
        np.testing.assert_allclose(moment, 0.1 * tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_the_norm_that_gpus_compute_is_that_of_all_entries() -> None:
    """Large leaves by rows, of which some do not divide into the usual number, small ones joined."""
    random = np.random.default_rng(2)
    shapes = [(300, 1024), (65537,), (7, 9973), *[(3, 5)] * 70, ()]
    leaves = [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]
    expected = np.sqrt(sum(np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in leaves))
    assert float(_norm_of_rows(*leaves)) == pytest.approx(expected, rel=1e-6)


def test_value_clipping_bounds_each_entry() -> None:
    chain = make_optimizer(OptimizerConfig(clip_type="value", clip_value=0.1), optax.constant_schedule(1.0))
    gradients = {"head": jnp.array([5.0, -0.05])}
    _, state = chain.update(gradients, chain.init(gradients), gradients)
    first_moment = state[1].mu["head"]
    np.testing.assert_allclose(first_moment, [0.1 * 0.1, 0.1 * -0.05], rtol=1e-5)


@pytest.mark.slow
def test_what_does_not_decay_is_norms_embeddings_and_position_tables() -> None:
    config = OneFormerConfig(
        backbone=SwinConfig(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), ape=True),
        pixel_decoder=PixelDecoderConfig(conv_dim=32, mask_dim=32, num_layers=1),
        transformer=TransformerConfig(hidden_dim=32, num_queries=20, dec_layers=2, class_dec_layers=1),
        text_encoder=TextEncoderConfig(width=32, num_layers=1),
    )
    shapes = jax.eval_shape(lambda: oneformer.init(config, jax.random.key(0)))
    names = jax.tree.leaves(parameter_names(shapes))
    undecayed = {name for name in names if NO_DECAY.search(name)}
    assert all(name.split("/")[-1] not in ("kernel",) for name in undecayed)
    kinds = {re.sub(r"\d+", "0", name.split("/")[-1]) for name in undecayed}
    assert kinds == {
        "scale",
        "bias",
        "relative_position_bias",
        "absolute_pos_embed",
        "positional_embedding",
        "query_embed",
        "level_embed",
        "token_embedding",
        "prompt_ctx",
        "logit_scale",
    }
    # The only biases among them are those of normalisation layers, and no normalisation layer is left out.
    for name in names:
        is_norm = f"{name.rpartition('/')[0]}/scale" in names
        if name.endswith("/bias"):
            assert (name in undecayed) == is_norm, name
