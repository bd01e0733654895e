"""A workerpool's scheduler: it opens tasks, gives them to workers, and ends what can't succeed."""

from .app import create_app
from .rules import PoolSettings, Rules
from .scheduler import Scheduler

__all__ = ["PoolSettings", "Rules", "Scheduler", "create_app"]
