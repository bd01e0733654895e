// The order book: sign, publish, find, unpublish and cancel each kind of order.

import { check, end, expect, person, refused, rlc, same, until, world } from './journey.mjs';

const one = person();
const other = person();
const { sdk } = one;
const { order, orderbook } = sdk;
const CHECKSUM = '0x' + '5a'.repeat(32);

const assets = await check('app, dataset and workerpool are deployed, and a stake is there', async () => {
  const owner = one.address;
  const app = await sdk.app.deployApp({ owner, name: 'app', type: 'DOCKER', multiaddr: 'registry.example/a:1', checksum: CHECKSUM });
  const dataset = await sdk.dataset.deployDataset({ owner, name: 'd', multiaddr: 'https://example.org/d', checksum: CHECKSUM });
  await sdk.dataset.pushDatasetSecret(dataset.address, sdk.dataset.generateEncryptionKey());
  const pool = await sdk.workerpool.deployWorkerpool({ owner, description: 'a pool' });
  await sdk.account.deposit(rlc(100));
  return { app: app.address, dataset: dataset.address, workerpool: pool.address };
});
const { app, dataset, workerpool } = assets ?? {};

const templates = {
  App: (more = {}) => order.createApporder({ app, appprice: rlc(1), volume: 10, ...more }),
  Dataset: (more = {}) => order.createDatasetorder({ dataset, datasetprice: rlc(2), volume: 10, ...more }),
  Workerpool: (more = {}) => order.createWorkerpoolorder({ workerpool, workerpoolprice: rlc(3), category: 0, volume: 2, ...more }),
  Request: (more = {}) =>
    order.createRequestorder({
      app, dataset, workerpool, appmaxprice: rlc(1), datasetmaxprice: rlc(2), workerpoolmaxprice: rlc(2), category: 0, volume: 2, ...more,
    }),
};
const domain = { name: 'iExecODB', version: '5.0.0', chainId: world.chainId, verifyingContract: world.hub };
const signed = {};
const hashes = {};

async function sign(kind) {
  signed[kind] = await order[`sign${kind}order`](await templates[kind]());
  hashes[kind] = await order[`hash${kind}order`](signed[kind]);
  expect(/^0x[0-9a-f]{130}$/.test(signed[kind].sign) && /^0x[0-9a-f]{64}$/.test(hashes[kind]), JSON.stringify(signed[kind]));
}
async function publish(kind) {
  same(await order[`publish${kind}order`](signed[kind]), hashes[kind]);
}
async function again(kind) {
  await refused(() => order[`publish${kind}order`](signed[kind]), 'order already published');
}
async function found(kind) {
  const { orderHash, order: told, status, remaining, signer, publicationTimestamp } = await orderbook[`fetch${kind}order`](hashes[kind]);
  same([orderHash, status, remaining, signer], [hashes[kind], 'open', Number(signed[kind].volume), one.address]);
  same(told.sign, signed[kind].sign, 'signature');
  expect(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(publicationTimestamp), publicationTimestamp);
}
async function unpublish(kind, resource) {
  same(await order[`unpublish${kind}order`](hashes[kind]), hashes[kind]);
  await refused(() => orderbook[`fetch${kind}order`](hashes[kind]), 'not found');
  await order[`publish${kind}order`](signed[kind]);
  same(await order[`unpublishLast${kind}order`](resource), hashes[kind], 'the last');
  const second = await order[`sign${kind}order`](await templates[kind]());
  const two = [await order[`publish${kind}order`](signed[kind]), await order[`publish${kind}order`](second)];
  same((await order[`unpublishAll${kind}orders`](resource)).toSorted(), two.toSorted(), 'all');
}
async function cancel(kind) {
  await order[`publish${kind}order`](signed[kind]);
  same((await order[`cancel${kind}order`](signed[kind])).order.sign, signed[kind].sign);
  await refused(() => order[`cancel${kind}order`](signed[kind]), 'already canceled');
}
async function canceled(kind) {
  const found = await until(async () => {
    const told = await orderbook[`fetch${kind}order`](hashes[kind]);
    return told.status === 'canceled' && told;
  });
  same(found.remaining, 0, 'remaining');
}

