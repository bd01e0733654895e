# pragma version 0.4.3
"""
@title Consumer: a requester's contract that takes note of each result
"""

# Hash of the latest result.
last: public(bytes32)


@external
def receiveResult(taskid: bytes32, result: Bytes[1024]):
    self.last = keccak256(result)
