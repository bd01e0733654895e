# pragma version 0.4.3
"""
@title AppRegistry: the collection of applications
@license Apache-2.0
"""
import registry
import types

initializes: registry

# ERC-721 with its enumeration and metadata, ownership, and what is common to the three: see registry.vy.
exports: registry.__interface__


KIND: constant(uint256) = 1


@deploy
def __init__(hub: address, app_code: Bytes[16384]):
    """
    @param hub The hub that mirrors the entries (it may be deployed later), or zero.
    @param app_code Creation code of App.
    """
    registry.__init__(hub, app_code, KIND << 184, "iExec Application Registry (V5)", "iExecAppsV5")


@external
def createApp(
    owner: address,
    name: String[types.TEXT],
    type: String[types.TEXT],
    multiaddr: Bytes[types.BLOB],
    checksum: bytes32,
    mrenclave: Bytes[types.BLOB],
) -> address:
    return registry._create(owner, self._setup(name, type, multiaddr, checksum, mrenclave))


@external
@view
def predictApp(
    owner: address,
    name: String[types.TEXT],
    type: String[types.TEXT],
    multiaddr: Bytes[types.BLOB],
    checksum: bytes32,
    mrenclave: Bytes[types.BLOB],
) -> address:
    return registry._predict(owner, self._setup(name, type, multiaddr, checksum, mrenclave))


@internal
@pure
def _setup(
    name: String[types.TEXT],
    type: String[types.TEXT],
    multiaddr: Bytes[types.BLOB],
    checksum: bytes32,
    mrenclave: Bytes[types.BLOB],
) -> Bytes[registry.SETUP]:
    return abi_encode(
        name,
        type,
        multiaddr,
        checksum,
        mrenclave,
        method_id=method_id("initialize(string,string,bytes,bytes32,bytes)"),
    )
