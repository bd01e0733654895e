# pragma version 0.4.3
"""
@title Escrow: RLC become staked RLC and back, and staked RLC are an ERC-20
@license Apache-2.0
"""
import types
import settings
import ledger
import matching

uses: settings
uses: ledger


interface Token:
    def transferFrom(source: address, to: address, amount: uint256) -> bool: nonpayable
    def transfer(to: address, amount: uint256) -> bool: nonpayable
    def balanceOf(account: address) -> uint256: view


interface Spender:
    def receiveApproval(
        sender: address, amount: uint256, token: address, data: Bytes[types.PAYLOAD]
    ) -> bool: nonpayable

# Longest refusal of a match that is passed on; the rest is cut off.
REFUSAL: constant(uint256) = 1024

# Whether base tokens are on their way: then what the hub holds and what it owes do not agree yet.
moving: transient(bool)


# ---- Escrow ----------------------------------------------------------------------------------------------------------

@external
def deposit(amount: uint256) -> bool:
    self._deposit(msg.sender, amount, msg.sender)
    return True


@external
def withdraw(amount: uint256) -> bool:
    self._withdraw(amount, msg.sender)
    return True


@external
def depositFor(amount: uint256, target: address) -> bool:
    self._deposit(msg.sender, amount, target)
    return True


@external
def depositForArray(amounts: DynArray[uint256, types.BATCH], targets: DynArray[address, types.BATCH]) -> bool:
    assert len(amounts) == len(targets), "invalid-array-length"
    for i: uint256 in range(len(amounts), bound=types.BATCH):
        self._deposit(msg.sender, amounts[i], targets[i])
    return True


@external
def withdrawTo(amount: uint256, target: address) -> bool:
    self._withdraw(amount, target)
    return True


@external
def receiveApproval(sender: address, amount: uint256, token: address, data: Bytes[types.PAYLOAD]) -> bool:
    """
    @notice Deposit for who approved the hub through the base token's `approveAndCall`, and then match, if the data is
            a call of `matchOrders`. Anyone may call it: the tokens go to the account of whom they come from, and
            anyone could make the match.
    """
    assert token == settings.TOKEN, "wrong-token"
    self._deposit(sender, amount, sender)
    if len(data) != 0:
        self._match(sender, data)
    return True


@external
def recover() -> uint256:
    """
    @notice Credit the owner with base tokens that were sent to the hub without a deposit.
    """
    settings._only_owner()
    assert not self.moving, "escrow: tokens are moving"
    excess: uint256 = staticcall Token(settings.TOKEN).balanceOf(self) - ledger.supply
    ledger._mint(settings.owner, excess)
    return excess


@internal
def _match(sender: address, data: Bytes[types.PAYLOAD]):
    """
    @notice Make the call of `matchOrders` that is in the data, if its requester is the sender of the tokens.
    """
    assert len(data) >= 4
    selector: bytes4 = convert(slice(data, 0, 4), bytes4)
    if selector != matching.MATCH_ORDERS:
        raw_revert(abi_encode(selector, method_id=method_id("UnsupportedOperation(bytes4)")))
    # The word that `matchOrders` will read: the requester is the seventh of the fourth argument.
    request: uint256 = convert(extract32(data, 4 + 3 * 32), uint256)
    assert request < types.PAYLOAD
    if extract32(data, 4 + request + 6 * 32, output_type=address) != sender:
        raw_revert(method_id("CallerIsNotTheRequester()"))
    success: bool = False
    refusal: Bytes[REFUSAL] = b""
    success, refusal = raw_call(
        self, data, max_outsize=REFUSAL, is_delegate_call=True, revert_on_failure=False
    )
    if not success:
        if len(refusal) == 0:
            raw_revert(method_id("OperationFailed()"))
        raw_revert(refusal)


@internal
def _deposit(source: address, amount: uint256, target: address):
    before: bool = self.moving
    self.moving = True
    assert extcall Token(settings.TOKEN).transferFrom(source, self, amount), "failled-transferFrom"
    self.moving = before
    ledger._mint(target, amount)


@internal
def _withdraw(amount: uint256, target: address):
    ledger._burn(msg.sender, amount)
    before: bool = self.moving
    self.moving = True
    extcall Token(settings.TOKEN).transfer(target, amount)
    self.moving = before


# ---- ERC-20 ----------------------------------------------------------------------------------------------------------

@external
def transfer(recipient: address, amount: uint256) -> bool:
    ledger._transfer(msg.sender, recipient, amount)
    return True


@external
def transferFrom(sender: address, recipient: address, amount: uint256) -> bool:
    ledger._transfer(sender, recipient, amount)
    allowed: uint256 = ledger.allowances[sender][msg.sender]
    assert amount <= allowed
    ledger._approve(sender, msg.sender, allowed - amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    ledger._approve(msg.sender, spender, amount)
    return True


@external
def increaseAllowance(spender: address, addedValue: uint256) -> bool:
    ledger._approve(msg.sender, spender, ledger.allowances[msg.sender][spender] + addedValue)
    return True


@external
def decreaseAllowance(spender: address, subtractedValue: uint256) -> bool:
    ledger._approve(msg.sender, spender, ledger.allowances[msg.sender][spender] - subtractedValue)
    return True


@external
def approveAndCall(spender: address, amount: uint256, extraData: Bytes[types.PAYLOAD]) -> bool:
    ledger._approve(msg.sender, spender, amount)
    assert extcall Spender(spender).receiveApproval(msg.sender, amount, self, extraData), "approval-refused"
    return True
