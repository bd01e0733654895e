# pragma version 0.4.3
"""
@title Rlc: the base token of a network that has no RLC of its own
@license Apache-2.0
@notice ERC-20 with 9 decimals, a fixed supply of 87,000,000 RLC, no owner, and `approveAndCall`, with which
        money enters the hub's escrow in one transaction.
"""

interface Spender:
    def receiveApproval(
        sender: address, amount: uint256, token: address, data: Bytes[DATA]
    ) -> bool: nonpayable


event Transfer:
    from_: indexed(address)
    to: indexed(address)
    value: uint256

event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256


name: public(constant(String[3])) = "RLC"
symbol: public(constant(String[3])) = "RLC"
decimals: public(constant(uint8)) = 9
totalSupply: public(constant(uint256)) = 87_000_000 * 10**9

# Longest data of `approveAndCall`: room for a hub's `matchOrders` with its four orders.
DATA: constant(uint256) = 12288


# Account -> its tokens, in nRLC. They sum to the supply.
balanceOf: public(HashMap[address, uint256])

# Owner -> spender -> what the spender may still take.
allowance: public(HashMap[address, HashMap[address, uint256]])


@deploy
def __init__(holder: address):
    """
    @param holder Who receives the whole supply.
    """
    self.balanceOf[holder] = totalSupply
    log Transfer(from_=empty(address), to=holder, value=totalSupply)


@external
def transfer(to: address, amount: uint256) -> bool:
    self._transfer(msg.sender, to, amount)
    return True


@external
def transferFrom(source: address, to: address, amount: uint256) -> bool:
    allowed: uint256 = self.allowance[source][msg.sender]
    assert amount <= allowed, "ERC20: transfer amount exceeds allowance"
    self.allowance[source][msg.sender] = allowed - amount
    self._transfer(source, to, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    self._approve(msg.sender, spender, amount)
    return True


@external
def approveAndCall(spender: address, amount: uint256, data: Bytes[DATA]) -> bool:
    """
    @notice Approve, then tell the spender, who must accept by answering true.
    """
    self._approve(msg.sender, spender, amount)
    assert extcall Spender(spender).receiveApproval(msg.sender, amount, self, data), "approval-refused"
    return True


@internal
def _transfer(source: address, to: address, amount: uint256):
    assert to != empty(address), "ERC20: transfer to the zero address"
    balance: uint256 = self.balanceOf[source]
    assert amount <= balance, "ERC20: transfer amount exceeds balance"
    self.balanceOf[source] = balance - amount
    self.balanceOf[to] += amount
    log Transfer(from_=source, to=to, value=amount)


@internal
def _approve(owner: address, spender: address, amount: uint256):
    assert spender != empty(address), "ERC20: approve to the zero address"
    self.allowance[owner][spender] = amount
    log Approval(owner=owner, spender=spender, value=amount)
