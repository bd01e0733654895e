"""The two subgraphs, asked as DataProtector and an explorer ask them, on a chain that moves and goes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sealdeal.chain import Contract, artefact, deploy_data_protector
from sealdeal.market.app import create_app
from sealdeal.market.subgraphs import Subgraphs
from sealdeal.market.subgraphs.reading import schema_entries
from sealdeal.market.subgraphs.store import Query
from sealdeal.model.cid import cid_of
from sealdeal.model.errors import NotFound
from sealdeal.model.orders import TEE_TDX, DatasetOrder, Params, tag
from sealdeal.model.types import Address, address, hexstr, keccak
from sealdeal.sdk.http import in_memory
from tests.market.conftest import INTERVAL, Running
from tests.market.test_boost import boosted, claimed, pushed
from tests.network import QUICK, Network


@dataclass
class Explorer:
    """Somebody who asks, and the documents that the network's store has."""

    network: Network
    protector: Address
    http: httpx2.AsyncClient
    documents: dict[str, bytes]
    subgraphs: Subgraphs
    url: str

    async def ask(self, query: str, name: str = "poco", **variables: Any) -> Any:
        answer = await self.raw(query, name, **variables)
        assert "errors" not in answer, answer
        return answer["data"]

    async def raw(self, query: str, name: str = "poco", **variables: Any) -> Any:
        body = {"query": query, "variables": variables}
        response = await self.http.post(f"/subgraphs/{name}", json=body)
        assert response.status_code == 200
        return response.json()

    async def protect(self, role: str, name: str, schema: str) -> str:
        """Register a dataset as DataProtector does; its id."""
        hub = self.network.as_(role)
        contract = Contract(self.protector, artefact("DataProtector").abi)
        owner = self.network.address(role)
        call = contract.abi.encode(
            "createDatasetWithSchema", owner, name, schema, b"/ipfs/x", keccak(name.encode())
        )
        receipt = await hub.sender.send(self.protector, call, contracts=[contract])
        (event,) = receipt.events
        return str(event["dataset"]).lower()

    def store(self, document: Any) -> str:
        content = json.dumps(document).encode()
        cid = cid_of(content)
        self.documents[cid] = content
        return cid


@pytest.fixture(params=["sqlite", "postgresql"])
async def explorer(
    running: Running, network: Network, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Explorer]:
    stand = await running.start(matching=False)
    protector = await deploy_data_protector(
        network.as_("hub_owner").sender, network.addresses.datasetregistry
    )
    documents: dict[str, bytes] = {}

    async def fetch(cid: str) -> bytes:
        if cid not in documents:
            raise NotFound(f"{cid} is not there")
        return documents[cid]

    url = f"sqlite+aiosqlite:///{tmp_path}/subgraphs.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    subgraphs = await Subgraphs.open(url, network.hub, protector=protector, fetch=fetch, interval=INTERVAL)
    task = asyncio.create_task(subgraphs.run())
    stand.market.subgraphs = subgraphs
    app = create_app(stand.market)
    async with httpx2.AsyncClient(transport=in_memory(app), base_url="http://market") as http:
        yield Explorer(network, protector, http, documents, subgraphs, url)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await subgraphs.close()


PROTECTED = """
query ($start: Int!, $range: Int!, $where: ProtectedData_filter) {
  protectedDatas(where: $where, skip: $start, first: $range,
    orderBy: creationTimestamp, orderDirection: desc) {
    id name owner { id } schema { id } creationTimestamp multiaddr
  }
}"""


async def test_protected_data_is_found_by_id_owner_time_and_schema(explorer: Explorer) -> None:
    network = explorer.network
    mail = await explorer.protect("data_provider", "mail", '{"email":"string","more":{"age":"f64"}}')
    await network.pass_time(10)
    photo = await explorer.protect("requester", "photo", '{"face":"image/png","email":"string"}')

    async def found(*where: dict[str, Any]) -> list[str]:
        variables = {"start": 0, "range": 10, **({"where": {"and": list(where)}} if where else {})}
        answer = await explorer.ask(PROTECTED, "dataprotector", **variables)
        return [one["id"] for one in answer["protectedDatas"]]

    assert await found() == [photo, mail]
    assert await found({"id": mail.upper().replace("0X", "0x")}) == [mail]
    assert await found({"owner": network.address("requester").lower()}) == [photo]
    assert await found({"schema_contains": ["email:string"]}) == [photo, mail]
    assert await found({"schema_contains": ["email:string", "more.age:f64"]}) == [mail]
    either = {"or": [{"schema_contains": ["face:image/png"]}, {"schema_contains": ["face:image/gif"]}]}
    assert await found({"schema_contains": ["email:string"]}, either) == [photo]
    (first,) = (await explorer.ask(PROTECTED, "dataprotector", start=1, range=10))["protectedDatas"]
    later = int(first["creationTimestamp"]) + 1
    assert await found({"creationTimestamp_gte": later}) == [photo]
    assert first["name"] == "mail" and first["owner"] == {"id": network.address("data_provider").lower()}
    assert {entry["id"] for entry in first["schema"]} == {"email:string", "more.age:f64"}
    assert bytes.fromhex(first["multiaddr"][2:]) == b"/ipfs/x"


