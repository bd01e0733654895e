"""The framed stream between guest and worker."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.guest.stream import (
    MAX_PAYLOAD,
    BrokenStream,
    Call,
    Channel,
    Decoder,
    Frame,
    Kind,
    Refused,
    body_frames,
    encode,
)
from sealdeal.model.errors import TooLarge

frames = st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=300))


@given(st.lists(frames, max_size=8), st.data())
def test_frames_survive_any_cutting_of_the_stream(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(encode(f.kind, f.call, f.payload) for f in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder, came = Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        came += list(decoder.feed(stream[start:end]))
    assert came == sent and decoder.idle


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    decoder = Decoder()
    with contextlib.suppress(BrokenStream):
        for frame in decoder.feed(data):
            assert len(frame.payload) <= MAX_PAYLOAD


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_a_body_is_its_pieces_and_an_end(pieces: list[bytes]) -> None:
    came = list(Decoder().feed(b"".join(body_frames(7, pieces))))
    assert b"".join(f.payload for f in came if f.kind is Kind.DATA) == b"".join(pieces)
    assert came[-1] == Frame(Kind.END, 7, b"") and [f.kind for f in came].count(Kind.END) == 1


def test_long_pieces_are_cut_to_frames() -> None:
    came = list(body_frames(1, [bytes(2 * MAX_PAYLOAD + 5)]))
    assert [len(f) - 9 for f in came] == [MAX_PAYLOAD, MAX_PAYLOAD, 5, 0]
    with pytest.raises(TooLarge):
        encode(Kind.DATA, 1, bytes(MAX_PAYLOAD + 1))


@pytest.mark.parametrize(
    "header", [b"\xff\xff\xff\xff\x03\x00\x00\x00\x01", b"\x00\x00\x00\x00\x63\x00\x00\x00\x01"]
)
def test_impossible_headers_are_refused_before_anything_is_kept(header: bytes) -> None:
    with pytest.raises(BrokenStream):
        list(Decoder().feed(header))


class Worker:
    """The other end of a channel, which a test plays."""

    def __init__(self) -> None:
        (self.source, guest_out), (guest_in, self.sink) = os.pipe(), os.pipe()
        self.channel = Channel(guest_in, guest_out)
        self._ends = [self.source, self.sink, guest_in, guest_out]
        self._decoder = Decoder()
        self._came: Iterator[Frame] = iter(())

    def say(self, *frames: bytes) -> None:
        os.write(self.sink, b"".join(frames))

    def hear(self) -> Frame:
        while (frame := next(self._came, None)) is None:
            self._came = iter(list(self._decoder.feed(os.read(self.source, 1 << 16))))
        return frame

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


def test_overlapping_calls_get_their_own_answers(worker: Worker) -> None:
    first, second = worker.channel.call("quote"), worker.channel.call("fetch", name="image")
    assert [worker.hear().json() for _ in range(2)] == [
        {"call": "quote", "body": False},
        {"call": "fetch", "body": False, "name": "image"},
    ]
    worker.say(
        encode(Kind.ANSWER, second.number, {"n": 2}),
        encode(Kind.DATA, second.number, b"two"),
        encode(Kind.ANSWER, first.number, {"n": 1}),
        encode(Kind.DATA, second.number, b"more"),
        encode(Kind.END, second.number),
        encode(Kind.END, first.number),
    )
    assert first.answer() == {"n": 1} and second.answer() == {"n": 2}
    assert second.read(2) == b"tw" and second.content(100) == b"omore" and second.read() == b""
    assert first.content(10) == b""


def test_the_first_answer_wins_and_the_abandoned_one_is_dropped(worker: Worker) -> None:
    calls = [worker.channel.call("a"), worker.channel.call("b"), worker.channel.call("c")]
    worker.say(encode(Kind.ANSWER, calls[1].number, {}), encode(Kind.END, calls[1].number))
    assert worker.channel.first_ended(calls, within=5) is calls[1]
    assert worker.channel.first_ended([calls[0]], within=0.01) is None
    worker.channel.abandon(calls[0])
    worker.say(encode(Kind.DATA, calls[0].number, b"late"))  # would be out of turn if anybody listened
    worker.say(encode(Kind.ERROR, calls[2].number, {"cause": "Unavailable", "message": "gone"}))
    with pytest.raises(Refused) as refused:
        calls[2].answer()
    assert refused.value.cause == "Unavailable" and str(refused.value) == "gone"


def test_answers_over_the_limit_or_out_of_turn_are_refused(worker: Worker) -> None:
    call = worker.channel.call("a")
    worker.say(encode(Kind.ANSWER, call.number, {}), encode(Kind.DATA, call.number, b"12345"))
    with pytest.raises(TooLarge):
        call.content(4)
    early = worker.channel.call("b")
    worker.say(encode(Kind.DATA, early.number, b"no head yet"))
    with pytest.raises(BrokenStream):
        early.answer()


@pytest.mark.parametrize("payload", [b"[]", b"{", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_no_object_breaks_the_stream(worker: Worker, payload: bytes) -> None:
    call: Call = worker.channel.call("a")
    threading.Thread(target=worker.say, args=[encode(Kind.ANSWER, call.number, payload)]).start()
    with pytest.raises(BrokenStream):
        call.answer()


def test_a_worker_that_leaves_ends_the_guest(worker: Worker) -> None:
    os.close(worker.sink)
    worker._ends.remove(worker.sink)
    with pytest.raises(BrokenStream):
        worker.channel.hello()


def test_only_hello_opens(worker: Worker) -> None:
    worker.say(encode(Kind.ANSWER, 1, {}))
    with pytest.raises(BrokenStream):
        worker.channel.hello()
