"""What is not honoured is named, and nothing else is."""

from oneformer_jax.app.spec import Spec, unsupported_keys
from oneformer_jax.app.spec.field import Key
from oneformer_jax.app.spec.spec import notes


def test_only_what_the_user_changes_is_named(load) -> None:
    """The keys named here belong to what JAX does by itself, so they stay unsupported."""
    assert unsupported_keys(Spec()) == []
    text = """
train: {seed: 5, cudnn: {benchmark: true, deterministic: true}}
dataset: {pin_memory: false, workers: 8}
model: {backbone: {swin: {window_size: 7}}, export: true}
"""
    expected = ["model.export", "dataset.pin_memory", "train.cudnn.benchmark"]
    assert unsupported_keys(load(text)) == expected
    assert all(notes()[key] for key in expected)


def test_a_key_may_be_honoured_with_some_values_only() -> None:
    key = Key(honoured=lambda value: value == "a", note="only a")
    assert key.honours("a")
    assert not key.honours("b")
