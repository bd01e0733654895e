# pragma version 0.4.3
"""
@title Entry: what App, Dataset and Workerpool share
@license Apache-2.0
@notice An entry is an ERC-1167 proxy, made and initialised by its registry in one transaction. It belongs to
        the holder of the ERC-721 token whose id is its address. There is no upgrade path.
"""
import types


interface Registry:
    def ownerOf(id: uint256) -> address: view


# The registry that made this code's master. In the code, not in storage, so all its entries share it.
registry: public(immutable(address))


@deploy
def __init__():
    registry = msg.sender


@external
@view
def owner() -> address:
    return self._owner()


@external
def setName(ens: address, reverse_name: String[types.TEXT]):
    """
    @notice Always refused: it named an entry in ENS, which the protocol's chains do not have.
    """
    self._only_owner()
    raise "Operation not supported on this chain"


@internal
@view
def _owner() -> address:
    return staticcall Registry(registry).ownerOf(convert(self, uint256))


@internal
@view
def _only_owner():
    assert msg.sender == self._owner(), "caller is not the owner"


@internal
@view
def _only_registry():
    """
    @dev The registry initialises an entry in the transaction that makes it, never again, and never the
         master: for any other caller the refusal is true.
    """
    assert msg.sender == registry, "already initialized"
