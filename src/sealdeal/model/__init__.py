"""What things are: types, orders, deals, evidence, sealing. Pure: no I/O, no clock, no own randomness."""
