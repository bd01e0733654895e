"""Secrets are shared among the SMS nodes, and looked after: keep_secrets.py NETWORK_FILE"""

import sys
from pathlib import Path

from sealdeal.model.results import generate_result_key
from sealdeal.model.sealing import SecretKind
from sealdeal.sdk.custody import SecretId
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

network = Network.load(Path(sys.argv[1]))
with Sealdeal.newcomer(network, 0) as alice:
    # No single node can read what is shared: it takes the quorum's threshold of them, inside an enclave.
    shared = alice.share_secrets({"login": b"alice", "password": b"open sesame"})
    for name, receipt in shared.items():
        terms = receipt.document
        print(f"{name}: {len(terms.nodes)} nodes hold a share, {terms.threshold} recombine it")

    app, _ = alice.do(alice.hub.create_app("sender", "DOCKER", b"registry.example/sender:1", b"\x01" * 32))
    alice.share_secret(b"an API token", kind=SecretKind.APP_SECRET, subject=app, name="1")

    private_key, public_key = generate_result_key()
    alice.share_result_key(public_key)  # results for this wallet are encrypted with it from now on

    login = SecretId.requester(alice.key.address, "login")
    status = alice.do(alice.secrets.status(login))
    assert status.available(alice.secrets.now())
    until = alice.do(alice.secrets.revoke(alice.key, login))
    print(f"{len(until)} nodes have forgotten it; the private key of {len(private_key)} bytes stays here")
