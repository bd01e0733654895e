"""What an app may declare, and which addresses are public."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealdeal.model.errors import InvalidInput
from sealdeal.model.hosts import (
    HOSTS_LABEL,
    MAX_HOSTS,
    Host,
    declared_hosts,
    hosts_text,
    is_public,
    parse_hosts,
)

API = Host("api.example.org", 443)


def test_a_declaration_is_sorted_and_written_in_one_way() -> None:
    hosts = parse_hosts("db.example.org:5432,api.example.org:443,api.example.org:443")
    assert hosts == (API, Host("db.example.org", 5432))
    assert hosts_text(reversed(hosts)) == "api.example.org:443,db.example.org:5432"
    assert parse_hosts("") == () and hosts_text([]) == ""


@pytest.mark.parametrize(
    "text",
    [
        *("api.example.org", "api.example.org:", ":443", "localhost:443", "db:5432", "a..b:1", ".org:1"),
        *("127.0.0.1:80", "127.1:80", "[::1]:80", "::1:80", "0x7f.0.0.0x1:80", "2130706433:80"),
        *("a.org:0", "a.org:65536", "a.org:٤٤٣", "a.org:+443", "a.org:0443", "a.org:4 43", "a.org:443\n"),
        *("*.example.org:443", "Api.example.org:443", "a.org.:443", "a_b.org:443", "-a.org:1", "a-.org:1"),
        *("printer.local:80", "metadata.google.internal:80", "x.localhost:80", "é.org:443", "a.org/x:443"),
        *("user@a.org:443", "https://a.org:443", " a.org:443", "a.org:443,", ",", "a" * 64 + ".org:1"),
        ".".join(["a" * 60] * 5) + ".org:1",
    ],
)
def test_what_is_no_public_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_hosts(text)


def test_as_many_as_can_be_judged() -> None:
    names = [f"h{n}.example.org:443" for n in range(MAX_HOSTS + 1)]
    assert len(parse_hosts(",".join(names[1:]))) == MAX_HOSTS
    with pytest.raises(InvalidInput, match="at most 16"):
        parse_hosts(",".join(names))


@given(st.text(max_size=80))
@example("a.org:443,b.org:1")
def test_any_text_is_hosts_or_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        hosts = parse_hosts(text)
        assert parse_hosts(hosts_text(hosts)) == hosts
        for host in hosts:
            with pytest.raises(ValueError):
                ipaddress.ip_address(host.name)


def test_a_configuration_declares_by_its_label() -> None:
    assert declared_hosts({}) == declared_hosts({"Labels": None}) == declared_hosts({"Labels": {}}) == ()
    assert declared_hosts({"Labels": {HOSTS_LABEL: "api.example.org:443"}}) == (API,)
    for wrong in ({"Labels": {HOSTS_LABEL: ["a.org:1"]}}, {"Labels": {HOSTS_LABEL: "all"}}, {"Labels": [1]}):
        with pytest.raises(InvalidInput):
            declared_hosts(wrong)


INNER = """
    127.0.0.1 127.8.8.8 0.0.0.0 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1
    100.100.100.200 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1
    255.255.255.255 :: ::1 fe80::1 fe80::1%eth0 fd00:ec2::254 fc00::1 ff02::1 ff0e::1 2001:db8::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
    168.63.129.16 2002:7f00:1:: 2002:c0a8:101:: 2001:0:7f00:1::1 64:ff9b:1::7f00:1 nonsense 1.2.3
""".split()


@pytest.mark.parametrize("address", INNER)
def test_inner_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)
