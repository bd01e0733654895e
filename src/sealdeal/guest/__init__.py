"""What runs inside the TEE: makes its keys, proves itself, gets the secrets, runs the app, seals the result.

It imports `sealdeal.model` and nothing else of ours, and reaches the world through one framed stream.
"""
