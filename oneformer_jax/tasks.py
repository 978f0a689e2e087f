"""The three tasks, in the order in which task indices count them."""

from typing import Literal, get_args

Task = Literal["semantic", "instance", "panoptic"]
TASKS: tuple[Task, ...] = get_args(Task)
RICHEST_FIRST: tuple[Task, ...] = ("panoptic", "instance", "semantic")
"""Those first whose results tell most."""


def task_of(name: str) -> Task:
    """Raises ValueError: unknown task."""
    if name not in TASKS:
        raise ValueError(f"task must be one of {TASKS}, not {name!r}")
    return TASKS[TASKS.index(name)]
