# pragma version 0.4.3
"""
@title Ledger: who owns how many staked RLC, and how many of them are locked
@license Apache-2.0
@notice The primitives of the escrow, in their official order of events. Each emits even for amount 0. What they add
        cannot overflow and what settlement subtracts cannot underflow: the supply is below 2**64, and a settlement
        only takes what its own deal or contribution has locked.
@dev An account is one word:

       bit   0  balance   64   nRLC, free
            64  frozen    64   nRLC, locked in deals
           128  score    128   of a worker

     Locked tokens are the hub's own by their Transfer events, but are not booked there, which would cost every match
     and every settlement one more slot: `balanceOf` of the hub is only what anyone sent to it. So the supply is the
     sum of all balances and all that is frozen.
"""
import types
import events
import settings

uses: settings

# Parts of an account, as drawn above.
AMOUNT_MASK: constant(uint256) = 2**64 - 1
FROZEN: constant(uint256) = 64
SCORE: constant(uint256) = 128

# Above the supply, so that every amount fits its part.
SUPPLY_LIMIT: constant(uint256) = 2**64

# The packed accounts, as drawn above.
accounts: HashMap[address, uint256]

# Deposits minus withdrawals, nRLC.
supply: uint256

# Owner -> spender -> how much the spender may still transfer.
allowances: HashMap[address, HashMap[address, uint256]]

# Worker -> whether the score of an older hub was imported.
imported: HashMap[address, bool]


# ---- Reading -------------------------------------------------------------------------------------------------------

@internal
@view
def _balance(account: address) -> uint256:
    return self.accounts[account] & AMOUNT_MASK


@internal
@view
def _frozen(account: address) -> uint256:
    """
    @dev The kitty's is in the common word (settings.vy). Nothing else can be frozen on its account: it never signs.
    """
    if account == types.KITTY_ADDRESS:
        return settings._kitty()
    return (self.accounts[account] >> FROZEN) & AMOUNT_MASK


# ---- Staked RLC as an ERC-20 ---------------------------------------------------------------------------------------

@internal
def _mint(account: address, amount: uint256):
    assert account != empty(address), "ERC20: mint to the zero address"
    supply: uint256 = self.supply + amount
    assert supply < SUPPLY_LIMIT, "ledger: supply above 2**64"
    self.supply = supply
    self.accounts[account] += amount
    log events.Transfer(from_=empty(address), to=account, value=amount)


@internal
def _burn(account: address, amount: uint256):
    word: uint256 = self.accounts[account]
    assert amount <= word & AMOUNT_MASK
    self.supply = unsafe_sub(self.supply, amount)
    self.accounts[account] = unsafe_sub(word, amount)
    log events.Transfer(from_=account, to=empty(address), value=amount)


@internal
def _transfer(source: address, to: address, amount: uint256):
    assert source != empty(address), "ERC20: transfer from the zero address"
    assert to != empty(address), "ERC20: transfer to the zero address"
    word: uint256 = self.accounts[source]
    assert amount <= word & AMOUNT_MASK
    self.accounts[source] = unsafe_sub(word, amount)
    self.accounts[to] += amount
    log events.Transfer(from_=source, to=to, value=amount)


@internal
def _approve(source: address, spender: address, amount: uint256):
    assert source != empty(address), "ERC20: approve from the zero address"
    assert spender != empty(address), "ERC20: approve to the zero address"
    self.allowances[source][spender] = amount
    log events.Approval(owner=source, spender=spender, value=amount)


# ---- Escrow --------------------------------------------------------------------------------------------------------

@internal
def _lock(account: address, amount: uint256):
    word: uint256 = self.accounts[account]
    assert amount <= word & AMOUNT_MASK, "IexecEscrow: Transfer amount exceeds balance"
    self.accounts[account] = unsafe_add(unsafe_sub(word, amount), amount << FROZEN)
    log events.Transfer(from_=account, to=self, value=amount)
    log events.Lock(owner=account, amount=amount)


@internal
def _unlock(account: address, amount: uint256):
    word: uint256 = self.accounts[account]
    assert amount <= (word >> FROZEN) & AMOUNT_MASK
    self.accounts[account] = unsafe_add(unsafe_sub(word, amount << FROZEN), amount)
    log events.Transfer(from_=self, to=account, value=amount)
    log events.Unlock(owner=account, amount=amount)


@internal
def _seize(account: address, amount: uint256, ref: bytes32):
    word: uint256 = self.accounts[account]
    assert amount <= (word >> FROZEN) & AMOUNT_MASK
    self.accounts[account] = unsafe_sub(word, amount << FROZEN)
    log events.Seize(owner=account, amount=amount, ref=ref)


@internal
def _reward(account: address, amount: uint256, ref: bytes32):
    self.accounts[account] += amount
    log events.Transfer(from_=self, to=account, value=amount)
    log events.Reward(owner=account, amount=amount, ref=ref)


# ---- The kitty: stakes seized from schedulers, paid out a tenth at a time ------------------------------------------

@internal
def _feed_kitty(amount: uint256, ref: bytes32):
    settings._set_kitty(settings._kitty() + amount)
    log events.Reward(owner=types.KITTY_ADDRESS, amount=amount, ref=ref)
    log events.Lock(owner=types.KITTY_ADDRESS, amount=amount)


@internal
def _draw_kitty(stake: uint256, ref: bytes32, times: uint256) -> uint256:
    """
    @param stake What the scheduler had at stake in one task: the most that a capped kitty pays for it.
    @param times Successes, one after the other.
    @return What their scheduler is to be rewarded with: nothing from an empty kitty, nor from a capped one when nothing
            was at stake.
    """
    common: uint256 = settings.common
    kitty: uint256 = common >> settings.KITTY
    if kitty == 0:
        return 0
    most: uint256 = kitty
    if (common >> settings.KITTY_CAPPED) & 1 != 0:
        if stake == 0:
            return 0
        most = stake
    rest: uint256 = kitty
    for i: uint256 in range(times, bound=types.BATCH):
        share: uint256 = min(max(unsafe_div(unsafe_mul(rest, types.KITTY_RATIO), 100), types.KITTY_MIN), rest)
        rest = unsafe_sub(rest, min(share, most))
    share: uint256 = unsafe_sub(kitty, rest)
    settings.common = unsafe_sub(common, share << settings.KITTY)
    log events.Seize(owner=types.KITTY_ADDRESS, amount=share, ref=ref)
    return share


# ---- Scores --------------------------------------------------------------------------------------------------------

@internal
@view
def _score(worker: address) -> uint256:
    return self.accounts[worker] >> SCORE


@internal
def _raise_score(worker: address, score: uint256):
    """
    @notice Unless it is that high already.
    """
    word: uint256 = self.accounts[worker]
    self.accounts[worker] = (word & (2**SCORE - 1)) | (max(word >> SCORE, score) << SCORE)


@internal
def _praise(worker: address, taskid: bytes32):
    self.accounts[worker] += 1 << SCORE
    log events.AccurateContribution(worker=worker, taskid=taskid)


@internal
def _blame(worker: address, taskid: bytes32):
    word: uint256 = self.accounts[worker]
    self.accounts[worker] = (word & (2**SCORE - 1)) | ((word >> SCORE) * 2 // 3 << SCORE)
    log events.FaultyContribution(worker=worker, taskid=taskid)
