# pragma version 0.4.3
"""
@title Dataset: a dataset in the DatasetRegistry
@license Apache-2.0
"""
import entry
import types

initializes: entry

# Whose it is: registry(), owner(), and the refused setName.
exports: entry.__interface__


# What people call it.
m_datasetName: public(String[types.TEXT])

# Where its encrypted bytes lie.
m_datasetMultiaddr: public(Bytes[types.BLOB])

# sha256 of its encrypted bytes.
m_datasetChecksum: public(bytes32)


@deploy
def __init__():
    entry.__init__()


@external
def initialize(name: String[types.TEXT], multiaddr: Bytes[types.BLOB], checksum: bytes32):
    entry._only_registry()
    self.m_datasetName = name
    self.m_datasetMultiaddr = multiaddr
    self.m_datasetChecksum = checksum
