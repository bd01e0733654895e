"""Attacks run in the real sandbox and on real SMS nodes, as the guest's and the nodes' own tests do."""

from tests.guest.conftest import app, cache, platform, release, sandbox, scene
from tests.sms.conftest import guest_of, nodes

__all__ = ["app", "cache", "guest_of", "nodes", "platform", "release", "sandbox", "scene"]
