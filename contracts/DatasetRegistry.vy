# pragma version 0.4.3
"""
@title DatasetRegistry: the collection of datasets
@license Apache-2.0
"""
import registry
import types

initializes: registry

# ERC-721 with its enumeration and metadata, ownership, and what is common to the three: see registry.vy.
exports: registry.__interface__


KIND: constant(uint256) = 2


@deploy
def __init__(hub: address, dataset_code: Bytes[16384]):
    """
    @param hub The hub that mirrors the entries (it may be deployed later), or zero.
    @param dataset_code Creation code of Dataset.
    """
    registry.__init__(hub, dataset_code, KIND << 184, "iExec Dataset Registry (V5)", "iExecDatasetsV5")


@external
def createDataset(
    owner: address, name: String[types.TEXT], multiaddr: Bytes[types.BLOB], checksum: bytes32
) -> address:
    return registry._create(owner, self._setup(name, multiaddr, checksum))


@external
@view
def predictDataset(
    owner: address, name: String[types.TEXT], multiaddr: Bytes[types.BLOB], checksum: bytes32
) -> address:
    return registry._predict(owner, self._setup(name, multiaddr, checksum))


@internal
@pure
def _setup(
    name: String[types.TEXT], multiaddr: Bytes[types.BLOB], checksum: bytes32
) -> Bytes[registry.SETUP]:
    return abi_encode(name, multiaddr, checksum, method_id=method_id("initialize(string,bytes,bytes32)"))
