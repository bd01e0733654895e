"""What a user of the network holds: one file per service (its messages and its client), and `client`."""
