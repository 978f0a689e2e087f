"""What needs no network; the number is that of behaviour.yaml."""

import socket

import pytest

from oneformer_jax.data import task_text


@pytest.mark.slow
@pytest.mark.tao(34)
def test_texts_are_tokenised_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the vocabulary is downloaded first; here a fresh tokenizer opens no connection."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    task_text._vocabulary.cache_clear()
    task_text._ids.cache_clear()
    assert task_text.encode("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]
