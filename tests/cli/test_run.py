"""`sealdeal run`: what the settings say of a service, and what its process loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sealdeal.cli import options
from sealdeal.cli.run import endpoint, hosting_of
from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import RLC
from sealdeal.pool.offers import OFFERS, Offer
from sealdeal.settings import Settings

SERVICES = ("market", "pool", "worker", "sms", "results")
LOAD = """
import json, sys
from sealdeal.cli.run import start_of
from sealdeal.settings import Settings
start_of(sys.argv[1], Settings())
print(json.dumps(sorted(sys.modules)))
"""


def loaded(service: str) -> set[str]:
    """The modules of a process that is about to open this service."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SEALDEAL_")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, service], capture_output=True, text=True, check=True, env=clean
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("service", SERVICES)
def test_a_process_loads_its_own_service_and_no_other(service: str) -> None:
    found = loaded(service)
    assert {name for name in SERVICES if f"sealdeal.{name}" in found} == {service}
    assert not found & {"sealdeal.node", "sealdeal.sdk.client", "alembic", "rich"}
    served = {"sealdeal.db", "sqlalchemy", "fastapi", "starlette"}
    assert found & served == (set() if service == "worker" else served)
    assert ("graphql" in found) is (service == "market")


def test_a_market_is_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RATE_LIMIT": "7", "PROXIES": "10.0.0.0/8", "PRIVATE_WEBHOOKS": "true"}.items():
        monkeypatch.setenv(f"SEALDEAL_MARKET_{name}", value)
    found = options.market(Settings())
    assert (found.limits.requests, found.limits.proxies) == (7, ("10.0.0.0/8",))
    assert found.private_webhooks


def test_an_endpoint_has_a_host_and_a_port() -> None:
    assert endpoint("127.0.0.1:0") == ("127.0.0.1", 0)
    assert endpoint("[::1]:7300") == ("::1", 7300)
    for wrong in ("7300", "::1:7300", "host:", "host:65536", "a b:1"):
        with pytest.raises(InvalidInput, match="HOST:PORT"):
            endpoint(wrong)


def test_offers_are_categories_prices_and_numbers_of_tasks() -> None:
    assert options.offers(" ") == OFFERS
    assert options.offers("0:1.5, 3:2:7") == (Offer(0, 3 * RLC // 2, 100), Offer(3, 2 * RLC, 7))
    for wrong in ("0", "x:1", "0:1:many", "0:", ","):
        with pytest.raises(InvalidInput):
            options.offers(wrong)


def test_schedulers_are_urls_with_commas() -> None:
    assert options.schedulers("http://a:1, http://b:2,") == ("http://a:1", "http://b:2")
    assert options.schedulers("") == ()


def test_a_service_needs_a_key_that_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEALDEAL_KEY_FILE", raising=False)
    with pytest.raises(InvalidInput, match="SEALDEAL_KEY_FILE"):
        hosting_of(Settings())
