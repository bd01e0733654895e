# pragma version 0.4.3
# pragma optimize gas
"""
@title App: an application in the AppRegistry
@license Apache-2.0
"""
import entry

initializes: entry

# Whose it is: registry(), owner(), and the refused setName.
exports: entry.__interface__


# What people call it.
m_appName: public(String[1024])

# How it is packaged, such as "DOCKER".
m_appType: public(String[1024])

# Where its image lies.
m_appMultiaddr: public(Bytes[2048])

# sha256 of its image's OCI manifest: in a TEE deal, the app's measurement. An app with zero here gets no
# secrets.
m_appChecksum: public(bytes32)

# What older TEE frameworks measure; opaque, may be empty.
m_appMREnclave: public(Bytes[2048])


@deploy
def __init__():
    entry.__init__()


@external
def initialize(
    name: String[1024],
    type: String[1024],
    multiaddr: Bytes[2048],
    checksum: bytes32,
    mrenclave: Bytes[2048],
):
    entry._only_registry()
    self.m_appName = name
    self.m_appType = type
    self.m_appMultiaddr = multiaddr
    self.m_appChecksum = checksum
    self.m_appMREnclave = mrenclave
