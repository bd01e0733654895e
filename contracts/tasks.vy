# pragma version 0.4.3
"""
@title Tasks: their state, their contributions, their results, and how contributions agree
@license Apache-2.0
@notice A task is one word (zero: never initialised), bits from the lowest:

          0  deal        176   the low part of the dealid
        176  idx          24
        200  status        3
        203  contributors  6   how many
        209  winners       6   how many agree with the consensus (zero: there is none)
        215  reveals       6
        221  revealed by  35   reveal deadline, seconds

        A contribution is a blob under taskid XOR (its place + 1):

          0  log2(weight)     1
          1  worker          20
         21  result hash     32
         53  result seal     32
         85  enclave         20

        A result is a blob under the taskid. From byte 0: kind 1; if kind has bit 1 (contributeAndFinalize, whose
        contribution is found here): worker 20, enclave 20, digest 32; if kind has bit 0: length of what follows 2;
        then the results, or, if kind has bit 2 (a link to IPFS in its usual words), the link's changing part only;
        then, if kind has bit 0, the callback's data.

        Marks are two bits for each contribution: 0 contributed, 1 proved, 2 rejected. Their word, from the lowest bit:
        marks 126, place of a contribution whose hash is the consensus (until there is one: of the last) 6, sum of all
        groups' weights 124 (without the official initial 1). The mark of a single contribution stays 0 at its reveal,
        which the reveal counter tells.
"""
import types
import events
import settings
import blobs
import deals

uses: settings
uses: blobs

# Parts of a task's word, as drawn above.
INDEX: constant(uint256) = 176
STATUS: constant(uint256) = 200
CONTRIBUTORS: constant(uint256) = 203
WINNERS: constant(uint256) = 209
REVEALS: constant(uint256) = 215
DEADLINE: constant(uint256) = 221

STATUS_MASK: constant(uint256) = 7
COUNT_MASK: constant(uint256) = 63
INDEX_MASK: constant(uint256) = 2**24 - 1

# Marks, and the parts of their word.
CONTRIBUTED: constant(uint256) = 0
PROVED: constant(uint256) = 1
REJECTED: constant(uint256) = 2
WINNER: constant(uint256) = 126
TOTAL: constant(uint256) = 132
MARKS: constant(uint256) = 2**WINNER - 1
TOTAL_LIMIT: constant(uint256) = 2**124

# Lengths of a contribution, and of what a direct result begins with.
CONTRIBUTION: constant(uint256) = 105
DIRECT_HEAD: constant(uint256) = 73

# Kinds of result.
SPLIT: constant(uint256) = 1
DIRECT: constant(uint256) = 2
LINK: constant(uint256) = 4

# What workers write around the changing part of a result's link to IPFS; its bytes 0 to 31 and 10 to 41; then its end.
LINK_HEAD: constant(Bytes[42]) = b'{ "storage": "ipfs", "location": "/ipfs/Qm'
LINK_START: constant(bytes32) = 0x7b202273746f72616765223a202269706673222c20226c6f636174696f6e223a
LINK_MIDDLE: constant(bytes32) = 0x223a202269706673222c20226c6f636174696f6e223a20222f697066732f516d
LINK_TAIL: constant(Bytes[3]) = b'" }'
LINK_END: constant(uint256) = 34 * 2**16 + 32 * 2**8 + 125

# "\x19Ethereum Signed Message:\n32", what EIP-191 puts before 32 bytes.
PERSONAL: constant(bytes28) = 0x19457468657265756d205369676e6564204d6573736167653a0a3332


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
    return keccak256(abi_encode(dealid, idx))


@internal
@pure
def _deal(word: uint256) -> uint256:
    return word & deals.KEY_MASK


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
    return keccak256(abi_encode(taskid, digest))


@internal
@pure
def _result_seal(worker: address, taskid: bytes32, digest: bytes32) -> bytes32:
    return keccak256(concat(convert(worker, bytes20), taskid, digest))


@internal
def _begin(dealid: bytes32, idx: uint256) -> bytes32:
    first: uint256 = 0
    size: uint256 = 0
    workerpool: uint256 = 0
    first, size, workerpool = deals._range(dealid)
    assert idx >= first and idx < unsafe_add(first, size)
    taskid: bytes32 = self._id(dealid, idx)
    assert self.words[taskid] == 0
    self.words[taskid] = deals._key(dealid) | (idx << INDEX) | (types.ACTIVE << STATUS)
    log events.TaskInitialize(taskid=taskid, workerpool=settings.assets[workerpool])
    return taskid


@internal
@pure
def _authorisation(worker: address, taskid: bytes32, enclave: address) -> bytes32:
    """
    @return What the authoriser signs so that this worker may contribute.
    """
    return keccak256(
        concat(PERSONAL, keccak256(concat(convert(worker, bytes20), taskid, convert(enclave, bytes20))))
    )


@internal
@pure
def _attested(hash: bytes32, seal: bytes32) -> bytes32:
    """
    @return What the enclave signs about its result.
    """
    return keccak256(concat(PERSONAL, keccak256(abi_encode(hash, seal))))


# ---- Contributions -------------------------------------------------------------------------------------------------

