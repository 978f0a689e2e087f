"""The three tasks, in the order in which task indices count them."""

from typing import Literal, get_args

Task = Literal["semantic", "instance", "panoptic"]
TASKS: tuple[Task, ...] = get_args(Task)
