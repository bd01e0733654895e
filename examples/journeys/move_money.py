"""RLC are sent, deposited in the hub's escrow, withdrawn, approved, swept: move_money.py NETWORK_FILE"""

import sys
from pathlib import Path

from sealdeal.model.types import RLC
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

network = Network.load(Path(sys.argv[1]))
with Sealdeal.newcomer(network, 10 * RLC) as alice, Sealdeal.newcomer(network, 0) as bob:
    alice.send(bob.key.address, 4 * RLC, gas_money=10**15)  # wei, the chain's own money
    bob.deposit(3 * RLC)  # deals are paid from the escrow
    balance = bob.withdraw(1 * RLC).balance
    assert (balance.wallet, balance.stake) == (2 * RLC, 2 * RLC)
    assert alice.balance().wallet == 6 * RLC
    print(f"{bob.key.address} has {balance.wallet} nRLC in the wallet and {balance.stake} in escrow")

    bob.approve(alice.key.address, 2 * RLC)
    alice.do(alice.hub.transfer_stake(alice.key.address, 1 * RLC, source=bob.key.address))
    assert (bob.allowance(alice.key.address), alice.balance().stake) == (1 * RLC, 1 * RLC)

    alice.sweep(bob.key.address)  # all that is in the wallet
    assert (alice.balance().wallet, bob.balance().wallet) == (0, 8 * RLC)

    for category in alice.do(alice.hub.categories()):
        print(f"category {category.id}, {category.name}: up to {category.reference_time} s")
