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

        Contributors have places, from 0. Each has a word under taskid XOR place, bits from the lowest:

          0  worker   160
        160  result    64   see below
        224  weight    24
        248  group      6   those with the same result hash; numbered as they appear
        254  mark       2   0 contributed, 1 proved, 2 rejected; a single one that proves stays at 0: the reveal
                            counter tells

        and beside it its seal, and its enclave if it has one. The hash of a group is kept under taskid XOR group. The
        consensus is the group of the last contributor, for only a contribution can bring it about. What can be computed
        as soon as the digest is known leaves its slot: the consensus' hash to the digest, at the first reveal; the
        digest in turn to the first word of the callback's data, of which it is the hash, at the end; and the seal of
        the first who proved to the results. That worker's word tells more of these, bits of its part from the lowest:

          0  more      56   bytes 32 to 38 of the results
         56  length     6   of the results plus one, if they are 39 bytes at most; zero: they are a link to IPFS in its
                            usual words with a CID of version 0, whose multihash is in the slot
         62  callback   2   words of the callback's data: none, one, or two (the second is in `seconds`)

        What does not fit, and every result that came with its contribution (contributeAndFinalize), is a blob under the
        taskid. From byte 0:

          0  kind        1
             if kind has bit 1 (the contribution is here): worker 20, enclave 20, digest 32
             if kind has bit 2 (such a link): the multihash 32
             else: the length of the results 2, and the results
             then, if there are any, the callback's data