async def test_a_sale_moves_protected_data_and_a_reorganisation_moves_it_back(explorer: Explorer) -> None:
    network = explorer.network
    one = await explorer.protect("data_provider", "one", "{}")
    query = "query ($id: ID!) { protectedData(id: $id) { owner { id } schema { id } } }"

    async def owner() -> str:
        answer = await explorer.ask(query, "dataprotector", id=one)
        return str(answer["protectedData"]["owner"]["id"])

    assert await owner() == network.address("data_provider").lower()
    snapshot = await network.rpc.call("evm_snapshot")
    await network.as_("data_provider").transfer_asset("dataset", address(one), network.address("requester"))
    assert await owner() == network.address("requester").lower()
    height = (await network.hub.block()).number
    assert await network.rpc.call("evm_revert", snapshot)
    await network.mine(height - (await network.hub.block()).number + 2)
    assert await owner() == network.address("data_provider").lower()
    dataset = await explorer.ask("query ($id: ID!) { dataset(id: $id) { name transfers { id } } }", id=one)
    assert dataset["dataset"]["name"] == "one" and len(dataset["dataset"]["transfers"]) == 1


async def test_deals_and_tasks_as_an_explorer_shows_them(explorer: Explorer) -> None:
    network = explorer.network
    deal = await network.deal(volume=2)
    task = hexstr(await network.complete(deal))
    query = """query ($deal: ID!, $task: ID!, $who: ID!) {
      deal(id: $deal) { app { name usageCount usages { id } } dataset { id }
        workerpool { description workerStakeRatio }
        appPrice workerpoolPrice botSize completedTasksCount claimedTasksCount category { workClockTimeRef }
        requester { id balance frozen } requestorder { deals { id } }
        events { type: __typename transaction { txHash: id from { id } gasUsed } } tasks { id status } }
      task(id: $task) { status index resultDigest results deal { id }
        contributions { worker { id } status challenge }
        events(orderBy: timestamp) { type: __typename ... on TaskContribute { hash worker { id } } }
        rewards(orderBy: value, orderDirection: desc) { account { id } value } }
      account(id: $who) { dealRequester(first: 1000) { id } apps { id } }
      deals(where: {app_: {name: "test"}}, orderBy: app__name) { id }
      tasks(where: {status: COMPLETED, requester_: {id: $who}}) { id }
      protocol(id: "iExec") { dealsCount tasksCount completedTasksCount tvl }
      _meta { block { number } hasIndexingErrors } }"""
    who = network.address("requester").lower()
    found = await explorer.ask(query, deal=hexstr(deal.dealid), task=task, who=who)
    seen, done = found["deal"], found["task"]
    assert (seen["appPrice"], seen["workerpoolPrice"]) == ("3", "40")
    assert (seen["botSize"], seen["completedTasksCount"], seen["claimedTasksCount"]) == ("2", "1", "0")
    assert seen["app"] == {"name": "test", "usageCount": "1", "usages": [{"id": hexstr(deal.dealid)}]}
    assert seen["workerpool"] == {"description": "[simulated] test", "workerStakeRatio": "30"}
    assert seen["tasks"] == [{"id": task, "status": "COMPLETED"}]
    assert seen["requester"] == {"id": who, "balance": "404", "frozen": "48"}
    (event,) = seen["events"]
    assert event["type"] == "OrdersMatched" and event["transaction"]["from"] == {"id": who}
    assert int(event["transaction"]["gasUsed"]) > 100_000
    assert done["index"] == "0" and done["results"] == "result"
    assert done["resultDigest"] == hexstr(keccak(b"result"))
    types = {one["type"] for one in done["events"]}
    assert {"TaskInitialize", "TaskContribute", "TaskFinalize"} <= types
    (contribution,) = done["contributions"]
    assert contribution["worker"] == {"id": network.address("worker").lower()}
    assert contribution["status"] == "PROVED"
    assert done["rewards"][0]["value"] == "39.6" or float(done["rewards"][0]["value"]) > 30
    assert found["deals"] == found["account"]["dealRequester"] == [{"id": hexstr(deal.dealid)}]
    assert found["tasks"] == [{"id": task}] and found["account"]["apps"] == []
    assert found["protocol"]["dealsCount"] == "1" and found["_meta"]["hasIndexingErrors"] is False


