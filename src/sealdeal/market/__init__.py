"""The marketplace: order book, matching engine, chain index, and the API that shows them."""

from .app import create_app
from .market import Market

__all__ = ["Market", "create_app"]
