"""What a step of a training needs, said where memory has run out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from oneformer_jax.app.run.failures import explained, is_out_of_memory
from oneformer_jax.errors import OneFormerError
from oneformer_jax.training.run import TrainingRun
from oneformer_jax.training.step_memory import StepMemory, training_memory


def needed_memory(settings: TrainingRun) -> StepMemory:
    """What a step of the training needs of each device, with 16 segments in each image.

    Raises OneFormerError: the backend does not say.
    """
    pipeline = settings.pipeline
    return training_memory(
        settings.recipe, pipeline.batch_size, pipeline.augmentation.crop, settings.length.batches_per_step
    )


def what_to_change(settings: TrainingRun) -> str:
    """The keys that save memory and are not set to do so yet, those first that cost least."""
    recipe, batch_size = settings.recipe, settings.pipeline.batch_size
    changes = [
        "train.precision=bf16-mixed" if recipe.step.precision == "32" else "",
        "" if getattr(recipe.model.backbone, "use_checkpoint", True) else "model.backbone.swin.use_checkpoint=true",
        f"dataset.train.batch_size={batch_size // 2} with "
        f"train.accumulate_grad_batches={2 * settings.length.batches_per_step} (the same step)"
        if batch_size > 1
        else "",
        "a smaller dataset.augmentation.train_crop_size",
    ]
    return f"set {', '.join(filter(None, changes))}"


@contextmanager
def explaining_out_of_memory(settings: TrainingRun, estimate: Callable[[], StepMemory]) -> Iterator[None]:
    """Raises OneFormerError with the estimate of a step and with what to change where memory runs out inside."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        known = explained(error, "train")
        assert known is not None
        try:
            needed = _in_words(estimate())
        except Exception as failed:  # memory may not even suffice for that: what ran out comes first
            needed = f"what a step needs could not be estimated ({str(failed).splitlines()[0][:100]})"
        raise OneFormerError(f"{known.what}; {needed}", hint=what_to_change(settings)) from error


def _in_words(memory: StepMemory) -> str:
    parts = {
        "parameters": memory.parameters,
        "optimizer": memory.optimizer,
        "average": memory.average,
        "gradients": memory.gradients,
        "kept for the backward pass": memory.kept,
        "working memory": memory.working,
    }
    listed = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in parts.items() if size)
    return f"a step needs about {memory.total / 2**20:,.0f} MiB of each device, during {memory.moment} ({listed})"