async def test_slices_of_a_bulk_are_listed_when_their_documents_are_there(explorer: Explorer) -> None:
    network = explorer.network
    data = [await explorer.protect("data_provider", f"d{n}", "{}") for n in range(3)]
    orders = [
        network.sign("data_provider", DatasetOrder(address(one), 0, volume=2**53 - 1, tag=tag(TEE_TDX)))
        for one in data
    ]
    slices = [[one.to_json() for one in orders[:2]], [orders[2].to_json()]]
    held = explorer.documents
    index = explorer.store([explorer.store(part) for part in slices])
    kept, explorer.documents = dict(held), held
    held.clear()
    deal = await network.deal(volume=2, with_dataset=False, params=Params(bulk_cid=index))
    await network.as_("pool_owner").initialize(deal.dealid, 0)
    query = """query ($where: Deal_filter) {
      deals(where: $where) { tasks { taskId: id bulkSlice { datasets { id } } }
        bulk { hash slices { index } } } }"""
    where = {"requestorder": hexstr(await request_of(explorer, deal.dealid))}
    (before,) = (await explorer.ask(query, where=where))["deals"]
    assert before["tasks"][0]["bulkSlice"] is None and before["bulk"] == {"hash": index, "slices": []}
    held.update(kept)
    explorer.subgraphs._bulks.set()  # as time does
    for _ in range(1500):
        (after,) = (await explorer.ask(query, where=where))["deals"]
        if after["bulk"]["slices"]:
            break
        await asyncio.sleep(0.02)
    (task,) = after["tasks"]
    assert [one["id"] for one in task["bulkSlice"]["datasets"]] == data[:2]
    assert sorted(one["index"] for one in after["bulk"]["slices"]) == ["0", "1"]
    used = "query ($id: ID!) { dataset(id: $id) { bulkUsages { task { id } index } usages { id } } }"
    usage = (await explorer.ask(used, id=data[0]))["dataset"]
    assert usage == {"bulkUsages": [{"task": {"id": task["taskId"]}, "index": "0"}], "usages": []}
    back = (
        "query ($id: ID!) { bulkSlices(where: {datasets_: {id: $id}}, orderBy: task__timestamp) { index } }"
    )
    assert (await explorer.ask(back, id=data[2]))["bulkSlices"] == [{"index": "1"}]


async def request_of(explorer: Explorer, dealid: bytes) -> bytes:
    answer = await explorer.ask(
        "query ($id: ID!) { deal(id: $id) { requestorder { id } } }", id=hexstr(dealid)
    )
    return bytes.fromhex(answer["deal"]["requestorder"]["id"][2:])


async def test_what_is_asked_wrongly_is_answered_as_graphql_answers(explorer: Explorer) -> None:
    assert "Cannot query field" in (await explorer.raw("{ nothing }"))["errors"][0]["message"]
    assert "Syntax Error" in (await explorer.raw("{"))["errors"][0]["message"]
    many = await explorer.raw("{ deals(first: 100000) { id } }")
    assert "expected first" in many["errors"][0]["message"]
    past = await explorer.raw("{ deals(block: {number: 1}) { id } }")
    assert "newest block" in past["errors"][0]["message"]
    long = "{" + "deals { id } " * 3000 + "}"
    assert "tokens" in (await explorer.raw(long))["errors"][0]["message"]
    assert (await explorer.raw("mutation { x }"))["errors"]
    response = await explorer.http.post("/subgraphs/other", json={"query": "{ x }"})
    assert response.status_code == 404
    assert (await explorer.ask("{ __schema { queryType { name } } }"))["__schema"]["queryType"][
        "name"
    ] == "Query"


async def test_a_restart_goes_on_where_it_was(explorer: Explorer) -> None:
    network = explorer.network
    await network.deal()
    assert len((await explorer.ask("{ deals { id } }"))["deals"]) == 1
    again = await Subgraphs.open(explorer.url, network.hub, interval=INTERVAL)
    task = asyncio.create_task(again.run())
    await again.caught_up()
    assert await again.store.count("poco", "Deal") == 1
    assert [row["usageCount"] for row in await again.store.find("poco", "App", Query())] == [1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await again.close()


async def test_a_boost_deal_is_passed_over(explorer: Explorer) -> None:
    """The schema knows classic deals only, and a Boost deal, which anybody can make, stops nothing."""
    network = explorer.network
    dealid = await boosted(network, *await network.orders(volume=2, category=QUICK))
    await pushed(network, dealid, 0, b"result")
    await network.pass_time(60)
    await claimed(network, dealid, 1)
    classic = await network.deal(assets=await network.assets("classic"))
    found = await explorer.ask("{ deals { id } tasks { id } seizes { task { id } } }")
    assert found["deals"] == [{"id": hexstr(classic.dealid)}] and found["tasks"] == []


def test_a_schema_is_read_as_far_as_it_is_one() -> None:
    text = '{"a":{"b":"string","c":{"d":"bool"}},"e":"image/png","bad key":"string","f":"none","":"bool"}'
    assert schema_entries(text) == [("a.b", "string"), ("a.c.d", "bool"), ("e", "image/png")]
    assert schema_entries("[") == schema_entries('"string"') == schema_entries("[" * 10_000) == []
