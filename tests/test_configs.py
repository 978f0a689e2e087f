"""Every spec and template in configs/ describes a model whose shapes fit, without computing anything."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from oneformer_jax.app.settings.model import model_config
from oneformer_jax.app.spec import load_spec, unsupported_keys
from oneformer_jax.models import oneformer
from oneformer_jax.models.predictions import mask_logits

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
TEMPLATES = sorted(FOLDER.glob("skill/references/spec_template_*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [*CONFIGS, FOLDER / "skill/references/spec_template_train.yaml"], ids=lambda path: path.stem
)
def test_shapes(path: Path) -> None:
    spec = load_spec(path)
    assert unsupported_keys(spec) == []
    config = model_config(spec)
    height, width = spec.dataset.augmentation.train_crop_size
    batch, queries = spec.dataset.train.batch_size, spec.model.one_former.num_object_queries

    def forward(key: jax.Array) -> tuple:
        params = oneformer.init(config, key)
        features = oneformer.encode(params, jnp.zeros((batch, height, width, 3)), config=config, rng=key)
        layers = oneformer.decode(params, features, jnp.zeros((batch, config.task_seq_len)), config=config, rng=key)
        prompts = jnp.zeros((batch, queries - config.text_encoder.n_ctx), jnp.int32)
        texts = oneformer.encode_text(params, jnp.zeros((10, 9), jnp.int32), prompts, config=config)
        masks = mask_logits(layers.mask_embeddings[-1], layers.mask_features)
        return layers.class_logits[-1], masks, layers.object_queries, texts

    class_logits, masks, object_queries, texts = jax.eval_shape(forward, jax.random.key(0))
    assert class_logits.shape == (batch, queries, spec.model.sem_seg_head.num_classes + 1)
    assert masks.shape == (batch, queries, height // 4, width // 4)
    assert object_queries.shape == texts.shape == (batch, queries, spec.model.one_former.hidden_dim)


@pytest.mark.slow
def test_every_template_has_the_model_of_the_one_whose_shapes_are_checked() -> None:
    for path in TEMPLATES:
        assert model_config(load_spec(path)) == model_config(load_spec(TEMPLATES[-1])), path.stem


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 3
    assert TEMPLATES[-1].stem == "spec_template_train"
    assert len(TEMPLATES) == 9
