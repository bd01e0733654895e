# pragma version 0.4.3
"""
@title Tasks: their state, their contributions, their results, and how contributions agree
@license Apache-2.0
@notice A task is one word (zero: never initialised), bits from the lowest:

          0  deal        160   where the deal's blob is
        160  idx          32
        192  status        3
        195  contributors  7   how many
        202  winner        7   place of a contribution whose hash is the consensus
        209  winners       7   how many agree with it (zero: no consensus)
        216  reveals       7
        223  revealed by  33   reveal deadline, seconds

        A contribution is a blob under taskid XOR (its place + 1):

          0  log2(weight)     1
          1  worker          20
         21  result hash     32
         53  result seal     32
         85  enclave         20

        A result is a blob under the taskid. From byte 0: kind 1; if kind has bit 1 (contributeAndFinalize, whose
        contribution is found here): worker 20, enclave 20, digest 32; if kind has bit 0: length of results 2; then
        results; then, if kind has bit 0, the callback's data.

        Marks, two bits for each contribution from the lowest: 0 contributed, 1 proved, 2 rejected. The lowest 128
        bits of a word whose upper 128 are the sum of all groups' weights (without the official initial 1). A task
        with one contribution, revealed, leaves them out: its reveal counter tells.
"""
import types
import blobs

uses: blobs

INDEX: constant(uint256) = 160
STATUS: constant(uint256) = 192
CONTRIBUTORS: constant(uint256) = 195
WINNER: constant(uint256) = 202
WINNERS: constant(uint256) = 209
REVEALS: constant(uint256) = 216
DEADLINE: constant(uint256) = 223

COUNT_MASK: constant(uint256) = 127
STATUS_MASK: constant(uint256) = 7

# Marks.
CONTRIBUTED: constant(uint256) = 0
PROVED: constant(uint256) = 1
REJECTED: constant(uint256) = 2
MARKS: constant(uint256) = 2**128 - 1

# Lengths of a contribution, and of the head of a direct result without and with the length of results.
CONTRIBUTION: constant(uint256) = 105
DIRECT: constant(uint256) = 73

# Kinds of result.
SPLIT_BIT: constant(uint256) = 1
DIRECT_BIT: constant(uint256) = 2


struct Entry:
    weight: uint256  # its log2
    worker: address
    hash: bytes32
    seal: bytes32
    enclave: address


# Taskid -> the task, as drawn above.
words: HashMap[bytes32, uint256]

# Taskid -> the digest that was revealed (contributeAndFinalize keeps it in its blob instead).
digests: HashMap[bytes32, bytes32]

# Taskid -> marks and total weight, as drawn above.
marks: HashMap[bytes32, uint256]

# Taskid -> result hash -> weight of those who contributed it; only where a deal's trust is above 1.
groups: HashMap[bytes32, HashMap[bytes32, uint256]]


# ---- The word ------------------------------------------------------------------------------------------------------

@internal
@pure
def _id(dealid: bytes32, idx: uint256) -> bytes32:
    return keccak256(concat(dealid, convert(idx, bytes32)))


@internal
@pure
def _deal(word: uint256) -> address:
    return convert(word & types.ADDRESS_MASK, address)


@internal
@pure
def _status(word: uint256) -> uint256:
    return (word >> STATUS) & STATUS_MASK


@internal
@pure
def _with_status(word: uint256, status: uint256) -> uint256:
    return (word & ~(STATUS_MASK << STATUS)) | (status << STATUS)


@internal
@pure
def _count(word: uint256) -> uint256:
    return (word >> CONTRIBUTORS) & COUNT_MASK


@internal
@pure
def _result_hash(taskid: bytes32, digest: bytes32) -> bytes32:
    return keccak256(concat(taskid, digest))


@internal
@pure
def _result_seal(worker: address, taskid: bytes32, digest: bytes32) -> bytes32:
    return keccak256(concat(convert(worker, bytes20), taskid, digest))


# ---- Contributions -------------------------------------------------------------------------------------------------

@internal
@pure
def _key(taskid: bytes32, place: uint256) -> bytes32:
    return convert(convert(taskid, uint256) ^ (place + 1), bytes32)


@internal
def _write_contribution(taskid: bytes32, place: uint256, weight: uint256, worker: address, hash: bytes32, seal: bytes32, enclave: address):
    blobs._put(
        self._key(taskid, place),
        concat(convert(convert(weight, uint8), bytes1), convert(worker, bytes20), hash, seal, convert(enclave, bytes20)),
    )


@internal
@view
def _read_contribution(taskid: bytes32, place: uint256) -> Entry:
    code: Bytes[CONTRIBUTION] = slice(blobs._at(self._key(taskid, place)).code, 0, CONTRIBUTION)
    head: uint256 = convert(extract32(code, 0), uint256)
    return Entry(
        weight=head >> 248,
        worker=convert((head >> 88) & types.ADDRESS_MASK, address),
        hash=extract32(code, 21),
        seal=extract32(code, 53),
        enclave=convert(convert(extract32(code, 73), uint256) & types.ADDRESS_MASK, address),
    )


