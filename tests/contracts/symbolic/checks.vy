# pragma version 0.4.3
"""
@title What a check does when it does not hold
"""

@internal
@pure
def _demand(holds: bool):
    """
    @notice Panic(1), which halmos looks for. A plain revert only means that a check was not asked about these values.
    """
    if not holds:
        raw_revert(abi_encode(convert(1, uint256), method_id=method_id("Panic(uint256)")))
