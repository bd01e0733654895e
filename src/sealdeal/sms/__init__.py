"""An SMS node: evidence and chain in, sealed secrets and grants out."""

from .app import create_app
from .release import Node

__all__ = ["Node", "create_app"]
