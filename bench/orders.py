"""Hashing and recovering orders, against coincurve's bare recovery of the same signatures."""

from __future__ import annotations

from collections.abc import Iterator

import coincurve

from bench import Ratio, fastest
from sealdeal.model.eip712 import digest, hub_domain
from sealdeal.model.keys import Key, recover_digest
from sealdeal.model.orders import Params, RequestOrder, Signed
from sealdeal.model.types import address

BATCH = 500


def measure() -> Iterator[Ratio]:
    """Orders per second: hash + recovery, and recovery alone."""
    key = Key(b"\x01" * 32)
    domain = hub_domain(31337, address("0x" + "ab" * 20))
    app, pool = address("0x" + "cd" * 20), address("0x" + "ef" * 20)
    orders = [
        Signed.by(
            key,
            RequestOrder(
                app=app,
                appmaxprice=3 * 10**9,
                workerpool=pool,
                workerpoolmaxprice=40 * 10**9,
                requester=key.address,
                beneficiary=key.address,
                params=Params(args=f"--seed {i}", result_encryption=True).to_text(),
                salt=i.to_bytes(32, "big"),
            ),
            domain,
        )
        for i in range(BATCH)
    ]
    digests = [signed.hash(domain) for signed in orders]
    raw = [signed.sign[:64] + bytes([signed.sign[64] - 27]) for signed in orders]

    def ours() -> None:
        for signed in orders:
            assert recover_digest(digest(domain, signed.order), signed.sign) == key.address

    def bare() -> None:
        for hashed, signature in zip(digests, raw, strict=True):
            coincurve.PublicKey.from_signature_and_message(signature, hashed, hasher=None)

    bare()
    yield Ratio(
        "order hash + recovery",
        BATCH / fastest(ours),
        "coincurve's bare recovery",
        BATCH / fastest(bare),
        "1/s",
    )
