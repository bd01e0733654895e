# pragma version 0.4.3
"""
@title Batches: many tasks of one deal settled in one transaction
@license Apache-2.0
@notice For deals of more than one task, of trust 1, in a TEE, without callback, whose tag has bit 128. The TEE broker
        authorises once, for a list of (worker, task, enclave); the deal's scheduler settles all of them, or some now
        and others later. Each is as if its worker had called `contributeAndFinalize`, but that

          - money moves once for all, with the dealid as reference;
          - of a task's events only TaskInitialize and TaskFinalize are emitted;
          - results lie in one directory on IPFS, each under its task's index, and that the scheduler tells, as it does
            in `finalize`: no enclave vouches for where they lie;
          - there has to be a TEE broker, and an enclave has to sign with its key.

        A task that has ended, or that somebody has contributed to, is skipped and not paid. One that ends in a batch
        gets no word; if it had one, its status changes, but not its counters. A bit tells that it has begun (tasks.vy).

        A batch is the code of a contract, at an address of no meaning: each names the one before, `newest` is the last.
        To find a task of which only the id is known, views look through them all; nothing else has to. From byte 0,
        bits from the highest:

          0  head       32   masks 2 | width 6 | batch before 160 | time 40 | index of bit 0 24 | workers 8 | tasks 8 |
                             length of directory 8
         32  deal       22   its key
         54  masks      32 each, a bit for each task of a page of the deal, the first lowest: those authorised; those to
                        be settled; those settled. One that is left out is equal to that before it; the first, to as
                        many ones as there are tasks
             directory       its CID
             workers    20 each
             assigned    1 each, if there is more than one worker: the place of an authorised task's worker
             enclaves   20 each, of the authorised tasks
             digests width each, of the tasks to be settled: what is missing of 32 bytes is zero
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
TASKS: constant(uint256) = types.BATCH
WORKERS: constant(uint256) = 32
DIRECTORY: constant(uint256) = 64

# Parts of a batch's first word, as drawn above, and where its masks begin.
MASKS: constant(uint256) = 254
WIDTH: constant(uint256) = 248
BEFORE: constant(uint256) = 88
TIME: constant(uint256) = 48
FIRST: constant(uint256) = 24
WORKER_COUNT: constant(uint256) = 16
TASK_COUNT: constant(uint256) = 8
FIXED: constant(uint256) = 54

# What the TEE broker signs, under the hub's domain (EIP-712): as drawn above, `tasks` is the mask of the authorised.
BATCH_TYPE: constant(bytes32) = keccak256(
    "Batch(bytes32 dealid,uint256 page,uint256 tasks,bytes workers,bytes assigned,bytes enclaves)"
)

# What surrounds the directory, "/" and the index in a result; its end as a number, too.
LINK_HEAD: constant(Bytes[40]) = b'{ "storage": "ipfs", "location": "/ipfs/'
LINK_TAIL: constant(Bytes[3]) = b'" }'
LINK_END: constant(uint256) = 34 * 2**16 + 32 * 2**8 + 125
LINK: constant(uint256) = 41 + DIRECTORY

# The digit.
NINE: constant(uint256) = 57

# Topic of TaskFinalize(bytes32,bytes).
FINALIZE: constant(bytes32) = keccak256("TaskFinalize(bytes32,bytes)")


# A task as its batch tells; all zero if none does.
struct Settled:
    word: uint256  # as contributeAndFinalize would leave it, but for the reveal deadline
    time: uint256
    worker: address
    enclave: address
    digest: bytes32
    results: Bytes[types.RESULT]


# The last batch; zero before the first.
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
    @notice Settle tasks of one page of a deal: page n are the 256 from the 256 n-th on, counted from its first.
    @param _tasks Mask of the tasks that are authorised.
    @param _settle Mask of those to be settled now.
    @param _assigned The place of each authorised task's worker, a byte; empty if there is only one worker.
    @param _width Bytes of a digest that are given; the others are zero.
    @param _digests Of the tasks to be settled.
    @param _signatures For each authorised task: its enclave's signature (EIP-2098); or, if it is not to be settled now,
           the enclave's address, and zero.
    @param _directory CID of the directory of results. With "/" and an index it must not need more 32-byte words than
           without (a CID of version 0: indices have six digits at most).
    @param _authorisation The TEE broker's signature.
    @return How many tasks were settled: the others had ended.
    """
    # What each of the tasks would be asked.
    deal: deals.Terms = deals._read(deals._key(_dealid))
    assert deal.dealid == _dealid, "batches: no such deal"
    assert (
        deal.tag & types.TAG_BATCH != 0 and deal.size > 1
    ), "batches: not a bag that asks for batches"
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
    assert len(_directory) >= 32, "batches: a directory is named by its CID"
    first: uint256 = unsafe_add(deal.first, offset)

    # Which have not ended: those that have not begun, or to which nobody has contributed.
    page: bytes32 = tasks._page(_dealid, _page)
    begun: uint256 = tasks.begun[page]
    settled: uint256 = _settle & ~begun
    if settled != _settle:
        for bit: uint256 in range(256):
            if ((_settle & begun) >> bit) & 1 != 0:
                if tasks.words[tasks._id(_dealid, unsafe_add(first, bit))] >> tasks.STATUS == types.ACTIVE:
                    settled |= 1 << bit
    assert settled != 0, "batches: every task has ended"
    tasks.begun[page] = begun | settled

    # Task by task: its enclave signed. A usual batch is all of a page up to some task, none begun before. Results are
    # emitted as the ABI encodes them: only their last word changes from one to the next, mostly by one.
    usual: bool = settled == _tasks and begun & settled == 0 and _tasks & unsafe_add(_tasks, 1) == 0
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
    count: uint256 = 0
    i: uint256 = 0
    for signature: bytes32[2] in _signatures:
        if not usual:
            for gap: uint256 in range(256):
                if (_tasks >> i) & 1 != 0:
                    break
                i = unsafe_add(i, 1)
                number = NINE
            ends = (settled >> i) & 1 != 0
            fresh = (begun >> i) & 1 == 0
            given = 0
            if (_settle >> i) & 1 == 0:
                given = convert(signature[0], uint256) & types.ADDRESS_MASK
                assert given != 0, "batches: an enclave is missing"
            if not ends:
                number = NINE
        if many:
            of: uint256 = convert(extract32(assigned, count), uint256) >> 248
            worker = _workers[of]
            counts[of] = unsafe_add(counts[of], (settled >> i) & 1)
        enclave: uint256 = given
        if given == 0:
            taskid: bytes32 = keccak256(abi_encode(_dealid, unsafe_add(first, i)))
            digest: bytes32 = convert(convert(extract32(digests, at), uint256) & mask, bytes32)
            # `_attested(_result_hash(...), _result_seal(...))` of tasks.vy: the calls would cost 200 gas.
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
                    assert size <= words + 32, "batches: the index needs another word"
                    place = 256 - 8 * (len(link) - words) - 8 * len(text)
                    last = convert(extract32(concat(link, empty(bytes32)), words), uint256) | (LINK_END << (place - 24))
                if fresh:
                    log events.TaskInitialize(taskid=taskid, workerpool=workerpool)
                else:
                    tasks.words[taskid] = tasks._with_status(tasks.words[taskid], types.COMPLETED)
                raw_log([FINALIZE, taskid], concat(before, convert(last | (number << place), bytes32)))
        eight[count & 7] = enclave
        count = unsafe_add(count, 1)
        i = unsafe_add(i, 1)
        if count & 7 == 0:
            rows.append(self._row(eight))
    if count & 7 != 0:
        rows.append(self._row(eight))
    assert count != 0 and _tasks >> unsafe_sub(i, 1) == 1, "batches: not a signature for each task"
    assert len(_digests) == at, "batches: not a digest for each task"
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
                | (block.timestamp << TIME) | (first << FIRST) | (len(_workers) << WORKER_COUNT)
                | (count << TASK_COUNT) | len(_directory),
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
    settlement._pay_batch(deal, scheduler, _dealid, paid)
    if len(_workers) == 1:
        counts[0] = paid
    reward: uint256 = settlement._worker_reward(deal.workerpool_price, deal.scheduler_ratio)
    for w: uint256 in range(len(_workers), bound=WORKERS):
        if counts[w] != 0:
            ledger._reward(_workers[w], unsafe_mul(reward, counts[w]), _dealid)
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
    for age: uint256 in range(2**64):
        if place == empty(address):
            break
        head: uint256 = self._word(place, 32)
        dealid: bytes32 = deals._dealid(self._word(place, FIXED) & deals.KEY_MASK)
        first: uint256 = (head >> FIRST) & (2**24 - 1)
        authorised: uint256 = 0
        chosen: uint256 = 0
        settled: uint256 = 0
        authorised, chosen, settled = self._masks(place, head)
        for i: uint256 in range(256):
            if settled >> i == 0:
                break
            if (settled >> i) & 1 != 0 and keccak256(abi_encode(dealid, unsafe_add(first, i))) == taskid:
                upto: uint256 = max_value(uint256) >> unsafe_sub(255, i)
                return self._read(
                    place, head, unsafe_add(first, i), self._ones(authorised & upto), self._ones(chosen & upto)
                )
        place = convert((head >> BEFORE) & types.ADDRESS_MASK, address)
    return empty(Settled)


