# pragma version 0.4.3
"""
@title What the ledger's primitives do to every possible pair of accounts
@notice Each check begins with any two accounts and any supply that the bound allows, makes one call, and says what
        must hold then. Primitives are called from outside, so that a refusal is seen too. Arithmetic that would run
        from one part of a packed word into the next breaks a check.
"""
import types
import settings
import ledger
import checks

initializes: settings
initializes: ledger[settings := settings]

LIMIT: constant(uint256) = 2**64
SCORE_LIMIT: constant(uint256) = 2**128


# An account, its parts apart.
struct Account:
    balance: uint256
    frozen: uint256
    score: uint256


@deploy
def __init__():
    settings.__init__(empty(address), [])


# ---- The primitives, to be called from outside ---------------------------------------------------------------------

@external
def mint(account: address, amount: uint256):
    ledger._mint(account, amount)


@external
def burn(account: address, amount: uint256):
    ledger._burn(account, amount)


@external
def move(source: address, to: address, amount: uint256):
    ledger._transfer(source, to, amount)


@external
def lock(account: address, amount: uint256):
    ledger._lock(account, amount)


@external
def unlock(account: address, amount: uint256):
    ledger._unlock(account, amount)


@external
def seize(account: address, amount: uint256):
    ledger._seize(account, amount, empty(bytes32))


# ---- What is given, what is demanded -------------------------------------------------------------------------------

@internal
def _given(one: address, a: Account, two: address, b: Account, supply: uint256):
    """
    @notice Two different accounts that fit into the supply. Others may have the rest.
    """
    assert one != two and one != empty(address) and two != empty(address)
    assert one != types.KITTY_ADDRESS and two != types.KITTY_ADDRESS
    assert a.balance < LIMIT and a.frozen < LIMIT and b.balance < LIMIT and b.frozen < LIMIT
    assert a.score < SCORE_LIMIT and b.score < SCORE_LIMIT
    assert supply < LIMIT and a.balance + a.frozen + b.balance + b.frozen <= supply
    ledger.accounts[one] = self._packed(a)
    ledger.accounts[two] = self._packed(b)
    ledger.supply = supply


@internal
@pure
def _packed(a: Account) -> uint256:
    return a.balance | (a.frozen << 64) | (a.score << 128)


@internal
@view
def _demand_account(account: address, balance: uint256, frozen: uint256, score: uint256):
    checks._demand(ledger.accounts[account] & (LIMIT - 1) == balance)
    checks._demand((ledger.accounts[account] >> 64) & (LIMIT - 1) == frozen)
    checks._demand(ledger.accounts[account] >> 128 == score)
    # As everyone reads it.
    checks._demand(ledger._balance(account) == balance)
    checks._demand(ledger._frozen(account) == frozen)
    checks._demand(ledger._score(account) == score)


@internal
@view
def _demand_unchanged(account: address, a: Account):
    self._demand_account(account, a.balance, a.frozen, a.score)


@internal
def _done(call: Bytes[164]) -> bool:
    return raw_call(self, call, revert_on_failure=False)


# ---- Supply --------------------------------------------------------------------------------------------------------

@external
def check_mint(one: address, a: Account, two: address, b: Account, supply: uint256, amount: uint256):
    self._given(one, a, two, b, supply)
    done: bool = self._done(abi_encode(one, amount, method_id=method_id("mint(address,uint256)")))
    checks._demand(done == (amount < LIMIT and supply + min(amount, LIMIT) < LIMIT))
    if done:
        checks._demand(ledger.supply == supply + amount)
        self._demand_account(one, a.balance + amount, a.frozen, a.score)
    else:
        checks._demand(ledger.supply == supply)
        self._demand_unchanged(one, a)
    self._demand_unchanged(two, b)


@external
def check_burn(one: address, a: Account, two: address, b: Account, supply: uint256, amount: uint256):
    self._given(one, a, two, b, supply)
    done: bool = self._done(abi_encode(one, amount, method_id=method_id("burn(address,uint256)")))
    checks._demand(done == (amount <= a.balance))
    if done:
        checks._demand(ledger.supply == supply - amount)
        self._demand_account(one, a.balance - amount, a.frozen, a.score)
    else:
        checks._demand(ledger.supply == supply)
        self._demand_unchanged(one, a)
    self._demand_unchanged(two, b)


# ---- Transfers -----------------------------------------------------------------------------------------------------

@external
def check_transfer(one: address, a: Account, two: address, b: Account, supply: uint256, amount: uint256):
    self._given(one, a, two, b, supply)
    done: bool = self._done(abi_encode(one, two, amount, method_id=method_id("move(address,address,uint256)")))
    checks._demand(done == (amount <= a.balance))
    if done:
        self._demand_account(one, a.balance - amount, a.frozen, a.score)
        self._demand_account(two, b.balance + amount, b.frozen, b.score)
    else:
        self._demand_unchanged(one, a)
        self._demand_unchanged(two, b)
    checks._demand(ledger.supply == supply)


@external
def check_transfer_to_oneself(one: address, a: Account, two: address, b: Account, supply: uint256, amount: uint256):
    self._given(one, a, two, b, supply)
    done: bool = self._done(abi_encode(one, one, amount, method_id=method_id("move(address,address,uint256)")))
    checks._demand(done == (amount <= a.balance))
    self._demand_unchanged(one, a)
    self._demand_unchanged(two, b)
    checks._demand(ledger.supply == supply)


# ---- Locks ---------------------------------------------------------------------------------------------------------

