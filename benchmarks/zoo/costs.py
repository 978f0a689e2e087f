"""What a published model costs: parameters, operations, and the memory of the compiled program. Nothing is run."""

import json
from typing import Any

from benchmarks import machine
from benchmarks.command import RESULTS
from benchmarks.zoo.specs import spec_of
from benchmarks.zoo.table import DATA, ENTRIES
from oneformer_jax.app.actions.model.cost import inference_cost, parameter_counts
from oneformer_jax.app.settings.evaluation import evaluation_policy
from oneformer_jax.app.settings.training import training_recipe
from oneformer_jax.app.spec import load_spec
from oneformer_jax.data.geometry import Size
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig

FILE = RESULTS / "zoo-cpu.json"


def write() -> None:
    """Compiles what is not in the file yet, and adds it."""
    known: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {"machine": machine.describe()}
    costs = known.setdefault("costs", {})
    same = {key_of(*model_of(entry.stem)): entry.stem for entry in ENTRIES if entry.stem in costs}
    for entry in ENTRIES:
        key = key_of(*model_of(entry.stem))
        if entry.stem not in costs:
            costs[entry.stem] = costs[same[key]] if key in same else cost_of(entry.stem)
            same[key] = entry.stem
            print(entry.stem, costs[entry.stem], flush=True)
            FILE.write_text(json.dumps(known, indent=1) + "\n")


def model_of(stem: str) -> tuple[OneFormerConfig, Size]:
    """Its architecture, and the size (height, width) of a usual picture of its data as the network gets it."""
    entry = next(entry for entry in ENTRIES if entry.stem == stem)
    spec = load_spec(spec_of(entry))
    recipe = training_recipe(spec)
    return recipe.model, evaluation_policy(spec)(DATA[entry.data].picture).padded


def key_of(config: OneFormerConfig, size: Size) -> str:
    """What the cost depends on."""
    return json.dumps([config.to_json(), size])


def cost_of(stem: str) -> dict[str, Any]:
    """Millions of parameters without those for training alone, GFLOP, and MiB by what they hold, of one picture."""
    config, size = model_of(stem)
    entry = next(entry for entry in ENTRIES if entry.stem == stem)
    counts = parameter_counts(oneformer.shapes(config))
    only_training = counts["text encoder, only for training"]
    count, memory = inference_cost(training_recipe(load_spec(spec_of(entry))), 1, size)
    return {
        "size": list(size),
        "parameters_m": round((counts["all"] - only_training) / 1e6, 1),
        "gflop": round(count / 1e9, 1),
        "memory_mib": {name: round(size_of / 2**20) for name, size_of in memory.items()},
    }
