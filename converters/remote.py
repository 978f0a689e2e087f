"""Fetches weights from elsewhere into the local caches of huggingface_hub and fsspec."""

import os
import re
from pathlib import Path

from oneformer_jax.errors import CheckpointError

_INSTALL = "pip install 'oneformer_jax[convert]'"
_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")


def is_remote(location: str) -> bool:
    """Whether `location` is an address, not a path."""
    return "://" in location


def fetch(location: str) -> Path:
    """The local copy of hf://owner/name[@revision][/file] or of a file at any address that fsspec knows.

    Without a file, a Hugging Face repository becomes a folder with its configuration and weights. Raises
    CheckpointError when the address is wrong, the package for it is not installed or the file cannot be had.
    """
    fetch_it = _from_hub if location.startswith("hf://") else _from_url
    try:
        return fetch_it(location)
    except CheckpointError:
        raise
    except ImportError as error:
        raise CheckpointError(f"needs a package that is missing: {error}", where=location, hint=_INSTALL) from error
    except Exception as error:  # of whichever client library the address leads to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"cannot be fetched: {reason}",
            where=location,
            hint="check the address, the network and, for private files, your credentials (`hf auth login` for hf://)",
        ) from error


def _from_hub(location: str) -> Path:
    match = _HUB.fullmatch(location)
    if match is None:
        raise CheckpointError(
            "not an address of Hugging Face", where=location, hint="hf://owner/name[@revision][/file]"
        )
    import huggingface_hub

    repo, revision = match["repo"], match["revision"]
    if match["file"]:
        return Path(huggingface_hub.hf_hub_download(repo, match["file"], revision=revision))

    def snapshot(weights: str) -> Path:
        patterns = ["config.json", weights]
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))

    folder = snapshot("model*.safetensors*")
    # Many repositories hold the same weights twice: the other format is fetched only in want of this one.
    return folder if any(folder.glob("model*.safetensors")) else snapshot("pytorch_model*.bin*")


def _from_url(location: str) -> Path:
    import fsspec

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oneformer_jax"
    options = {"cache_storage": str(cache), "check_files": True}
    return Path(fsspec.open_local(f"filecache::{location}", mode="rb", filecache=options))
