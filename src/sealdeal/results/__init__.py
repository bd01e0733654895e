"""The result store: results by content address, bound to their task; and an IPFS node's add and gateway."""
