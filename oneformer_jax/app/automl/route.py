"""Which action a training is. Apart from the actions themselves, so that a typo in the spec is answered at once."""

from pathlib import Path

from rich.console import Console

from oneformer_jax.app.automl.policy import Policy, route_training
from oneformer_jax.app.spec import load_spec
from oneformer_jax.errors import OneFormerError, SpecError


def action_for_training(spec_path: Path, overrides: list[str], policy: Policy | None, console: Console) -> str:
    """`automl` where the policy, given or else the spec's, asks for a search that can run; `train` otherwise.

    Where one of them says anything, it is told which. What is wrong is left to the action, which writes FAILURE.
    """
    try:
        spec = load_spec(spec_path, overrides)
    except SpecError:
        return "train"
    asked = policy or spec.automl_policy
    if not asked:
        return "train"
    try:
        found = route_training(asked, Path(spec.automl.skill_dir) if spec.automl.skill_dir else None)
    except OneFormerError:
        return "automl"
    console.print(found.reason, markup=False, highlight=False, soft_wrap=True)
    return found.command