# ---- Marks and weights ---------------------------------------------------------------------------------------------

@internal
@pure
def _mark(marks: uint256, place: uint256) -> uint256:
    return (marks >> (2 * place)) & 3


@internal
@pure
def _marked(marks: uint256, place: uint256, mark: uint256) -> uint256:
    return (marks & ~(3 << (2 * place))) | (mark << (2 * place))


@internal
def _weigh(taskid: bytes32, hash: bytes32, weight: uint256, trust: uint256) -> bool:
    """
    @notice Add a contribution of this weight to its group.
    @return Whether the group has reached consensus.
    """
    group: uint256 = self.groups[taskid][hash]
    marks: uint256 = self.marks[taskid]
    heavier: uint256 = max(group, 1) * weight
    total: uint256 = (marks >> 128) + heavier - group
    assert total <= MARKS, "tasks: total weight above 2**128"
    self.groups[taskid][hash] = heavier
    self.marks[taskid] = (total << 128) | (marks & MARKS)
    return heavier * trust > (total + 1) * (trust - 1)


@internal
def _discard(taskid: bytes32, hash: bytes32, count: uint256):
    """
    @notice Reject every contribution of this hash, and take their group's weight away.
    """
    marks: uint256 = self.marks[taskid]
    rejected: uint256 = marks & MARKS
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        if self._read_contribution(taskid, place).hash == hash:
            rejected = self._marked(rejected, place, REJECTED)
    group: uint256 = self.groups[taskid][hash]
    self.groups[taskid][hash] = 0
    self.marks[taskid] = (((marks >> 128) - group) << 128) | rejected


# ---- Results -------------------------------------------------------------------------------------------------------

@internal
def _write_result(taskid: bytes32, length: uint256, split: bool):
    """
    @dev The caller has put results and callback data into `blobs.body` and `blobs.tail`.
    @param length Of the results.
    @param split Whether there is callback data.
    """
    if split:
        blobs._put(taskid, concat(x"01", convert(convert(length, uint16), bytes2)))
    else:
        blobs._put(taskid, x"00")


@internal
def _write_direct(taskid: bytes32, length: uint256, split: bool, worker: address, enclave: address, digest: bytes32):
    if split:
        blobs._put(
            taskid,
            concat(x"03", convert(worker, bytes20), convert(enclave, bytes20), digest, convert(convert(length, uint16), bytes2)),
        )
    else:
        blobs._put(taskid, concat(x"02", convert(worker, bytes20), convert(enclave, bytes20), digest))


@internal
@view
def _is_direct(taskid: bytes32) -> bool:
    place: address = blobs._at(taskid)
    return place.is_contract and convert(slice(place.code, 0, 1), uint256) & DIRECT_BIT != 0


@internal
@view
def _read_direct(taskid: bytes32) -> Entry:
    """
    @return The contribution of a direct result.
    """
    code: Bytes[DIRECT] = slice(blobs._at(taskid).code, 0, DIRECT)
    worker: address = convert((convert(extract32(code, 0), uint256) >> 88) & types.ADDRESS_MASK, address)
    digest: bytes32 = extract32(code, 41)
    return Entry(
        weight=0,
        worker=worker,
        hash=self._result_hash(taskid, digest),
        seal=self._result_seal(worker, taskid, digest),
        enclave=convert(convert(extract32(code, 9), uint256) & types.ADDRESS_MASK, address),
    )


@internal
@view
def _digest(taskid: bytes32) -> bytes32:
    if self._is_direct(taskid):
        return extract32(slice(blobs._at(taskid).code, 41, 32), 0)
    return self.digests[taskid]


@internal
@view
def _read_result(taskid: bytes32) -> (Bytes[types.RESULT], Bytes[types.RESULT]):
    """
    @return Results and callback data, empty where there is no result.
    """
    place: address = blobs._at(taskid)
    if not place.is_contract:
        return b"", b""
    kind: uint256 = convert(slice(place.code, 0, 1), uint256)
    offset: uint256 = 1
    if kind & DIRECT_BIT != 0:
        offset = DIRECT
    if kind & SPLIT_BIT == 0:
        return convert(blobs._from(place, offset), Bytes[types.RESULT]), b""
    length: uint256 = convert(slice(place.code, offset, 2), uint256)
    rest: Bytes[types.PARAMS] = blobs._from(place, offset + 2)
    return (
        convert(slice(rest, 0, length), Bytes[types.RESULT]),
        convert(slice(rest, length, len(rest) - length), Bytes[types.RESULT]),
    )
