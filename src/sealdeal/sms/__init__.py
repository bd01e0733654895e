"""An SMS node: evidence and chain in, sealed secrets and grants out."""
