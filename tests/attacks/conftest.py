"""Attacks run in the real sandbox, as the guest's own tests do."""

from tests.guest.conftest import app, cache, platform, release, sandbox, scene

__all__ = ["app", "cache", "platform", "release", "sandbox", "scene"]
