"""RLC are sent, deposited in the hub's escrow, and withdrawn: move_money.py NETWORK_FILE"""

import sys
from pathlib import Path

from sealdeal.model.types import RLC
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

network = Network.load(Path(sys.argv[1]))
with Sealdeal.newcomer(network, 10 * RLC) as alice, Sealdeal.newcomer(network, 0) as bob:
    alice.do(alice.hub.transfer_token(bob.key.address, 4 * RLC))
    bob.deposit(3 * RLC)  # deals are paid from the escrow
    bob.withdraw(1 * RLC)
    balance = bob.balance()
    assert (balance.wallet, balance.stake) == (2 * RLC, 2 * RLC)
    assert alice.balance().wallet == 6 * RLC
    print(f"{bob.key.address} has {balance.wallet} nRLC in the wallet and {balance.stake} in escrow")

    alice.do(alice.sender.send(bob.key.address, value=10**15))  # the chain's own money, for gas
    for category in alice.do(alice.hub.categories()):
        print(f"category {category.id}, {category.name}: up to {category.reference_time} s")
