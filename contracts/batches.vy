# pragma version 0.4.3
"""
@title Batches: many tasks of one deal settled in one transaction
@license Apache-2.0
@notice For deals of trust 1, in a TEE, without callback, whose tag has bit 128. The TEE broker authorises once, for a
        list of (worker, task, enclave); the deal's scheduler settles all of them, or some now and others later. Each is
        as if its worker had called `contributeAndFinalize`, but that

          - money moves once for all of a batch, with the dealid as reference;
          - of its events only TaskInitialize and TaskFinalize are emitted;
          - results lie in one directory on IPFS, each under the task's index;
          - the scheduler sends it, as it sends `finalize`: no enclave vouches for where the results lie.

        A task that has ended, or that somebody has contributed to, is skipped and not paid. A task that ends in a batch
        gets no word, if it had none: a bit tells that it has begun (tasks.vy). What views show of it is in its batch.

        A batch is code, at an address of no meaning: each tells the one before, `newest` the last one, and a view looks
        through all of them. From byte 0, bits from the highest:

          0  head       32   masks 2 | width 6 | the batch before 160 | time 40 | index of bit 0 24 | workers 8 |
                             tasks 8 | length of directory 8
         32  deal       22   its key
         54  masks      32 each, bit 0 for the first task of the deal's page: which were authorised, which settled or
                             skipped, which settled. Those left out are equal to the one before; the first, to ones
             directory       as in the link
             workers    20 each
             assigned    1 each, if there are more workers than one: whose the authorised task is
             enclaves   20 each, of the authorised tasks
             digests  width each, of those settled or skipped: without their last 32 - width bytes, which are zero
"""
import types
import events
import settings
import ledger
import blobs
import orders
import deals
import tasks
import settlement

uses: settings
uses: ledger
uses: orders
uses: tasks
uses: settlement

# Most tasks and workers of a batch, and the longest name of its directory.
TASKS: constant(uint256) = 128
WORKERS: constant(uint256) = 32
DIRECTORY: constant(uint256) = 64

# Parts of a batch's first word, as drawn above.
MASKS: constant(uint256) = 254
WIDTH: constant(uint256) = 248
BEFORE: constant(uint256) = 88
TIME: constant(uint256) = 48
FIRST: constant(uint256) = 24
COUNT_WORKERS: constant(uint256) = 16
COUNT_TASKS: constant(uint256) = 8

# Where masks begin.
FIXED: constant(uint256) = 54

# What the TEE broker signs, under the hub's domain (EIP-712). `tasks` are bits, from the first task of the page; the others
# are as in the drawing.
BATCH_TYPE: constant(bytes32) = keccak256(
    "Batch(bytes32 dealid,uint256 page,uint256 tasks,bytes workers,bytes assigned,bytes enclaves)"
)

# A result: the link's beginning, its end as a number, and the bound of what is before the index.
LINK_HEAD: constant(Bytes[40]) = b'{ "storage": "ipfs", "location": "/ipfs/'
LINK_TAIL: constant(Bytes[3]) = b'" }'
LINK_END: constant(uint256) = 34 * 2**16 + 32 * 2**8 + 125
LINK: constant(uint256) = 41 + DIRECTORY

# ASCII.
EIGHT: constant(uint256) = 56
NINE: constant(uint256) = 57

FINALIZE: constant(bytes32) = keccak256("TaskFinalize(bytes32,bytes)")


# A task as its batch tells; all zero if none does.
struct Settled:
    dealid: bytes32
    idx: uint256
    time: uint256
    worker: address
    enclave: address
    digest: bytes32
    results: Bytes[types.RESULT]


# The last batch.
newest: address


