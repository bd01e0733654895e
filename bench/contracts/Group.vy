# pragma version 0.4.3
"""
@title Group: an ERC-734 group of one member
"""

# Purpose -> member, left-padded -> whether it belongs.
members: HashMap[uint256, HashMap[bytes32, bool]]

# What the hub asks for.
MEMBER: constant(uint256) = 4


@deploy
def __init__(member: address):
    self.members[MEMBER][convert(member, bytes32)] = True


@external
@view
def keyHasPurpose(key: bytes32, purpose: uint256) -> bool:
    return self.members[purpose][key]
