"""Fetches weights from elsewhere: from Hugging Face into its own cache, from other addresses into the cache of this
project."""

import re
from pathlib import Path

from oneformer_jax.data.storage.cache import fetch_file
from oneformer_jax.errors import CheckpointError, DataError
from oneformer_jax.extras import install_hint

_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")


def fetch(address: str) -> Path:
    """The local copy of hf://owner/name[@revision][/file] or of a file at any address that fsspec knows.

    Without a file, a Hugging Face repository becomes a folder with its configuration and weights. Raises
    CheckpointError when the address is wrong, the package for it is not installed or the file cannot be had.
    """
    if address.startswith("hf://"):
        return _from_hub(address)
    try:
        return fetch_file(address)
    except DataError as error:
        raise CheckpointError(error.what, where=error.where, hint=error.hint) from error


def _from_hub(address: str) -> Path:
    match = _HUB.fullmatch(address)
    if match is None:
        raise CheckpointError("not an address of Hugging Face", where=address, hint="hf://owner/name[@revision][/file]")
    try:
        return _download(match["repo"], match["revision"], match["file"])
    except ImportError as error:
        hint = install_hint("remote")
        raise CheckpointError(f"needs a package that is missing: {error}", where=address, hint=hint) from error
    except Exception as error:  # of any of the libraries below huggingface_hub
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "check the address, the network and, for private files, your credentials (`hf auth login`)"
        raise CheckpointError(f"cannot be fetched: {reason}", where=address, hint=hint) from error


def _download(repo: str, revision: str | None, file: str | None) -> Path:
    import huggingface_hub

    if file:
        return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))

    def snapshot(weights: str) -> Path:
        patterns = ["config.json", weights]
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))

    folder = snapshot("model*.safetensors*")
    # Many repositories hold the same weights twice: the other format is fetched only in want of this one.
    return folder if any(folder.glob("model*.safetensors")) else snapshot("pytorch_model*.bin*")
