# pragma version 0.4.3
"""
@title Escrow: RLC become staked RLC and back, and staked RLC are an ERC-20
@license Apache-2.0
"""
import types
import settings
import ledger

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
    @notice Deposit for who approved the hub through the base token's `approveAndCall`. Anyone may call it: the tokens
            go to the account of whom they come from.
    """
    assert token == settings.TOKEN, "wrong-token"
    self._deposit(sender, amount, sender)
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