@external
def settleBatch(
    _dealid: bytes32,
    _page: uint256,
    _tasks: uint256,
    _settle: uint256,
    _workers: DynArray[address, WORKERS],
    _assigned: Bytes[TASKS],
    _width: uint256,
    _digests: Bytes[32 * TASKS],
    _signatures: DynArray[bytes32[2], TASKS],
    _directory: Bytes[DIRECTORY],
    _authorisation: Bytes[types.SIGNATURE],
) -> uint256:
    """
    @notice Settle tasks of a deal's page: 256 tasks, page 0 from the deal's first.
    @param _tasks Those that are authorised, a bit each.
    @param _settle Those to be settled now.
    @param _workers Without repetition.
    @param _assigned For each authorised task the place of its worker, a byte; empty if there is one worker.
    @param _width Length of the digests below; their other bytes are zero.
    @param _digests Of the tasks to be settled.
    @param _signatures For each authorised task the enclave's signature (EIP-2098), or, if it is not to be settled now,
           the enclave's address and zero.
    @param _directory CID of the directory that holds the results.
    @param _authorisation The TEE broker's signature.
    @return How many tasks were settled.
    """
    # What each of the tasks would be asked.
    deal: deals.Terms = deals._read(deals._key(_dealid))
    assert deal.dealid == _dealid, "batches: no such deal"
    assert deal.tag & types.TAG_BATCH != 0, "batches: the deal does not ask for batches"
    assert deal.tag & types.TAG_TEE != 0, "batches: the deal is not for a TEE"
    assert deal.trust == 1, "batches: the deal's trust is above 1"
    assert deal.callback == empty(address), "batches: the deal has a callback"
    scheduler: address = settlement._owner(deal.workerpool_owner, deal.workerpool)
    assert msg.sender == scheduler, "batches: the sender is not the scheduler"
    timeref: uint256 = settings._timeref(deal.category)
    assert block.timestamp < unsafe_add(
        deal.start, unsafe_mul(timeref, types.CONTRIBUTION_DEADLINE_RATIO)
    ), "batches: contributions have ended"
    offset: uint256 = _page << 8
    assert (
        offset >> 8 == _page and offset < deal.size and _tasks >> min(unsafe_sub(deal.size, offset), 256) == 0
    ), "batches: a task is not the deal's"
    assert _settle & ~_tasks == 0, "batches: a task is not authorised"
    assert _width <= 32, "batches: a digest has 32 bytes at most"
    first: uint256 = unsafe_add(deal.first, offset)

    # Which have not ended: those that have not begun, or to which nobody has contributed.
    page: bytes32 = tasks._page(_dealid, _page)
    begun: uint256 = tasks.begun[page]
    settled: uint256 = _settle & ~begun
    if settled != _settle:
        for i: uint256 in range(256):
            if ((_settle & begun) >> i) & 1 != 0:
                if tasks.words[tasks._id(_dealid, unsafe_add(first, i))] >> tasks.STATUS == types.ACTIVE:
                    settled |= 1 << i
    assert settled != 0, "batches: every task has ended"
    tasks.begun[page] = begun | settled

    # Task by task: its enclave signed. Results are emitted as they are encoded: their last word varies, the others are
    # made when the index gets another digit. The usual batch is a row of tasks that nobody has begun, all settled now.
    count: uint256 = len(_signatures)
    usual: bool = settled == _tasks and begun & settled == 0 and _tasks == max_value(uint256) >> unsafe_sub(256, count)
    limit: uint256 = 256
    if usual:
        limit = count
    link: Bytes[LINK] = concat(LINK_HEAD, _directory, b"/")
    words: uint256 = len(link) & ~convert(31, uint256)
    before: Bytes[LINK + 64] = b""
    last: uint256 = 0
    place: uint256 = 0
    number: uint256 = NINE
    workerpool: address = settings.assets[deal.workerpool]
    worker: address = _workers[0]
    many: bool = len(_workers) != 1
    assigned: Bytes[TASKS + 32] = concat(_assigned, empty(bytes32))
    counts: uint256[WORKERS] = empty(uint256[WORKERS])
    digests: Bytes[32 * TASKS + 32] = concat(_digests, empty(bytes32))
    mask: uint256 = ~(max_value(uint256) >> unsafe_mul(8, _width))
    at: uint256 = 0
    given: uint256 = 0
    ends: bool = True
    fresh: bool = True
    eight: uint256[8] = empty(uint256[8])
    rows: DynArray[uint256[5], TASKS // 8] = []
    count = 0
    for i: uint256 in range(limit, bound=256):
        if not usual:
            if (_tasks >> i) & 1 == 0:
                if _tasks >> i == 0:
                    break
                number = NINE
                continue
            ends = (settled >> i) & 1 != 0
            fresh = (begun >> i) & 1 == 0
            given = 0
            if (_settle >> i) & 1 == 0:
                given = convert(_signatures[count][0], uint256) & types.ADDRESS_MASK
                assert given != 0, "batches: an enclave is missing"
            if not ends:
                number = NINE
        signature: bytes32[2] = _signatures[count]
        if many:
            of: uint256 = convert(extract32(assigned, count), uint256) >> 248
            worker = _workers[of]
            counts[of] = unsafe_add(counts[of], (settled >> i) & 1)
        enclave: uint256 = given
        if given == 0:
            taskid: bytes32 = keccak256(abi_encode(_dealid, unsafe_add(first, i)))
            digest: bytes32 = convert(convert(extract32(digests, at), uint256) & mask, bytes32)
            # _attested(_result_hash(...), _result_seal(...)) of tasks.vy, in one expression: three calls would cost 200 gas.
            enclave = convert(
                ecrecover(
                    keccak256(
                        concat(
                            tasks.PERSONAL,
                            keccak256(
                                abi_encode(
                                    keccak256(abi_encode(taskid, digest)),
                                    keccak256(concat(convert(worker, bytes20), taskid, digest)),
                                )
                            ),
                        )
                    ),
                    unsafe_add(convert(signature[1], uint256) >> 255, 27),
                    convert(signature[0], uint256),
                    convert(signature[1], uint256) & (2**255 - 1),
                ),
                uint256,
            )
            assert enclave != 0, "batches: an enclave's signature is not valid"
            at = unsafe_add(at, _width)
            if ends:
                if number & 255 != NINE:
                    number = unsafe_add(number, 1)
                elif number >> 8 != 0 and (number >> 8) & 255 != NINE:
                    number = unsafe_add(number, 256 - 9)
                else:
                    text: String[8] = uint2str(convert(unsafe_add(first, i), uint24))
                    number = convert(convert(text, Bytes[8]), uint256)
                    size: uint256 = len(link) + len(text) + 3
                    before = concat(convert(32, bytes32), convert(size, bytes32), slice(link, 0, words))
                    place = 256 - 8 * (len(link) - words) - 8 * len(text)
                    last = convert(extract32(concat(link, empty(bytes32)), words), uint256) | (LINK_END << (place - 24))
                if fresh:
                    log events.TaskInitialize(taskid=taskid, workerpool=workerpool)
                else:
                    tasks.words[taskid] = tasks._with_status(tasks.words[taskid], types.COMPLETED)
                raw_log([FINALIZE, taskid], concat(before, convert(last | (number << place), bytes32)))
        eight[count & 7] = enclave
        count = unsafe_add(count, 1)
        if count & 7 == 0:
            rows.append(self._row(eight))
    if count & 7 != 0:
        rows.append(self._row(eight))
    assert len(_signatures) == count and len(_digests) == at, "batches: digests or signatures too many"
    assert len(_assigned) == count or not many and len(_assigned) == 0, "batches: not a worker for each task"

    # All of them were authorised.
    enclaves: Bytes[64 + 20 * TASKS] = slice(abi_encode(rows), 64, 20 * count)
    workers: Bytes[20 * WORKERS] = b""
    for each: address in _workers:
        workers = convert(concat(workers, convert(each, bytes20)), Bytes[20 * WORKERS])
    broker: address = settings._broker()
    assert broker != empty(address), "batches: there is no TEE broker"
    authorised: bytes32 = orders._digest(
        orders._domain(),
        keccak256(
            abi_encode(
                BATCH_TYPE, _dealid, _page, _tasks, keccak256(workers), keccak256(_assigned), keccak256(enclaves)
            )
        ),
    )
    assert orders._signed(broker, authorised, _authorisation, False), "batches: not authorised"

    # Keep them.
    masks: Bytes[96] = b""
    if settled != _settle:
        masks = concat(convert(_tasks, bytes32), convert(_settle, bytes32), convert(settled, bytes32))
    elif _settle != _tasks:
        masks = concat(convert(_tasks, bytes32), convert(_settle, bytes32))
    elif _tasks & unsafe_add(_tasks, 1) != 0:
        masks = concat(convert(_tasks, bytes32), b"")
    self.newest = raw_create(
        concat(
            blobs.COPY,
            convert(
                ((len(masks) >> 5) << MASKS) | (_width << WIDTH) | (convert(self.newest, uint256) << BEFORE)
                | (block.timestamp << TIME) | (first << FIRST) | (len(_workers) << COUNT_WORKERS)
                | (count << COUNT_TASKS) | len(_directory),
                bytes32,
            ),
            convert(convert(deals._key(_dealid), uint176), bytes22),
            masks,
            _directory,
            workers,
            _assigned,
            enclaves,
            _digests,
        )
    )

    # Pay for them.
    paid: uint256 = self._ones(settled)
    settlement._pay_resources_of(deal, scheduler, _dealid, paid)
    if len(_workers) == 1:
        counts[0] = paid
    reward: uint256 = settlement._worker_reward(deal.workerpool_price, deal.scheduler_ratio)
    for i: uint256 in range(len(_workers), bound=WORKERS):
        if counts[i] != 0:
            ledger._reward(_workers[i], unsafe_mul(reward, counts[i]), _dealid)
    ledger._reward(scheduler, unsafe_mul(unsafe_sub(deal.workerpool_price, reward), paid), _dealid)
    return paid


@internal
@pure
def _row(items: uint256[8]) -> uint256[5]:
    """
    @return Eight numbers of 160 bits, in five words.
    """
    return [
        (items[0] << 96) | (items[1] >> 64),
        (items[1] << 192) | (items[2] << 32) | (items[3] >> 128),
        (items[3] << 128) | (items[4] >> 32),
        (items[4] << 224) | (items[5] << 64) | (items[6] >> 96),
        (items[6] << 160) | items[7],
    ]


@internal
@pure
def _ones(bits: uint256) -> uint256:
    """
    @return How many bits of a page are set; 128 at most are.
    """
    counts: uint256 = unsafe_sub(bits, (bits >> 1) & (max_value(uint256) // 3))
    counts = unsafe_add(counts & (max_value(uint256) // 5), (counts >> 2) & (max_value(uint256) // 5))
    counts = unsafe_add(counts, counts >> 4) & (max_value(uint256) // 17)
    return unsafe_mul(counts, max_value(uint256) // 255) >> 248


# ---- Reading: for views, which alone have the gas to look through all batches ----------------------------------------

@internal
@view
def _find(taskid: bytes32) -> Settled:
    """
    @return A task that ended in a batch.
    """
    place: address = self.newest
    for step: uint256 in range(2**64):
        if place == empty(address):
            break
        code: Bytes[FIXED] = slice(place.code, 0, FIXED)
        head: uint256 = convert(extract32(code, 0), uint256)
        dealid: bytes32 = deals._dealid(convert(extract32(code, 22), uint256) & deals.KEY_MASK)
        authorised: uint256 = 0
        given: uint256 = 0
        settled: uint256 = 0
        authorised, given, settled = self._masks(place, head)
        first: uint256 = (head >> FIRST) & (2**24 - 1)
        for i: uint256 in range(256):
            if settled >> i == 0:
                break
            if (settled >> i) & 1 != 0 and tasks._id(dealid, unsafe_add(first, i)) == taskid:
                below: uint256 = (1 << i) - 1
                return self._read(
                    place, head, dealid, first + i, self._ones(authorised & below), self._ones(given & below)
                )
        place = convert((head >> BEFORE) & types.ADDRESS_MASK, address)
    return empty(Settled)


@internal
@view
def _masks(place: address, head: uint256) -> (uint256, uint256, uint256):
    """
    @return Which tasks of the page were authorised, which settled or skipped, which settled.
    """
    authorised: uint256 = (1 << ((head >> COUNT_TASKS) & 255)) - 1
    if head >> MASKS > 0:
        authorised = self._word(place, FIXED + 32)
    given: uint256 = authorised
    if head >> MASKS > 1:
        given = self._word(place, FIXED + 64)
    settled: uint256 = given
    if head >> MASKS > 2:
        settled = self._word(place, FIXED + 96)
    return authorised, given, settled


@internal
@view
def _read(
    place: address, head: uint256, dealid: bytes32, idx: uint256, rank: uint256, digest_rank: uint256
) -> Settled:
    """
    @param rank How many authorised tasks precede it, and `digest_rank` how many of those settled or skipped.
    """
    width: uint256 = (head >> WIDTH) & 63
    workers: uint256 = (head >> COUNT_WORKERS) & 255
    count: uint256 = (head >> COUNT_TASKS) & 255
    length: uint256 = head & 255
    directory: uint256 = FIXED + 32 * (head >> MASKS) + length
    name: Bytes[64] = slice(concat(slice(place.code, directory - 64, 32), slice(place.code, directory - 32, 32)), 64 - length, length)
    end: uint256 = directory + 20 * workers
    of: uint256 = 0
    if workers != 1:
        of = self._word(place, end + rank + 1) & 255
        end += count
    return Settled(
        dealid=dealid,
        idx=idx,
        time=(head >> TIME) & (2**40 - 1),
        worker=convert(self._word(place, directory + 20 * (of + 1)) & types.ADDRESS_MASK, address),
        enclave=convert(self._word(place, end + 20 * (rank + 1)) & types.ADDRESS_MASK, address),
        digest=convert(
            self._word(place, end + 20 * count + width * (digest_rank + 1)) << (256 - 8 * width), bytes32
        ),
        results=concat(LINK_HEAD, name, b"/", convert(uint2str(convert(idx, uint24)), Bytes[8]), LINK_TAIL),
    )


@internal
@view
def _word(place: address, end: uint256) -> uint256:
    """
    @return The 32 bytes that end there.
    """
    return convert(convert(slice(place.code, end - 32, 32), bytes32), uint256)
