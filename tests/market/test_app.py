"""The marketplace API over real contracts: words, statuses, filters, pages (wire.md §1.1–1.5)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from sealdeal.model.errors import Forbidden, IntegrityError, InvalidInput, NotFound
from sealdeal.model.orders import (
    TEE,
    TEE_TDX,
    AppOrder,
    DatasetOrder,
    Kind,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    tag,
)
from sealdeal.model.types import RLC, ZERO, Address, bytes32, hexstr
from sealdeal.sdk.challenges import authorization, challenge_document, challenge_hash
from tests.market.conftest import Stand
from tests.network import CHAIN_ID, key


def salt(number: int) -> bytes:
    return number.to_bytes(32, "big")


# -------------------------------------------------------------------------------------- parameters


async def test_every_route_wants_the_chain_it_serves(book: Stand) -> None:
    for path in ("/challenge", "/metrics", "/categories", "/categories/0", "/deals", "/ohlc", "/apporders"):
        missing = await book.http.get(path)
        assert (missing.status_code, missing.json()) == (
            400,
            {"ok": False, "error": "chainId is a required field"},
        )
        other = await book.http.get(path, params={"chainId": "1"})
        assert (other.status_code, other.json()["error"]) == (400, "chainId 1 is not supported")


async def test_the_version_needs_no_chain_and_browsers_may_ask(book: Stand) -> None:
    answer = await book.http.get("/version", headers={"origin": "https://some.site"})
    assert answer.json()["ok"] is True and re.fullmatch(r"\d+\.\d+\.\d+\S*", answer.json()["version"])
    assert answer.headers["access-control-allow-origin"] == "*"
    asked = {"origin": "https://some.site", "access-control-request-method": "PUT"}
    asked |= {"access-control-request-headers": "authorization,content-type"}
    preflight = await book.http.options("/apporders", headers=asked)
    assert preflight.status_code == 200
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("path", "query", "error"),
    [
        ("/apporders", {}, "app or appOwner is required"),
        ("/datasetorders", {}, "dataset or datasetOwner is required"),
        ("/apporders", {"app": "0x12"}, 'app is neither "any" nor a valid ethereum address'),
        (
            "/apporders",
            {"app": "any", "requester": "x"},
            'requester is neither "any" nor a valid ethereum address',
        ),
        ("/apporders", {"appOwner": "any"}, "appOwner is not a valid ethereum address"),
        ("/deals", {"app": "any"}, "app is not a valid ethereum address"),
        ("/apporders", {"app": "any", "pageSize": "9"}, "pageSize must be greater than or equal to 10"),
        ("/apporders", {"app": "any", "pageSize": "1001"}, "pageSize must be less than or equal to 1000"),
        ("/apporders", {"app": "any", "pageIndex": "-1"}, "pageIndex must be greater than or equal to 0"),
        ("/apporders", {"app": "any", "pageIndex": "1.5"}, "pageIndex must be an integer"),
        (
            "/apporders",
            {"app": "any", "pageIndex": "x"},
            'pageIndex must be a `number` type, but the final value was: `NaN` (cast from the value `"x"`).',
        ),
        ("/apporders", {"app": "any", "minTag": "0x01"}, "minTag must be a bytes32 hexstring"),
        ("/apporders/0x12", {}, "orderHash must be a bytes32 hexstring"),
        ("/deals", {"apporderHash": "zz"}, "apporderHash must be a bytes32 hexstring"),
        ("/ohlc", {}, "category is a required field"),
        ("/challenge", {}, "address is a required field"),
    ],
)
async def test_malformed_parameters_are_refused_by_name(
    book: Stand, path: str, query: dict[str, str], error: str
) -> None:
    answer = await book.get(path, **query)
    assert (answer.status_code, answer.json()) == (400, {"ok": False, "error": error})
    assert answer.headers["content-type"] == "application/json"


async def test_what_is_not_there_is_named(book: Stand) -> None:
    for kind in Kind:
        answer = await book.get(f"/{kind}orders/{'0x' + '11' * 32}")
        assert (answer.status_code, answer.json()["error"]) == (404, f"{kind}order not found")
    assert (await book.get(f"/deals/{'0x' + '11' * 32}")).json()["error"] == "deal not found"
    assert (await book.get("/categories/99")).json()["error"] == "category not found"
    assert (await book.get("/nothing")).json() == {"ok": False, "error": "Not Found"}
    with pytest.raises(NotFound):
        await book.client.why(bytes(32))


# --------------------------------------------------------------------------------------- challenges


async def test_a_challenge_is_typed_data_for_the_chain(book: Stand) -> None:
    requester = book.network.address("requester")
    document = (await book.get("/challenge", address=requester.lower())).json()["data"]
    text = document["message"]["challenge"]
    assert re.fullmatch(r"Sign this message to log into iExec Gateway: [A-Za-z0-9]{32}", text)
    assert document == challenge_document(CHAIN_ID, text)
    assert document["domain"]["chainId"] == str(CHAIN_ID)


async def test_the_challenges_hash_is_what_wallets_sign() -> None:
    text = "Sign this message to log into iExec Gateway: " + "x" * 32
    message = encode_typed_data(full_message=challenge_document(CHAIN_ID, text))
    signature = key("requester").sign_digest(challenge_hash(CHAIN_ID, text))
    assert Account.recover_message(message, signature=signature) == key("requester").address


async def test_an_authorization_counts_once_for_its_wallet_and_chain(book: Stand) -> None:
    network = book.network
    app, *_ = await network.orders()
    other, *_ = await network.orders(await network.assets("other"))
    requester = network.key("requester")

    async def post(header: str | None, order: Signed[Any] = app) -> tuple[int, str]:
        headers = {} if header is None else {"authorization": header}
        query = {"chainId": str(CHAIN_ID)}
        body = {"order": order.to_json()}
        answer = await book.http.post("/apporders", params=query, json=body, headers=headers)
        return answer.status_code, answer.json().get("error", "")

    refused = (403, "invalid authorization")
    provider = network.key("app_provider")
    document = await book.client.challenge(provider.address)
    good = authorization(CHAIN_ID, document, provider)
    digest, signature, _ = good.split("_")
    assert await post(None) == refused
    assert await post("rubbish") == refused
    assert await post(f"{digest}_{signature}_{requester.address}") == refused
    forged = requester.sign_digest(bytes32(digest))
    assert await post(f"{digest}_{hexstr(forged)}_{provider.address}") == refused
    elsewhere = challenge_hash(1, document["message"]["challenge"])
    abroad = f"{hexstr(elsewhere)}_{hexstr(provider.sign_digest(elsewhere))}_{provider.address}"
    assert await post(abroad) == refused
    never_issued = challenge_hash(CHAIN_ID, "Sign this")
    invented = f"{hexstr(never_issued)}_{hexstr(provider.sign_digest(never_issued))}_{provider.address}"
    assert await post(invented) == refused
    assert (await post(good))[0] == 200
    assert await post(good, other) == refused


async def test_the_client_signs_nothing_but_challenges() -> None:
    document = challenge_document(CHAIN_ID, "hello")
    for wrong in (
        document | {"primaryType": "AppOrder"},
        document | {"domain": document["domain"] | {"chainId": "1"}},
        document | {"domain": document["domain"] | {"name": "iExecODB"}},
        document | {"message": {"challenge": 5}},
        {},
    ):
        with pytest.raises(IntegrityError, match="nothing was signed"):
            authorization(CHAIN_ID, wrong, key("requester"))


# ------------------------------------------------------------------------------------------ publish


async def test_publishing_gives_the_wires_document(book: Stand) -> None:
    app, dataset, pool, request = await book.network.orders()
    assert dataset
    for signed, role in ((app, "app_provider"), (dataset, "data_provider"), (pool, "pool_owner")):
        published = await book.publish(role, signed)
        assert published.signed == signed and published.status == "open" and published.remaining == 1
    published = await book.publish("requester", request)
    hash = request.hash(book.network.domain)
    assert published.hash == hash
    document = (await book.get(f"/requestorders/{hexstr(hash)}")).json()
    assert document.pop("ok") is True
    time = document.pop("publicationTimestamp")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert document == {
        "orderHash": hexstr(hash),
        "order": request.to_json(),
        "chainId": CHAIN_ID,
        "remaining": 1,
        "status": "open",
        "signer": book.network.address("requester"),
    }
    assert document["order"]["appmaxprice"] == 3 * RLC
    metrics = await book.client.metrics()
    open_orders = metrics.apporders, metrics.datasetorders, metrics.workerpoolorders, metrics.requestorders
    assert open_orders == (1, 1, 1, 1)
    assert metrics.last_block == (await book.network.hub.block()).number


async def test_numbers_may_come_as_text_and_unknown_fields_are_dropped(book: Stand) -> None:
    app, *_ = await book.network.orders()
    order = {**app.to_json(), "appprice": str(3 * RLC), "volume": "1", "extra": 1}
    header = authorization(
        CHAIN_ID,
        await book.client.challenge(book.network.address("app_provider")),
        book.network.key("app_provider"),
    )
    answer = await book.http.post(
        "/apporders",
        params={"chainId": str(CHAIN_ID)},
        json={"order": order},
        headers={"authorization": header},
    )
    assert answer.json()["published"]["order"] == app.to_json()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"app": None}, "app is a required field"),
        ({"app": "0x1"}, "app is not a valid ethereum address"),
        ({"volume": 0}, "volume must be greater than or equal to 1"),
        ({"appprice": -1}, "appprice must be greater than or equal to 0"),
        ({"appprice": 2**53}, f"appprice must be less than or equal to {2**53 - 1}"),
        ({"tag": "0x00"}, "tag must be a bytes32 hexstring"),
        ({"sign": "rubbish"}, "sign must be a valid signature"),
        ({"sign": None}, "sign is a required field"),
    ],
)
async def test_a_malformed_order_is_refused_by_field(book: Stand, change: dict[str, Any], error: str) -> None:
    app, *_ = await book.network.orders()
    body = {"order": {k: v for k, v in {**app.to_json(), **change}.items() if v is not None}}
    query = {"chainId": str(CHAIN_ID)}
    stranger = await book.http.post("/apporders", params=query, json=body)
    assert (stranger.status_code, stranger.json()["error"]) == (403, "invalid authorization")
    headers = await book.authorization("app_provider")
    answer = await book.http.post("/apporders", params=query, json=body, headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"ok": False, "error": error})


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "order is a required field"),
        (b"{", 400, "the body is not JSON"),
        (b"[]", 400, "the body must be a JSON object"),
        (b'{"order": 5}', 400, "order is not a valid signed apporder"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        (b" " * 300_000, 413, "a body may have 262144 bytes"),
    ],
)
async def test_a_malformed_body_is_refused(book: Stand, body: bytes, status: int, error: str) -> None:
    answer = await book.http.post(
        "/apporders",
        params={"chainId": str(CHAIN_ID)},
        content=body,
        headers=await book.authorization("worker"),
    )
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_who_may_publish_what(book: Stand) -> None:
    network = book.network
    app, dataset, pool, _ = await network.orders()
    assert dataset
    provider = network.address("app_provider")

    async def refused(role: str, signed: Signed[Any]) -> str:
        with pytest.raises(Forbidden) as error:
            await book.publish(role, signed)
        return str(error.value)

    nowhere = network.sign("app_provider", AppOrder(network.address("worker")))
    assert await refused("app_provider", nowhere) == "Resource not deployed"
    wrong_registry = network.sign("data_provider", AppOrder(dataset.order.dataset))
    assert await refused("data_provider", wrong_registry) == "Resource not deployed"
    assert await refused("worker", app) == f"only order signer {provider} can publish an order"
    assert await refused("app_provider", network.sign("worker", app.order)) == "invalid sign"
    for junk in (b"", b"\x01", bytes(65)):
        assert await refused("app_provider", replace(app, sign=junk)) == "invalid sign"
    await book.publish("app_provider", app)
    assert await refused("app_provider", app) == "order already published"
    await network.as_("pool_owner").manage_order(pool, "close")
    assert await refused("pool_owner", pool) == "order already consumed"


async def test_an_order_presigned_on_chain_needs_no_signature(book: Stand) -> None:
    app, *_ = await book.network.orders()
    await book.network.as_("app_provider").manage_order(app.order, "sign")
    assert (await book.publish("app_provider", replace(app, sign=b""))).status == "open"


async def test_stakes_are_wanted(book: Stand) -> None:
    network = book.network
    app, dataset, pool, request = await network.orders()
    await book.publish_all(app, dataset)
    # 500 RLC in escrow: at 30 % of 40 RLC, 41 tasks are covered and 42 are not
    many = network.sign("pool_owner", replace(pool.order, volume=42))
    with pytest.raises(
        Forbidden, match="workerpool owner's stake is too low to cover required workerpool lock"
    ):
        await book.publish("pool_owner", many)
    await book.publish("pool_owner", network.sign("pool_owner", replace(pool.order, volume=41)))
    much = network.sign("requester", replace(request.order, volume=11))
    told = (
        "requester stake is too low to cover requestorder payment, "
        f"minimum stake required is {48 * 11 * RLC} nRLC"
    )
    with pytest.raises(Forbidden, match=told):
        await book.publish("requester", much)
    await book.publish("requester", network.sign("requester", replace(request.order, volume=10)))


async def test_a_request_wants_offers_of_its_app_and_dataset_unless_it_is_standing(book: Stand) -> None:
    network = book.network
    app, dataset, _, request = await network.orders()
    assert dataset
    program, data = app.order.app, dataset.order.dataset

    async def refused(**change: Any) -> str:
        with pytest.raises(Forbidden) as error:
            await book.publish("requester", network.sign("requester", replace(request.order, **change)))
        return str(error.value)

    assert await refused() == f"No tee enabled apporder published for app {program}"
    assert await refused(tag=tag(0)) == f"No apporder published for app {program}"
    kept = replace(app.order, requesterrestrict=network.address("worker"), salt=salt(1))
    await book.publish("app_provider", network.sign("app_provider", kept))
    assert await refused(tag=tag(0)) == f"No apporder published for app {program}"
    await book.publish("app_provider", app)
    told = f"appmaxprice for app {program} is too low, actual best price is {3 * RLC} nRLC"
    assert await refused(appmaxprice=3 * RLC - 1) == told
    assert await refused() == f"No datasetorder published for dataset {data}"
    await book.publish("data_provider", dataset)
    told = f"datasetmaxprice for dataset {data} is too low, actual best price is {5 * RLC} nRLC"
    assert await refused(datasetmaxprice=0) == told
    await book.publish("requester", request)
    unheard = replace(request.order, app=network.address("worker"), salt=salt(2))
    waiting = await book.publish("requester", network.sign("requester", unheard), standing=True)
    assert waiting.status == "open"


async def test_a_wallet_has_fifty_open_orders_of_a_kind(running: Any) -> None:
    book: Stand = await running.start(matching=False, max_open_orders=2)
    network = book.network
    app, *_ = await network.orders()
    signed = [network.sign("app_provider", replace(app.order, salt=salt(i))) for i in range(3)]
    await book.publish_all(*signed[:2])
    told = (
        f"maximum of 2 published open apporder has been reached for wallet {network.address('app_provider')}"
    )
    with pytest.raises(Forbidden, match=told):
        await book.publish("app_provider", signed[2])
    await book.client.unpublish(Kind.APP, signed[0].hash(network.domain), network.key("app_provider"))
    await book.publish("app_provider", signed[2])


# ---------------------------------------------------------------------------------------- unpublish


async def test_orders_are_unpublished_by_hash_the_last_or_all(book: Stand) -> None:
    network = book.network
    app, *_ = await network.orders()
    provider, program = network.key("app_provider"), app.order.app
    signed = [network.sign("app_provider", replace(app.order, salt=salt(i))) for i in range(4)]
    hashes = [(await book.publish("app_provider", one)).hash for one in signed]
    with pytest.raises(Forbidden, match=f"apporder with orderHash {hexstr(hashes[0])} is not published"):
        await book.client.unpublish(Kind.APP, hashes[0], network.key("worker"))
    assert await book.client.unpublish(Kind.APP, hashes[1], provider) == hashes[1]
    with pytest.raises(NotFound, match="apporder not found"):
        await book.client.order(Kind.APP, hashes[1])
    assert await book.client.unpublish_last(Kind.APP, program, provider) == hashes[3]
    assert set(await book.client.unpublish_all(Kind.APP, program, provider)) == {hashes[0], hashes[2]}
    told = f"no open apporder published by signer {provider.address} for app {program}"
    with pytest.raises(Forbidden, match=told):
        await book.client.unpublish_all(Kind.APP, program, provider)
    assert (await book.publish("app_provider", signed[0])).hash == hashes[0]


async def test_requests_die_with_the_last_offer_of_their_app(book: Stand) -> None:
    network = book.network
    orders = await network.orders()
    app, *_, request = await book.publish_all(*orders)
    standing = network.sign("requester", replace(orders[3].order, salt=salt(1)))
    waiting = await book.publish("requester", standing, standing=True)
    second = network.sign("app_provider", replace(orders[0].order, salt=salt(2)))
    other = await book.publish("app_provider", second)
    provider = network.key("app_provider")
    await book.client.unpublish(Kind.APP, app.hash, provider)
    assert (await book.client.order(Kind.REQUEST, request.hash)).status == "open"
    await book.client.unpublish(Kind.APP, other.hash, provider)
    assert (await book.client.order(Kind.REQUEST, request.hash)).status == "dead"
    assert (await book.client.order(Kind.REQUEST, waiting.hash)).status == "open"
    await book.publish("app_provider", orders[0])
    assert (await book.publish("requester", orders[3])).status == "open"


# --------------------------------------------------------------------------------------------- lists


async def shown(book: Stand, kind: Kind, **filters: Any) -> list[int]:
    """The salts of the orders that a list shows, in its order."""
    page = await book.client.orders(kind, **filters)
    return [int.from_bytes(found.order.salt, "big") for found in page.items]


async def app_book(book: Stand, **restricts: Address) -> Address:
    """Offers of one app: salts 1 and 2 free, 3 dear, then one for each restriction."""
    network = book.network
    program, _, _ = await network.assets()
    orders = [
        AppOrder(program, 2, salt=salt(1)),
        AppOrder(program, 1, volume=5, tag=tag(TEE), salt=salt(2)),
        AppOrder(program, 9, tag=tag(TEE_TDX | 1 << 200), salt=salt(3)),
    ]
    orders += [
        AppOrder(program, 2, salt=salt(4 + i), **{name: value})  # type: ignore[arg-type]
        for i, (name, value) in enumerate(restricts.items())
    ]
    await book.publish_all(*(network.sign("app_provider", order) for order in orders))
    return program


async def test_lists_are_sorted_by_price_then_time_and_filtered_by_restriction(book: Stand) -> None:
    worker, node = book.network.address("worker"), book.network.address("node_0")
    program = await app_book(book, requesterrestrict=worker, datasetrestrict=node)
    assert await shown(book, Kind.APP, app=program) == [2, 1, 3]
    assert await shown(book, Kind.APP, owner=book.network.address("app_provider")) == [2, 1, 3]
    assert await shown(book, Kind.APP, owner=worker) == []
    assert await shown(book, Kind.APP, app="any", requester=worker) == [2, 1, 4, 3]
    assert await shown(book, Kind.APP, app=program, requester=worker, only_requester=True) == [4]
    assert await shown(book, Kind.APP, app=program, requester=node) == [2, 1, 3]
    assert await shown(book, Kind.APP, app=program, requester="any") == [2, 1, 4, 3]
    assert await shown(book, Kind.APP, app=program, requester="any", dataset="any") == [2, 1, 4, 5, 3]
    assert await shown(book, Kind.APP, app=program, dataset=node, only_dataset=True) == [5]


async def test_lists_filter_tags_and_volumes(book: Stand) -> None:
    program = await app_book(book)
    assert await shown(book, Kind.APP, app=program, min_tag=TEE) == [2, 3]
    assert await shown(book, Kind.APP, app=program, min_tag=1 << 200) == [3]
    assert await shown(book, Kind.APP, app=program, max_tag=0) == [1]
    assert await shown(book, Kind.APP, app=program, max_tag=TEE_TDX) == [2, 1]
    assert await shown(book, Kind.APP, app=program, max_tag=2**256 - 1) == [2, 1, 3]
    assert await shown(book, Kind.APP, app=program, min_volume=2) == [2]


async def test_lists_of_workerpools_filter_category_trust_and_owner(book: Stand) -> None:
    network = book.network
    _, _, pool = await network.assets()
    worker = network.address("worker")
    orders = [
        WorkerpoolOrder(pool, 3, salt=salt(1)),
        WorkerpoolOrder(pool, 2, category=1, trust=5, salt=salt(2)),
        WorkerpoolOrder(pool, 1, category=1, trust=2, salt=salt(3)),
        WorkerpoolOrder(pool, 1, apprestrict=worker, salt=salt(4)),
    ]
    await book.publish_all(*(network.sign("pool_owner", order) for order in orders))
    assert await shown(book, Kind.WORKERPOOL) == [3, 2, 1]
    assert await shown(book, Kind.WORKERPOOL, category=1) == [3, 2]
    assert await shown(book, Kind.WORKERPOOL, min_trust=3) == [2]
    assert await shown(book, Kind.WORKERPOOL, min_trust=1) == [3, 2, 1]
    assert await shown(book, Kind.WORKERPOOL, workerpool=pool, category=0) == [1]
    assert await shown(book, Kind.WORKERPOOL, workerpool=worker) == []
    assert await shown(book, Kind.WORKERPOOL, owner=network.address("pool_owner"), app=worker) == [3, 4, 2, 1]


async def test_lists_of_datasets_know_bulk_offers(book: Stand) -> None:
    network = book.network
    _, data, _ = await network.assets()
    orders = [
        DatasetOrder(data, 0, volume=2**53 - 1, salt=salt(1)),
        DatasetOrder(data, 0, volume=2**53 - 3, salt=salt(2)),
        DatasetOrder(data, 1, volume=2**53 - 1, salt=salt(3)),
    ]
    await book.publish_all(*(network.sign("data_provider", order) for order in orders))
    assert await shown(book, Kind.DATASET, dataset=data) == [1, 2, 3]
    assert await shown(book, Kind.DATASET, dataset="any", bulk_only=True) == [1]
    answer = await book.get("/datasetorders", dataset=data)
    assert [found["bulk"] for found in answer.json()["orders"]] == [True, False, False]


async def test_lists_of_requests_are_sorted_by_what_they_pay(book: Stand) -> None:
    network = book.network
    program, data, pool = await network.assets()
    await book.publish("app_provider", network.sign("app_provider", AppOrder(program, tag=tag(TEE))))
    me, other = network.address("requester"), network.address("worker")
    asked: list[dict[str, Any]] = [
        {"workerpoolmaxprice": 1, "beneficiary": other},
        {"workerpoolmaxprice": 3, "trust": 4},
        {"workerpoolmaxprice": 2, "workerpool": pool, "category": 2},
    ]
    for number, more in enumerate(asked, 1):
        order = RequestOrder(app=program, requester=me, salt=salt(number), **more)
        await book.publish("requester", network.sign("requester", order))
    assert await shown(book, Kind.REQUEST) == [2, 1]
    assert await shown(book, Kind.REQUEST, workerpool=pool) == [2, 3, 1]
    assert await shown(book, Kind.REQUEST, workerpool=pool, only_workerpool=True) == [3]
    assert await shown(book, Kind.REQUEST, workerpool="any", category=2) == [3]
    assert await shown(book, Kind.REQUEST, beneficiary=other) == [1]
    assert await shown(book, Kind.REQUEST, max_trust=0) == [1]
    assert await shown(book, Kind.REQUEST, app=program, dataset=ZERO, requester=me) == [2, 1]
    assert await shown(book, Kind.REQUEST, dataset=data) == []


async def test_pages_tell_the_total_and_whether_more_follows(book: Stand) -> None:
    network = book.network
    program, *_ = await network.assets()
    orders = [AppOrder(program, i, salt=salt(i)) for i in range(25)]
    await book.publish_all(*(network.sign("app_provider", order) for order in orders))
    first = (await book.get("/apporders", app=program)).json()
    assert (len(first["orders"]), first["count"], first["nextPage"]) == (20, 25, 20)
    second = (await book.get("/apporders", app=program, pageIndex=1)).json()
    assert (len(second["orders"]), second["count"], "nextPage" in second) == (5, 25, False)
    tens = await book.client.app_orders(program, page=1, page_size=10)
    assert [found.order.appprice for found in tens.items] == list(range(10, 20)) and tens.more
    old = (await book.get("/apporders", app=program, page=22)).json()
    assert [found["order"]["appprice"] for found in old["orders"]] == [22, 23, 24]


async def test_categories_are_listed_by_time(book: Stand) -> None:
    page = await book.client.categories()
    times = [category.work_clock_time_ref for category in page.items]
    assert times == sorted(times) and page.count == 6 and times[:2] == [2, 300]
    found = await book.client.categories(least=300, most=3600)
    assert [category.name for category in found.items] == ["XS", "S", "M"]
    assert (await book.client.category(4)).name == "XL"
    with pytest.raises(InvalidInput, match="catid must be a `number`"):
        await book.client.json("GET", "/categories/x", params={"chainId": str(CHAIN_ID)})
