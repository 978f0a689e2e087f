"""Stores the data sets of a spec as shards that `dataset.<split>.images: tfds://FOLDER` reads."""

import json
from pathlib import Path

# Here, before any thread runs: while it loads, etils replaces `builtins.__import__` (etils.epy.lazy_imports), and what
# the thread of a progress bar imports meanwhile fails.
import tensorflow_datasets  # noqa: F401
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oneformer_jax.app.run.checked_data import checked_datasets
from oneformer_jax.app.run.lock import only_process_in
from oneformer_jax.app.settings.data import splits_with_data
from oneformer_jax.app.spec import load_spec
from oneformer_jax.data.datasets import tfds_builder
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.tfds_dataset import SCHEME


def prepare(spec_path: Path, overrides: list[str], folder: Path, console: Console) -> None:
    """Checks the files of every split that the spec has, then stores what `folder` lacks of them.

    Raises OneFormerError: the data cannot be used, or the folder holds other data; OSError: the disk takes no more.
    """
    spec = load_spec(spec_path, overrides)
    datasets: dict[str, Dataset] = dict(checked_datasets(splits_with_data(spec), console).items())
    folder.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with only_process_in(folder), Progress(*columns, console=console, transient=True) as progress:
        bars = {split: progress.add_task(f"storing {split}", total=len(data)) for split, data in datasets.items()}
        tfds_builder.prepare(
            datasets,
            folder.resolve(),
            contiguous_id=spec.dataset.contiguous_id,
            advance=lambda split, count: progress.advance(bars[split], count),
        )
    sizes = tfds_builder.stored_sizes(folder)
    for split, dataset in datasets.items():
        own = [size for name, size in sizes.items() if name.startswith(f"{tfds_builder.NAME}-{split}.")]
        console.print(f"{split}: {len(dataset)} images in {len(own)} shards, {sum(own) / 1e9:.2f} GB", highlight=False)
    address = json.dumps(f"{SCHEME}{folder.resolve()}")
    console.print(f"dataset.<split>: {{images: {address}}}", markup=False, highlight=False, soft_wrap=True)
