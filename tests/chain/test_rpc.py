from __future__ import annotations

import asyncio
import json

import pytest

from sealdeal.chain import ChainUnreachable, Reverted, Rpc, RpcError
from sealdeal.chain.errors import BadAnswer
from sealdeal.chain.local import free_port


class Node:
    """A node that answers as it is told: each answer a (status, body) or None to hang up."""

    def __init__(self, *answers: tuple[int, object] | None) -> None:
        self.answers = list(answers)
        self.asked: list[object] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            size = 0
            while line.strip():
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
                line = await reader.readline()
            request = json.loads(await reader.readexactly(size))
            self.asked.append(request)
            answer = self.answers.pop(0)
            if answer is None:
                break
            status, body = answer
            if callable(body):
                body = body(request)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(content)) + content)
        writer.close()

    async def __aenter__(self) -> Rpc:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.rpc = Rpc(f"http://127.0.0.1:{port}/key-of-the-user")
        return self.rpc

    async def __aexit__(self, *_: object) -> None:
        await self.rpc.aclose()
        self.server.close()


def result(value: object) -> tuple[int, object]:
    return 200, lambda request: {"jsonrpc": "2.0", "id": request["id"], "result": value}


def error(**members: object) -> tuple[int, object]:
    return 200, lambda request: {"jsonrpc": "2.0", "id": request["id"], "error": members}


async def test_calls_and_batches_on_a_real_chain(chain: Rpc) -> None:
    assert await chain.chain_id() == 65432
    number, chain_id = await chain.batch([("eth_blockNumber",), ("eth_chainId",)])
    assert (int(number, 16), int(chain_id, 16)) == (int(await chain.call("eth_blockNumber"), 16), 65432)
    many = await chain.batch([("eth_getBalance", f"0x{n:040x}", "latest") for n in range(250)])
    assert len(many) == 250


async def test_the_nodes_refusal_is_an_error_with_its_code(chain: Rpc) -> None:
    with pytest.raises(RpcError, match="no_such_method") as refused:
        await chain.call("no_such_method")
    assert refused.value.number == -32601
    answers = await chain.batch([("eth_chainId",), ("no_such_method",)], raising=False)
    assert answers[0] == hex(65432) and isinstance(answers[1], RpcError)
    with pytest.raises(RpcError):
        await chain.batch([("eth_chainId",), ("no_such_method",)])


async def test_no_node_is_an_error_that_names_the_host_and_hides_the_key() -> None:
    async with Rpc(f"http://127.0.0.1:{free_port()}/secret-key") as rpc:
        with pytest.raises(ChainUnreachable) as gone:
            await rpc.call("eth_chainId")
    assert "127.0.0.1" in str(gone.value) and "secret-key" not in str(gone.value)


async def test_reads_are_repeated_and_sends_are_not() -> None:
    node = Node(None, result("0x1"))
    async with node as rpc:
        assert await rpc.call("eth_chainId") == "0x1"
    assert len(node.asked) == 2
    for method in ("eth_sendRawTransaction", "eth_sendTransaction", "evm_mine", "anvil_mine"):
        node = Node(None, result("0x1"))
        async with node as rpc:
            with pytest.raises(ChainUnreachable):
                await rpc.call(method)
        assert len(node.asked) == 1


async def test_a_busy_node_is_waited_for_as_long_as_patience_lasts() -> None:
    node = Node((503, b"later"), (429, b"slow"), None, result("0x2"))
    async with node as rpc:
        assert await rpc.call("eth_chainId", patience=20) == "0x2"
    async with Node(*[(503, b"later")] * 2) as rpc:
        with pytest.raises(ChainUnreachable, match="busy"):
            await rpc.call("eth_chainId", patience=0)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b'"text"', b"{}", b"[]"])
async def test_what_is_not_json_rpc_is_named(body: bytes) -> None:
    async with Node((200, body)) as rpc:
        with pytest.raises(BadAnswer):
            await rpc.call("eth_chainId")


async def test_a_batch_refused_as_a_whole_refuses_each() -> None:
    async with Node((200, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no"}})) as rpc:
        answers = await rpc.batch([("eth_chainId",), ("eth_blockNumber",)], raising=False)
    assert [type(answer) for answer in answers] == [RpcError, RpcError]


TEXT = "08c379a0" + f"{32:064x}" + f"{5:064x}" + b"no go".hex().ljust(64, "0")


@pytest.mark.parametrize(
    "members, reason",
    [
        ({"code": 3, "message": "execution reverted: no go", "data": "0x" + TEXT}, "no go"),  # geth, anvil
        ({"code": -32015, "message": "VM execution error, reverted", "data": "Reverted 0x" + TEXT}, "no go"),
        ({"code": -32000, "message": "execution reverted", "data": {"data": "0x" + TEXT}}, "no go"),
        ({"code": 3, "message": "execution reverted", "data": "0x"}, None),
        ({"code": -32000, "message": "execution reverted"}, None),
        ({"code": 3, "message": "reverted", "data": "0x4e487b71" + f"{0x11:064x}"}, "Panic 0x11"),
    ],
)
async def test_reverts_of_different_nodes(members: dict[str, object], reason: str | None) -> None:
    async with Node(error(**members)) as rpc:
        with pytest.raises(Reverted) as refused:
            await rpc.call("eth_call", {}, "latest")
    assert (refused.value.reason or "").startswith(reason or "") and bool(refused.value.reason) == bool(
        reason
    )
