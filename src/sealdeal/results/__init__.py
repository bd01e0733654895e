"""The result store: results by content address, bound to their task; and an IPFS node's add and gateway."""

from .app import create_app
from .blobs import Blobs, FolderStore
from .uploads import Results

__all__ = ["Blobs", "FolderStore", "Results", "create_app"]