await check('an app order is signed', () => sign('App'));
await check('the app order is published', () => publish('App'));
await check('the app order is not published twice', () => again('App'));
await check('the app order is found by its hash', () => found('App'));
await check('a dataset order is signed', () => sign('Dataset'));
await check('the dataset order is published', () => publish('Dataset'));
await check('the dataset order is not published twice', () => again('Dataset'));
await check('the dataset order is found by its hash', () => found('Dataset'));
await check('a workerpool order is signed', () => sign('Workerpool'));
await check('the workerpool order is published', () => publish('Workerpool'));
await check('the workerpool order is not published twice', () => again('Workerpool'));
await check('the workerpool order is found by its hash', () => found('Workerpool'));
await check('a request order is signed', () => sign('Request'));
await check('the request order is published', () => publish('Request'));
await check('the request order is not published twice', () => again('Request'));
await check('the request order is found by its hash', () => found('Request'));

await check('an order of somebody else is not published', async () => {
  const template = await templates.App();
  await refused(() => other.sdk.order.signApporder(template), 'must be the resource owner');
  const { order: theirs } = other.sdk;
  await refused(() => theirs.publishApporder({ ...signed.App, salt: CHECKSUM }), 'only order signer');
});
await check('a wrong signature is refused', () =>
  refused(() => order.publishApporder({ ...signed.App, salt: CHECKSUM }), 'invalid sign'));
await check('an offer without stake is refused', async () => {
  const dear = await order.signWorkerpoolorder(await templates.Workerpool({ workerpoolprice: rlc(1000), volume: 100 }));
  await refused(() => order.publishWorkerpoolorder(dear), "workerpool owner's stake is too low to cover required workerpool lock");
});
await check('a request without stake is refused', async () => {
  const dear = await order.signRequestorder(await templates.Request({ workerpoolmaxprice: rlc(1000) }));
  await refused(
    () => order.publishRequestorder(dear),
    'requester stake is too low to cover requestorder payment, minimum stake required is 2006000000000 nRLC',
  );
});
await check('a request below the price of the app is refused', async () => {
  const cheap = await order.signRequestorder(await templates.Request({ appmaxprice: 5 }));
  await refused(
    () => order.publishRequestorder(cheap),
    `appmaxprice for app ${app} is too low, actual best price is 1000000000 nRLC`,
  );
});
await check('a request for data that nobody offers is refused', async () => {
  const more = { owner: one.address, name: 'e', multiaddr: 'https://example.org/e', checksum: CHECKSUM };
  const { address } = await sdk.dataset.deployDataset(more);
  await sdk.dataset.pushDatasetSecret(address, sdk.dataset.generateEncryptionKey());
  const request = await order.signRequestorder(await templates.Request({ dataset: address }));
  await refused(() => order.publishRequestorder(request), `No datasetorder published for dataset ${address}`);
});

await check('books are read by resource and by owner', async () => {
  for (const asked of [{ app }, { appOwner: one.address }]) {
    const { count, orders } = await orderbook.fetchAppOrderbook(asked);
    same([count, orders[0].orderHash], [1, hashes.App], 'app orders');
  }
  for (const asked of [{ dataset }, { datasetOwner: one.address }]) {
    const { count, orders } = await orderbook.fetchDatasetOrderbook(asked);
    same([count, orders[0].orderHash], [1, hashes.Dataset], 'dataset orders');
  }
  for (const asked of [{ workerpool }, { workerpoolOwner: one.address }, { workerpool, category: 0 }]) {
    const { count, orders } = await orderbook.fetchWorkerpoolOrderbook(asked);
    same([count, orders[0].orderHash], [1, hashes.Workerpool], 'workerpool orders');
  }
  for (const asked of [{ requester: one.address }, { app }, { dataset, category: 0 }, { beneficiary: one.address }]) {
    const { count, orders } = await orderbook.fetchRequestOrderbook({ workerpool, ...asked });
    same([count, orders[0].orderHash], [1, hashes.Request], 'request orders');
  }
  same((await orderbook.fetchWorkerpoolOrderbook({ workerpool, category: 3 })).count, 0, 'another category');
});
await check('a book of nothing is not asked for', async () => {
  await refused(() => orderbook.fetchAppOrderbook({}), 'app or appOwner is required');
});

