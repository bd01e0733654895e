# pragma version 0.4.3
"""
@title App: an application in the AppRegistry
@license Apache-2.0
"""
import entry
import types

initializes: entry

# Whose it is: registry(), owner(), and the refused setName.
exports: entry.__interface__


# What people call it.
m_appName: public(String[types.TEXT])

# How it is packaged, such as "DOCKER".
m_appType: public(String[types.TEXT])

# Where its image lies.
m_appMultiaddr: public(Bytes[types.BLOB])

# sha256 of its image's OCI manifest: in a TEE deal, the app's measurement. An app with zero here gets no
# secrets.
m_appChecksum: public(bytes32)

# What older TEE frameworks measure; opaque, may be empty.
m_appMREnclave: public(Bytes[types.BLOB])


@deploy
def __init__():
    entry.__init__()


@external
def initialize(
    name: String[types.TEXT],
    type: String[types.TEXT],
    multiaddr: Bytes[types.BLOB],
    checksum: bytes32,
    mrenclave: Bytes[types.BLOB],
):
    entry._only_registry()
    self.m_appName = name
    self.m_appType = type
    self.m_appMultiaddr = multiaddr
    self.m_appChecksum = checksum
    self.m_appMREnclave = mrenclave