"""
import types
import events
import blobs
import deals


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

# Parts of a contributor's word, as drawn above.
RESULT: constant(uint256) = 160
WEIGHT: constant(uint256) = 224
GROUP: constant(uint256) = 248
MARK: constant(uint256) = 254
WEIGHT_MASK: constant(uint256) = 2**24 - 1

# Parts of what it tells of the results.
SHORT: constant(uint256) = 39
LENGTH: constant(uint256) = 56
LENGTH_MASK: constant(uint256) = 63
CALLBACK: constant(uint256) = 62

# Marks.
CONTRIBUTED: constant(uint256) = 0
PROVED: constant(uint256) = 1
REJECTED: constant(uint256) = 2

# Length of what a direct result begins with.
DIRECT_HEAD: constant(uint256) = 73

# Zeros after short results.
PADDING: constant(Bytes[39]) = x"000000000000000000000000000000000000000000000000000000000000000000000000000000"

# Kinds of result.
DIRECT: constant(uint256) = 2
CID: constant(uint256) = 4

# What workers write around the changing part of a result's link to IPFS; its bytes 0 to 31 and 10 to 41; then its end.
LINK_HEAD: constant(Bytes[42]) = b'{ "storage": "ipfs", "location": "/ipfs/Qm'
LINK_START: constant(bytes32) = 0x7b202273746f72616765223a202269706673222c20226c6f636174696f6e223a
LINK_MIDDLE: constant(bytes32) = 0x223a202269706673222c20226c6f636174696f6e223a20222f697066732f516d
LINK_TAIL: constant(Bytes[3]) = b'" }'
LINK_END: constant(uint256) = 34 * 2**16 + 32 * 2**8 + 125

# "\x19Ethereum Signed Message:\n32", what EIP-191 puts before 32 bytes.
PERSONAL: constant(bytes28) = 0x19457468657265756d205369676e6564204d6573736167653a0a3332


# Length of such a link: a CID has 44 characters after its "Qm".
CID_PART: constant(uint256) = 44
LINK: constant(uint256) = 42 + CID_PART + 3

# In base 58, a CID of version 0 is 34 bytes: 0x1220, which says SHA-256, and the 32 of the hash.
CID_PREFIX: constant(uint256) = 4640
BASE: constant(uint256) = 58

# What "Qm" stands for before 44 more digits, 1378 * 58**44, without its last 32 bits, which are zero.
QM: constant(uint256) = 1378 * 2**12 * 29**44

ALPHABET: constant(Bytes[58]) = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

# Arithmetic on the 32 bytes of a word at once: a one in each; then the low halves of ever longer
# lanes. No lane ever runs over.
ONES: constant(uint256) = max_value(uint256) // 255
LOW_1: constant(uint256) = max_value(uint256) // (2**8 + 1)
LOW_2: constant(uint256) = max_value(uint256) // (2**16 + 1)
LOW_4: constant(uint256) = max_value(uint256) // (2**32 + 1)
LOW_8: constant(uint256) = max_value(uint256) // (2**64 + 1)
LOW_16: constant(uint256) = max_value(uint256) // (2**128 + 1)


struct Entry:
    worker: address
    hash: bytes32
    seal: bytes32
    enclave: address
    weight: uint256  # its log2
    mark: uint256


# Taskid -> the task, as drawn above.
words: HashMap[bytes32, uint256]

# Taskid XOR place -> the contributor, as drawn above.
contributors: HashMap[bytes32, uint256]

# Taskid XOR place -> the contribution's seal; for the first who proved, once the task is completed, the results.
seals: HashMap[bytes32, bytes32]

# Taskid XOR place -> the contribution's enclave, if it has one.
enclaves: HashMap[bytes32, address]

# Taskid -> the second word of callback data.
seconds: HashMap[bytes32, bytes32]

# Taskid XOR group -> its result hash; for the consensus, once somebody revealed, the digest, or callback data.
hashes: HashMap[bytes32, bytes32]

# Page of a deal (`_page`) -> which of its 256 tasks have begun, the first in the lowest bit; only of bags that may ask for
# batches (deals.vy): a task that ends in one has no word.
begun: HashMap[bytes32, uint256]


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
def _direct(word: uint256) -> uint256:
    """
    @return The word of a task that its only contributor has ended, who won and revealed, but for the reveal deadline.
    """
    return (
        (word & (2**STATUS - 1))
        | (types.COMPLETED << STATUS)
        | (1 << CONTRIBUTORS)
        | (1 << WINNERS)
        | (1 << REVEALS)
    )


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
@pure
def _page(dealid: bytes32, number: uint256) -> bytes32:
    """
    @return Where the bits of a deal's tasks from 256 `number` on are, counted from its first.
    """
    return convert(convert(dealid, uint256) ^ number, bytes32)


@internal
def _begin(
    dealid: bytes32, idx: uint256, first: uint256, size: uint256, workerpool: address, batches: bool
) -> bytes32:
    """
    @param batches Whether it may be of a deal that asks for batches.
    """
    assert idx >= first and idx < unsafe_add(first, size)
    taskid: bytes32 = self._id(dealid, idx)
    assert self.words[taskid] == 0
    if batches:
        page: bytes32 = self._page(dealid, unsafe_sub(idx, first) >> 8)
        begun: uint256 = self.begun[page]
        bit: uint256 = 1 << (unsafe_sub(idx, first) & 255)
        assert begun & bit == 0
        self.begun[page] = begun | bit
    self.words[taskid] = deals._key(dealid) | (idx << INDEX) | (types.ACTIVE << STATUS)
    log events.TaskInitialize(taskid=taskid, workerpool=workerpool)
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
def _key(taskid: bytes32, number: uint256) -> bytes32:
    """
    @return Where a contributor or a group of a task is.
    """
    return convert(convert(taskid, uint256) ^ number, bytes32)


@internal
@pure
def _worker(contributor: uint256) -> address:
    return convert(contributor & types.ADDRESS_MASK, address)


@internal
@pure
def _group(contributor: uint256) -> uint256:
    return (contributor >> GROUP) & COUNT_MASK


@internal
@view
def _consensus(taskid: bytes32, word: uint256) -> uint256:
    """
    @return The group that agreed, of a task whose word tells of winners.
    """
    return self._group(self.contributors[self._key(taskid, unsafe_sub(self._count(word), 1))])


@internal
@view
def _hash(taskid: bytes32, word: uint256, group: uint256) -> bytes32:
    if (word >> REVEALS) & COUNT_MASK != 0 and group == self._consensus(taskid, word):
        return self._result_hash(taskid, self._digest(taskid, word))
    return self.hashes[self._key(taskid, group)]


@internal
@view
def _revealed(taskid: bytes32, word: uint256) -> bytes32:
    """
    @return The digest that was revealed, of a task that is not completed yet.
    """
    return self.hashes[self._key(taskid, self._consensus(taskid, word))]


@internal
@view
def _digest(taskid: bytes32, word: uint256) -> bytes32:
    """
    @return What was revealed; zero before.
    """
    if (word >> REVEALS) & COUNT_MASK == 0:
        return empty(bytes32)
    kept: bytes32 = self._revealed(taskid, word)
    words: uint256 = 0
    if self._status(word) == types.COMPLETED:
        words = self._told(taskid, word) >> CALLBACK
    if words == 1:
        return keccak256(kept)
    if words == 2:
        return keccak256(concat(kept, self.seconds[taskid]))
    return kept


@internal
@view
def _told(taskid: bytes32, word: uint256) -> uint256:
    """
    @return What is told of the results of a completed task, if they are in no blob.
    """
    place: uint256 = self._first_proved(taskid, self._count(word))
    return (self.contributors[self._key(taskid, place)] >> RESULT) & (2**64 - 1)


@internal
@view
def _first_proved(taskid: bytes32, count: uint256) -> uint256:
    """
    @return Its place, where somebody proved.
    """
    if count > 1:
        for place: uint256 in range(count, bound=types.CONTRIBUTORS):
            if self.contributors[self._key(taskid, place)] >> MARK == PROVED:
                return place
    return 0


@internal
def _join(
    taskid: bytes32, count: uint256, worker: address, weight: uint256, hash: bytes32, seal: bytes32, enclave: address
) -> uint256:
    """
    @notice Keep a contribution after `count` others.
    @return Its group.
    """
    groups: uint256 = 0
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        groups = max(groups, unsafe_add(self._group(self.contributors[self._key(taskid, place)]), 1))
    group: uint256 = groups
    for number: uint256 in range(groups, bound=types.CONTRIBUTORS):
        if self.hashes[self._key(taskid, number)] == hash:
            group = number
            break
    if group == groups:
        self.hashes[self._key(taskid, group)] = hash
    key: bytes32 = self._key(taskid, count)
    self.contributors[key] = convert(worker, uint256) | (min(weight, WEIGHT_MASK) << WEIGHT) | (group << GROUP)
    self.seals[key] = seal
    if enclave != empty(address):
        self.enclaves[key] = enclave
    return group


@internal
@view
def _weigh(taskid: bytes32, count: uint256, group: uint256, trust: uint256) -> (bool, uint256):
    """
    @notice Compare a group with all. Its weight is the product of its contributors'; the total begins at one.
    @return Whether it has reached consensus, and how many it has. The rejected do not count.
    """
    weights: DynArray[uint256, types.CONTRIBUTORS] = []
    members: uint256 = 0
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        contributor: uint256 = self.contributors[self._key(taskid, place)]
        number: uint256 = self._group(contributor)
        if number == len(weights):
            weights.append(0)
        if contributor >> MARK != REJECTED:
            weights[number] = max(weights[number], 1) * ((contributor >> WEIGHT) & WEIGHT_MASK)
            if number == group:
                members += 1
    total: uint256 = 1
    for weight: uint256 in weights:
        total += weight
    return weights[group] * trust > total * (trust - 1), members


@internal
@view
def _place(taskid: bytes32, count: uint256, worker: address) -> uint256:
    """
    @return A contributor's place. Reverts without data where it has none.
    """
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        if self._worker(self.contributors[self._key(taskid, place)]) == worker:
            return place
    raw_revert(b"")


@internal
def _reject(taskid: bytes32, word: uint256):
    """
    @notice All who agreed are rejected.
    """
    group: uint256 = self._consensus(taskid, word)
    for place: uint256 in range(self._count(word), bound=types.CONTRIBUTORS):
        key: bytes32 = self._key(taskid, place)
        contributor: uint256 = self.contributors[key]
        if self._group(contributor) == group:
            self.contributors[key] = (contributor & (2**MARK - 1)) | (REJECTED << MARK)


@internal
@view
def _entry(taskid: bytes32, word: uint256, place: uint256) -> Entry:
    """
    @return The contribution at a place, for views: what is not kept any more is computed.
    """
    key: bytes32 = self._key(taskid, place)
    contributor: uint256 = self.contributors[key]
    worker: address = self._worker(contributor)
    mark: uint256 = contributor >> MARK
    if self._count(word) == 1 and (word >> REVEALS) & COUNT_MASK != 0:
        mark = PROVED
    seal: bytes32 = self.seals[key]
    if mark == PROVED:
        seal = self._result_seal(worker, taskid, self._digest(taskid, word))
    return Entry(
        worker=worker,
        hash=self._hash(taskid, word, self._group(contributor)),
        seal=seal,
        enclave=self.enclaves[key],
        weight=self._log2((contributor >> WEIGHT) & WEIGHT_MASK),
        mark=mark,
    )


@internal
@pure
def _log2(number: uint256) -> uint256:
    power: uint256 = 0
    for i: uint256 in range(80):
        if number >> (power + 1) == 0:
            break
        power += 1
    return power


# ---- Results -------------------------------------------------------------------------------------------------------

@internal
@pure
def _multihash(results: Bytes[types.RESULT]) -> (bool, bytes32):
    """
    @return Whether the results are a link to IPFS in its usual words, with a CID of version 0, and the hash in it.
    """
    if len(results) != LINK:
        return False, empty(bytes32)
    if extract32(results, 0) != LINK_START or extract32(results, 10) != LINK_MIDDLE:
        return False, empty(bytes32)
    # The last 32 digits, and the 12 before them, with "1" for what precedes.
    tail: uint256 = convert(extract32(results, LINK - 32), uint256)
    if tail & (2**24 - 1) != LINK_END:
        return False, empty(bytes32)
    low: uint256 = self._number(convert(extract32(results, 54), uint256))
    high: uint256 = self._number(
        (convert(extract32(results, 22), uint256) & (2**96 - 1)) | ((49 * ONES) & ~(2**96 - 1))
    )
    if low == max_value(uint256) or high == max_value(uint256):
        return False, empty(bytes32)
    # high * 58**32 + low + "Qm", without the last 32 bits, to which only `low` has something to add: 240 bits.
    upper: uint256 = unsafe_add(unsafe_add(unsafe_mul(high, 29**32), low >> 32), QM)
    return upper >> 224 == CID_PREFIX, convert((upper << 32) | (low & (2**32 - 1)), bytes32)


@internal
@pure
def _number(text: uint256) -> uint256:
    """
    @return The value of 32 digits of base 58, below 58**32, which has 188 bits; the maximum if one of the characters
            is no digit. Adding 128 - n to all characters, which are below 128, sets the high bit of those from n on.
    """
    # In memory, because a constant takes 32 bytes of code wherever it stands.
    ones: uint256 = ONES
    highs: uint256 = 128 * ONES
    from_A: uint256 = unsafe_add(text, unsafe_mul(63, ones)) & highs
    from_J: uint256 = unsafe_add(text, unsafe_mul(54, ones)) & highs
    from_P: uint256 = unsafe_add(text, unsafe_mul(48, ones)) & highs
    from_a: uint256 = unsafe_add(text, unsafe_mul(31, ones)) & highs
    from_m: uint256 = unsafe_add(text, unsafe_mul(19, ones)) & highs
    # None is below "1" or above "z", between "9" and "A" or "Z" and "a", or an "I", "O" or "l".
    if (
        (text & highs)
        | ((unsafe_add(text, unsafe_mul(79, ones)) & highs) ^ highs)
        | (unsafe_add(text, unsafe_mul(5, ones)) & highs)
        | ((unsafe_add(text, unsafe_mul(70, ones)) & highs) ^ from_A)
        | ((unsafe_add(text, unsafe_mul(37, ones)) & highs) ^ from_a)
        | ((unsafe_add(text, unsafe_mul(55, ones)) & highs) ^ from_J)
        | ((unsafe_add(text, unsafe_mul(49, ones)) & highs) ^ from_P)
        | ((unsafe_add(text, unsafe_mul(20, ones)) & highs) ^ from_m)
    ) != 0:
        return max_value(uint256)
    # The digits: a byte each, then in lanes twice as long, and so on.
    digits: uint256 = unsafe_sub(
        unsafe_sub(text, unsafe_mul(49, ones)),
        unsafe_add(
            unsafe_add(unsafe_mul(from_A >> 7, 7), unsafe_mul(from_a >> 7, 6)),
            unsafe_add(unsafe_add(from_J >> 7, from_P >> 7), from_m >> 7),
        ),
    )
    digits = unsafe_add(unsafe_mul((digits >> 8) & LOW_1, 58), digits & LOW_1)
    digits = unsafe_add(unsafe_mul((digits >> 16) & LOW_2, 58**2), digits & LOW_2)
    digits = unsafe_add(unsafe_mul((digits >> 32) & LOW_4, 58**4), digits & LOW_4)
    digits = unsafe_add(unsafe_mul((digits >> 64) & LOW_8, 58**8), digits & LOW_8)
    return unsafe_add(unsafe_mul(digits >> 128, 58**16), digits & LOW_16)


@internal
@pure
def _link(hash: bytes32) -> Bytes[LINK]:
    """
    @return What `_multihash` read, written again.
    """
    top: uint256 = CID_PREFIX
    rest: uint256 = convert(hash, uint256)
    high: uint256 = 0
    low: uint256 = 0
    for i: uint256 in range(CID_PART):
        # Divide by the base, half a word at a time. The first remainders are the last characters.
        upper: uint256 = ((top % BASE) << 128) | (rest >> 128)
        lower: uint256 = ((upper % BASE) << 128) | (rest & (2**128 - 1))
        top //= BASE
        rest = ((upper // BASE) << 128) | (lower // BASE)
        low = (low >> 8) | ((high & 255) << 168)
        high = (high >> 8) | (convert(slice(ALPHABET, lower % BASE, 1), uint256) << 168)
    return concat(
        LINK_HEAD,
        slice(convert(high << 80, bytes32), 0, 22),
        slice(convert(low << 80, bytes32), 0, 22),
        LINK_TAIL,
    )


@internal
@view
def _is_direct(taskid: bytes32) -> bool:
    place: address = blobs._at(taskid)
    return place.is_contract and convert(slice(place.code, 0, 1), uint256) & DIRECT != 0


@internal
@view
def _direct_digest(taskid: bytes32) -> bytes32:
    return extract32(slice(blobs._at(taskid).code, 41, 32), 0)


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
        worker=worker,
        hash=self._result_hash(taskid, digest),
        seal=self._result_seal(worker, taskid, digest),
        enclave=convert(convert(extract32(code, 9), uint256) & types.ADDRESS_MASK, address),
        weight=0,
        mark=PROVED,
    )


@internal
@view
def _read_result(taskid: bytes32, word: uint256) -> (Bytes[types.RESULT], Bytes[types.RESULT]):
    """
    @return Results and callback data, empty where there is no result.
    """
    if self._status(word) != types.COMPLETED:
        return b"", b""
    place: address = blobs._at(taskid)
    if not place.is_contract:
        told: uint256 = self._told(taskid, word)
        kept: bytes32 = self.seals[self._key(taskid, self._first_proved(taskid, self._count(word)))]
        both: Bytes[64] = concat(self.hashes[self._key(taskid, self._consensus(taskid, word))], self.seconds[taskid])
        data: Bytes[64] = slice(both, 0, 32 * (told >> CALLBACK))
        length: uint256 = (told >> LENGTH) & LENGTH_MASK
        if length == 0:
            return self._link(kept), data
        return slice(concat(kept, convert(convert(told & (2**LENGTH - 1), uint56), bytes7)), 0, length - 1), data
    kind: uint256 = convert(slice(place.code, 0, 1), uint256)
    offset: uint256 = 1
    if kind & DIRECT != 0:
        offset = DIRECT_HEAD
    if kind & CID != 0:
        hash: bytes32 = convert(slice(place.code, offset, 32), bytes32)
        return self._link(hash), convert(blobs._from(place, offset + 32), Bytes[types.RESULT])
    length: uint256 = convert(slice(place.code, offset, 2), uint256)
    kept: Bytes[types.PARAMS] = blobs._from(place, offset + 2)
    return (
        convert(slice(kept, 0, length), Bytes[types.RESULT]),
        convert(slice(kept, length, len(kept) - length), Bytes[types.RESULT]),
    )


@internal
@pure
def _short(results: Bytes[types.RESULT]) -> (bool, bytes32, uint256):
    """
    @return Whether the results fit into slots, what goes into the seal's, and what is told in the worker's word.
    """
    if len(results) > SHORT:
        compact: bool = False
        hash: bytes32 = empty(bytes32)
        compact, hash = self._multihash(results)
        return compact, hash, 0
    padded: Bytes[2 * SHORT] = concat(convert(results, Bytes[SHORT]), PADDING)
    more: uint256 = convert(extract32(padded, 7), uint256) & (2**LENGTH - 1)
    return True, extract32(padded, 0), more | (unsafe_add(len(results), 1) << LENGTH)


@internal
def _keep_short(taskid: bytes32, word: uint256, kept: bytes32, told: uint256):
    """
    @notice Keep a result that came by `finalize`, and fits.
    """
    key: bytes32 = self._key(taskid, self._first_proved(taskid, self._count(word)))
    self.seals[key] = kept
    if told != 0:
        self.contributors[key] |= told << RESULT


@internal
def _keep_callback(taskid: bytes32, word: uint256, data: bytes32):
    """
    @notice Keep the first word of a callback's data, of which the digest is the hash.
    """
    self.hashes[self._key(taskid, self._consensus(taskid, word))] = data