@external
def check_lock(one: address, a: Account, two: address, b: Account, supply: uint256, amount: uint256):
    self._given(one, a, two, b, supply)
    done: bool = self._done(abi_encode(one, amount, method_id=method_id("lock(address,uint256)")))
    checks._demand(done == (amount <= a.balance))
    if done:
        self._demand_account(one, a.balance - amount, a.frozen + amount, a.score)
    else:
        self._demand_unchanged(one, a)
    self._demand_unchanged(two, b)
    checks._demand(ledger.supply == supply)


@external
def check_unlock(one: address, a: Account, two: address, b: Account, supply: uint256, amount: uint256):
    self._given(one, a, two, b, supply)
    done: bool = self._done(abi_encode(one, amount, method_id=method_id("unlock(address,uint256)")))
    checks._demand(done == (amount <= a.frozen))
    if done:
        self._demand_account(one, a.balance + amount, a.frozen - amount, a.score)
    else:
        self._demand_unchanged(one, a)
    self._demand_unchanged(two, b)
    checks._demand(ledger.supply == supply)


@external
def check_seize(one: address, a: Account, two: address, b: Account, supply: uint256, amount: uint256):
    self._given(one, a, two, b, supply)
    done: bool = self._done(abi_encode(one, amount, method_id=method_id("seize(address,uint256)")))
    checks._demand(done == (amount <= a.frozen))
    if done:
        self._demand_account(one, a.balance, a.frozen - amount, a.score)
    else:
        self._demand_unchanged(one, a)
    self._demand_unchanged(two, b)
    checks._demand(ledger.supply == supply)


@external
def check_reward(one: address, a: Account, two: address, b: Account, supply: uint256, amount: uint256):
    """
    @notice Of tokens that were seized before, so that no account has them.
    """
    self._given(one, a, two, b, supply)
    assert amount <= supply - (a.balance + a.frozen + b.balance + b.frozen)
    ledger._reward(one, amount, empty(bytes32))
    self._demand_account(one, a.balance + amount, a.frozen, a.score)
    self._demand_unchanged(two, b)
    checks._demand(ledger.supply == supply)


# ---- The kitty, in the word that it shares with settings -----------------------------------------------------------

# The common word, its parts apart.
struct Common:
    broker: address
    callback_gas: uint256
    capped: bool
    delayed: bool
    kitty: uint256


@internal
def _given_common(common: Common):
    assert common.callback_gas < settings.CALLBACK_GAS_LIMIT and common.kitty < LIMIT
    settings.common = (
        convert(common.broker, uint256)
        | (common.callback_gas << settings.CALLBACK_GAS)
        | (convert(common.capped, uint256) << settings.KITTY_CAPPED)
        | (convert(common.delayed, uint256) << settings.CHANGES_DELAYED)
        | (common.kitty << settings.KITTY)
    )


@internal
@view
def _demand_common(common: Common):
    checks._demand(settings._broker() == common.broker)
    checks._demand(settings._callback_gas() == common.callback_gas)
    checks._demand(settings._option(settings.KITTY_CAPPED) == common.capped)
    checks._demand(settings._option(settings.CHANGES_DELAYED) == common.delayed)
    checks._demand(settings._kitty() == common.kitty)
    checks._demand(ledger._frozen(types.KITTY_ADDRESS) == common.kitty)


@external
def check_common_word(given: Common, broker: address, callback_gas: uint256, kitty: uint64):
    """
    @notice Each part is set alone.
    """
    common: Common = given
    self._given_common(common)
    self._demand_common(common)
    settings._set_broker(broker)
    common.broker = broker
    self._demand_common(common)
    settings._check_callback_gas(callback_gas)
    settings._set_callback_gas(callback_gas)
    common.callback_gas = callback_gas
    self._demand_common(common)
    settings._set_kitty(convert(kitty, uint256))
    common.kitty = convert(kitty, uint256)
    self._demand_common(common)


@external
def check_feed_kitty(given: Common, amount: uint64):
    """
    @notice With a stake that was seized before: together they are below the supply.
    """
    common: Common = given
    self._given_common(common)
    common.kitty += convert(amount, uint256)
    assert common.kitty < LIMIT
    ledger._feed_kitty(convert(amount, uint256), empty(bytes32))
    self._demand_common(common)


@external
def check_draw_kitty(given: Common, stake: uint64):
    """
    @notice It gives a tenth, one RLC at least, never more than it has, and has that much less; if it is capped, never
            more than was at stake.
    """
    common: Common = given
    self._given_common(common)
    share: uint256 = ledger._draw_kitty(convert(stake, uint256), 1, empty(bytes32))
    expected: uint256 = min(max(common.kitty * 10 // 100, 10**9), common.kitty)
    if common.capped:
        expected = min(expected, convert(stake, uint256))
    checks._demand(share == expected)
    common.kitty -= share
    self._demand_common(common)


# ---- Scores --------------------------------------------------------------------------------------------------------

@external
def check_praise(one: address, a: Account, two: address, b: Account, supply: uint256):
    self._given(one, a, two, b, supply)
    assert a.score < SCORE_LIMIT - 1
    ledger._praise(one, empty(bytes32))
    self._demand_account(one, a.balance, a.frozen, a.score + 1)
    self._demand_unchanged(two, b)


@external
def check_blame(one: address, a: Account, two: address, b: Account, supply: uint256):
    self._given(one, a, two, b, supply)
    assert a.score < 2**120
    ledger._blame(one, empty(bytes32))
    self._demand_account(one, a.balance, a.frozen, a.score * 2 // 3)
    self._demand_unchanged(two, b)