const restricted = await check('restricted orders are hidden from others, and found by those they are for', async () => {
  const template = await templates.App({ requesterrestrict: other.address, appprice: rlc(1) });
  const hash = await order.publishApporder(await order.signApporder(template));
  const list = async (more) =>
    (await orderbook.fetchAppOrderbook({ app, ...more })).orders.map((one) => one.orderHash).toSorted();
  same(await list({}), [hashes.App], 'without a requester');
  same(await list({ requester: other.address }), [hash, hashes.App].toSorted(), 'for the requester');
  same(await list({ requester: other.address, isRequesterStrict: true }), [hash], 'for the requester alone');
  same(await list({ requester: one.address }), [hashes.App], 'for another requester');
  same(await list({ requester: 'any' }), [hash, hashes.App].toSorted(), 'for any');
  return hash;
});
await check('orders are found by tag', async () => {
  const list = async (more) => (await orderbook.fetchAppOrderbook({ app, ...more })).count;
  same(await list({ minTag: ['tee', 'tdx'] }), 1, 'at least tee, tdx');
  same(await list({ minTag: ['tee', 'tdx', 'gpu'] }), 0, 'at least gpu');
  same(await list({ maxTag: [] }), 0, 'at most none');
  same(await list({ maxTag: ['tee', 'tdx', 'gpu'] }), 1, 'at most gpu');
});
await check('orders are sorted by price, and read page by page', async () => {
  const { sdk: seller } = other;
  const owner = other.address;
  const made = await seller.app.deployApp({ owner, name: 'pages', type: 'DOCKER', multiaddr: 'registry.example/p:1', checksum: CHECKSUM });
  const prices = [7, 3, 11, 5, 2, 13, 1, 8, 9, 4, 12, 6, 10];
  for (const appprice of prices) {
    const template = await seller.order.createApporder({ app: made.address, appprice });
    await seller.order.publishApporder(await seller.order.signApporder(template));
  }
  const first = await orderbook.fetchAppOrderbook({ app: made.address, pageSize: 10 });
  same(first.count, 13, 'count');
  const second = await first.more();
  same(second.more, undefined, 'more after the last page');
  const told = [...first.orders, ...second.orders].map((one) => one.order.appprice);
  same(told, prices.toSorted((a, b) => a - b), 'prices');
});

await check('app orders are unpublished: one, the last, all', async () => {
  await order.unpublishApporder(restricted);
  await unpublish('App', app);
});
await check('a request dies with the last offer of its app', () =>
  until(async () => (await orderbook.fetchRequestorder(hashes.Request)).status === 'dead'));
await check('and is published again once there is one', async () => {
  await order.publishApporder(signed.App);
  same(await order.publishRequestorder(signed.Request), hashes.Request);
  await order.unpublishRequestorder(hashes.Request);
});
await check('dataset orders are unpublished: one, the last, all', () => unpublish('Dataset', dataset));
await check('workerpool orders are unpublished: one, the last, all', () => unpublish('Workerpool', workerpool));
await check('request orders are unpublished: one, the last, all', async () => {
  await order.publishDatasetorder(signed.Dataset);
  await order.publishRequestorder(signed.Request);
  await unpublish('Request');
});

await check('a request order is cancelled on chain', () => cancel('Request'));
await check('the cancelled request order is so in the market', () => canceled('Request'));
await check('a workerpool order is cancelled on chain', () => cancel('Workerpool'));
await check('the cancelled workerpool order is so in the market', () => canceled('Workerpool'));
await check('a dataset order is cancelled on chain', async () => {
  await order.unpublishDatasetorder(hashes.Dataset);
  await cancel('Dataset');
});
await check('the cancelled dataset order is so in the market', () => canceled('Dataset'));
await check('an app order is cancelled on chain', async () => {
  await order.unpublishApporder(hashes.App);
  await cancel('App');
});
await check('the cancelled app order is so in the market', () => canceled('App'));

await check('offers of an app that has changed hands die', async () => {
  const { address } = await sdk.app.deployApp({ owner: one.address, name: 'sold', type: 'DOCKER', multiaddr: 'registry.example/s:1', checksum: CHECKSUM });
  const hash = await order.publishApporder(await order.signApporder(await order.createApporder({ app: address })));
  await sdk.app.transferApp(address, other.address);
  await until(async () => (await orderbook.fetchApporder(hash)).status === 'dead');
  same((await orderbook.fetchAppOrderbook({ app: address })).count, 0, 'in the book');
});

end();
