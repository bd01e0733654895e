# pragma version 0.4.3
"""
@title DataProtector: datasets whose schema is told when they are made
@license Apache-2.0
@notice A door to the DatasetRegistry for DataProtector's clients: one transaction registers a dataset and says, in
        an event, what is inside. It keeps nothing, owns nothing, and anyone may make another one like it. The
        schema is the caller's word: JSON text that no contract reads.
"""
import types


interface DatasetRegistry:
    def createDataset(
        owner: address, name: String[types.TEXT], multiaddr: Bytes[types.BLOB], checksum: bytes32
    ) -> address: nonpayable


event DatasetSchema:
    dataset: indexed(address)
    schema: String[SCHEMA]


# Longest schema.
SCHEMA: constant(uint256) = 8192

# Where the datasets are registered.
registry: public(immutable(address))


@deploy
def __init__(datasetregistry: address):
    """
    @param datasetregistry Where the datasets are registered.
    """
    registry = datasetregistry


@external
def createDatasetWithSchema(
    _datasetOwner: address,
    _datasetName: String[types.TEXT],
    _datasetSchema: String[SCHEMA],
    _datasetMultiaddr: Bytes[types.BLOB],
    _datasetChecksum: bytes32,
) -> address:
    """
    @notice Register a dataset, as anyone may there, and say what its plain content is made of.
    """
    dataset: address = extcall DatasetRegistry(registry).createDataset(
        _datasetOwner, _datasetName, _datasetMultiaddr, _datasetChecksum
    )
    log DatasetSchema(dataset=dataset, schema=_datasetSchema)
    return dataset