@internal
@view
def _masks(place: address, head: uint256) -> (uint256, uint256, uint256):
    """
    @return Which tasks of the page were authorised, which to be settled, which settled.
    """
    authorised: uint256 = max_value(uint256) >> unsafe_sub(256, (head >> TASK_COUNT) & 255)
    if head >> MASKS > 0:
        authorised = self._word(place, FIXED + 32)
    chosen: uint256 = authorised
    if head >> MASKS > 1:
        chosen = self._word(place, FIXED + 64)
    settled: uint256 = chosen
    if head >> MASKS > 2:
        settled = self._word(place, FIXED + 96)
    return authorised, chosen, settled


@internal
@view
def _read(place: address, head: uint256, idx: uint256, rank: uint256, chosen_rank: uint256) -> Settled:
    """
    @param rank Place among the authorised tasks, and `chosen_rank` among those to be settled; from one.
    """
    width: uint256 = (head >> WIDTH) & 63
    workers: uint256 = (head >> WORKER_COUNT) & 255
    count: uint256 = (head >> TASK_COUNT) & 255
    length: uint256 = head & 255
    directory: uint256 = unsafe_add(FIXED + length, (head >> MASKS) << 5)
    leaves: uint256 = unsafe_add(directory, unsafe_mul(20, workers))
    worker: uint256 = 1
    if workers != 1:
        worker = unsafe_add(self._word(place, unsafe_add(leaves, rank)) & 255, 1)
        leaves = unsafe_add(leaves, count)
    digests: uint256 = unsafe_add(leaves, unsafe_mul(20, count))
    name: Bytes[DIRECTORY] = concat(
        convert(self._word(place, unsafe_sub(directory, 32)), bytes32), convert(self._word(place, directory), bytes32)
    )
    return Settled(
        word=tasks._direct((self._word(place, FIXED) & deals.KEY_MASK) | (idx << tasks.INDEX)),
        time=(head >> TIME) & (2**40 - 1),
        worker=self._address(place, unsafe_add(directory, unsafe_mul(20, worker))),
        enclave=self._address(place, unsafe_add(leaves, unsafe_mul(20, rank))),
        digest=convert(
            self._word(place, unsafe_add(digests, unsafe_mul(width, chosen_rank))) << (256 - 8 * width), bytes32
        ),
        results=concat(
            LINK_HEAD,
            slice(name, DIRECTORY - length, length),
            b"/",
            convert(uint2str(convert(idx, uint24)), Bytes[8]),
            LINK_TAIL,
        ),
    )


@internal
@view
def _address(place: address, end: uint256) -> address:
    """
    @return The 20 bytes that end there.
    """
    return convert(self._word(place, end) & types.ADDRESS_MASK, address)


@internal
@view
def _word(place: address, end: uint256) -> uint256:
    """
    @return The 32 bytes that end there.
    """
    return convert(convert(slice(place.code, unsafe_sub(end, 32), 32), bytes32), uint256)
