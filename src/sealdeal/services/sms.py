"""An SMS node of the quorum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sealdeal.chain import Rpc
from sealdeal.model.errors import InvalidInput
from sealdeal.model.evidence import DCAP, SEV_SNP
from sealdeal.model.types import unhex
from sealdeal.sdk.sms import SmsClient
from sealdeal.sdk.vendors import vendor_get
from sealdeal.sms.app import create_app
from sealdeal.sms.options import SmsOptions
from sealdeal.sms.release import Node
from sealdeal.tee import DcapVerifier, vendors
from sealdeal.tee.collateral import AMD_URL, INTEL_URL, AmdKds, Collateral, Pccs, Source

from .hosting import Process


async def start(
    process: Process,
    options: SmsOptions,
    *,
    simulated_public: bool = False,
    name: str = "",
    storage_key: bytes | None = None,
    collateral: Collateral | None = None,
    machines: Sequence[Mapping[str, bytes]] = (),
) -> None:
    """Open it; the process's key signs its grants. `simulated_public`: whether a node of a simulated network
    answers other machines. `name`: of its storage key, if not its address; `storage_key`: where the options
    have none. `collateral`: its own, of a simulated network. `machines`: registers of the machines
    that it trusts in place of the guest's release. Raises InvalidInput for what is missing."""
    said, network, listener = process.hosting, process.network, process.listen()
    simulated = network.trust == "simulated"
    if simulated and network.tee_root is None:
        raise InvalidInput("expected `tee_root` in the file of a simulated network, got none")
    get = vendor_get()
    sources: dict[str, Source] = {DCAP: Pccs(get, INTEL_URL), SEV_SNP: AmdKds(get, AMD_URL)}
    witness = Rpc(options.witness_rpc) if options.witness_rpc else None
    if witness:
        process.closes(witness.aclose)
    storage_key = await options.storage_key(name or process.key.address) or storage_key
    if storage_key is None:
        raise InvalidInput(
            "expected a key for the node's database: set SEALDEAL_SMS_STORAGE_KEY_FILE or "
            "SEALDEAL_SMS_STORAGE_KEY_COMMAND"
        )
    peers = [SmsClient(url, process.transport(url)) for url in network.services.sms if url != process.name]
    for peer in peers:
        process.closes(peer.close)
    node = await Node.open(
        process.database,
        key=process.key,
        storage_key=storage_key,
        hub=process.hub,
        verifiers=[DcapVerifier(unhex(network.tee_root or ""))] if simulated else vendors(),
        guest_releases=[] if machines else [(await process.release()).digest],
        machines=machines,
        confirmations=said.confirmations,
        door=options.door,
        peers=peers,
        witness=witness,
        policies=options.policies(),
        collateral=collateral if simulated else Collateral(sources, folder=said.state / "collateral"),
    )
    process.closes(node.close)
    process.serve(create_app(node, unsafe_simulated_public=simulated_public), listener)
