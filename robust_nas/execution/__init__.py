"""Where tasks run: local worker processes or a Ray cluster. Knows nothing of what a task computes."""

from robust_nas.execution.engine import LOST, Ended, Engine, RunTasks, Task
from robust_nas.execution.local import LocalEngine
from robust_nas.execution.ray import RayEngine

__all__ = ["LOST", "Ended", "Engine", "LocalEngine", "RayEngine", "RunTasks", "Task"]