@internal
@pure
def _key(taskid: bytes32, place: uint256) -> bytes32:
    return convert(convert(taskid, uint256) ^ (place + 1), bytes32)


@internal
def _write_contribution(
    taskid: bytes32, place: uint256, weight: uint256, worker: address, hash: bytes32, seal: bytes32, enclave: address
):
    blobs.held = concat(
        convert(convert(weight, uint8), bytes1), convert(worker, bytes20), hash, seal, convert(enclave, bytes20)
    )
    blobs._put(self._key(taskid, place))


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
@view
def _winner(taskid: bytes32) -> uint256:
    """
    @return Place of a contribution whose hash is the consensus, if there is one.
    """
    return (self.marks[taskid] >> WINNER) & COUNT_MASK


@internal
def _lead(taskid: bytes32, place: uint256):
    """
    @notice Note that this contribution is the consensus.
    """
    self.marks[taskid] = (self.marks[taskid] & ~(COUNT_MASK << WINNER)) | (place << WINNER)


@internal
def _weigh(taskid: bytes32, place: uint256, hash: bytes32, weight: uint256, trust: uint256) -> bool:
    """
    @notice Add a contribution of this weight to its group, and note it as the one that may bring the consensus.
    @return Whether the group has reached consensus.
    """
    group: uint256 = self.groups[taskid][hash]
    marks: uint256 = self.marks[taskid]
    heavier: uint256 = max(group, 1) * weight
    total: uint256 = (marks >> TOTAL) + heavier - group
    assert total < TOTAL_LIMIT, "tasks: total weight above 2**124"
    self.groups[taskid][hash] = heavier
    self.marks[taskid] = (total << TOTAL) | (place << WINNER) | (marks & MARKS)
    return heavier * trust > (total + 1) * (trust - 1)


@internal
def _discard(taskid: bytes32, hash: bytes32, count: uint256):
    """
    @notice Reject every contribution of this hash, and take their group's weight away.
    """
    word: uint256 = self.marks[taskid]
    rejected: uint256 = word & MARKS
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        if self._read_contribution(taskid, place).hash == hash:
            rejected = self._marked(rejected, place, REJECTED)
    total: uint256 = (word >> TOTAL) - self.groups[taskid][hash]
    self.groups[taskid][hash] = 0
    self.marks[taskid] = (total << TOTAL) | rejected


# ---- Results -------------------------------------------------------------------------------------------------------

@internal
@pure
def _kept(results: Bytes[types.RESULT]) -> (uint256, uint256):
    """
    @return Start and length of what has to be kept of the results.
    """
    length: uint256 = len(results)
    if length <= len(LINK_HEAD) + len(LINK_TAIL):
        return 0, length
    if extract32(results, 0) != LINK_START or extract32(results, 10) != LINK_MIDDLE:
        return 0, length
    if convert(extract32(results, unsafe_sub(length, 32)), uint256) & (2**24 - 1) != LINK_END:
        return 0, length
    return len(LINK_HEAD), unsafe_sub(length, len(LINK_HEAD) + len(LINK_TAIL))


@internal
@pure
def _result_head(start: uint256, length: uint256, callback: uint256) -> Bytes[3]:
    """
    @notice What the kept results are preceded by; the callback's data, of this length, follows them.
    """
    kind: uint256 = 0
    if start != 0:
        kind = LINK
    if callback == 0:
        return slice(convert(kind << 248, bytes32), 0, 1)
    return slice(convert(((kind | SPLIT) << 248) | (length << 232), bytes32), 0, 3)


@internal
@pure
def _direct_head(
    start: uint256, length: uint256, callback: uint256, worker: address, enclave: address, digest: bytes32
) -> Bytes[DIRECT_HEAD + 2]:
    kind: uint256 = DIRECT
    if start != 0:
        kind |= LINK
    split: Bytes[2] = b""
    if callback != 0:
        kind |= SPLIT
        split = slice(convert(length << 240, bytes32), 0, 2)
    return concat(
        convert(convert(kind, uint8), bytes1), convert(worker, bytes20), convert(enclave, bytes20), digest, split
    )


@internal
@view
def _is_direct(taskid: bytes32) -> bool:
    place: address = blobs._at(taskid)
    return place.is_contract and convert(slice(place.code, 0, 1), uint256) & DIRECT != 0


@internal
@view
def _read_direct(taskid: bytes32) -> Entry:
    """
    @return The contribution of a direct result.
    """
    code: Bytes[DIRECT_HEAD] = slice(blobs._at(taskid).code, 0, DIRECT_HEAD)
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
    if kind & DIRECT != 0:
        offset = DIRECT_HEAD
    length: uint256 = place.codesize - offset
    if kind & SPLIT != 0:
        length = convert(slice(place.code, offset, 2), uint256)
        offset += 2
    kept: Bytes[types.PARAMS] = blobs._from(place, offset)
    results: Bytes[types.RESULT] = convert(slice(kept, 0, length), Bytes[types.RESULT])
    if kind & LINK != 0:
        results = convert(concat(LINK_HEAD, results, LINK_TAIL), Bytes[types.RESULT])
    return results, convert(slice(kept, length, len(kept) - length), Bytes[types.RESULT])
