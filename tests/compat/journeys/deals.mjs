// What deals may ask for besides a result: restrictions, tags, callbacks, data in bulk; and what they may not.

import JSZip from 'jszip';

import { check, end, ethers, expect, person, refused, rlc, same, until, world } from './journey.mjs';

const provider = person();
const requester = person();
const other = person();
const { sdk } = requester;
const { order } = sdk;

// It logs what it is called with: CALLDATASIZE PUSH0 PUSH0 CALLDATACOPY CALLDATASIZE PUSH0 LOG0 STOP.
const LISTENER = '0x67365f5f37365fa0005f5260086018f3';

const app = await check('an app is offered to a requester, in one workerpool', async () => {
  const { sdk: seller, address: owner } = provider;
  const { address } = await seller.app.deployApp({ owner, name: 'echo', type: 'DOCKER', ...world.app });
  const template = await seller.order.createApporder({
    app: address,
    volume: 100,
    requesterrestrict: requester.address,
    workerpoolrestrict: world.workerpool,
  });
  await seller.order.publishApporder(await seller.order.signApporder(template));
  await Promise.all([sdk.account.deposit(rlc(50)), other.sdk.account.deposit(rlc(5))]);
  return address;
});

const orders = await check('restricted orders are found by those they are for', async () => {
  const asked = { app, requester: requester.address, workerpool: world.workerpool };
  const apps = await sdk.orderbook.fetchAppOrderbook(asked);
  same(apps.count, 1, 'app orders');
  same((await sdk.orderbook.fetchAppOrderbook({ ...asked, requester: other.address })).count, 0, 'for another');
  const { workerpool, category } = world;
  const pools = await sdk.orderbook.fetchWorkerpoolOrderbook({ workerpool, category });
  return { apporder: apps.orders[0].order, workerpoolorder: pools.orders[0].order };
});

async function ask(whose, more) {
  const template = await whose.sdk.order.createRequestorder({
    app,
    workerpoolmaxprice: orders.workerpoolorder.workerpoolprice,
    category: world.category,
    ...more,
  });
  return whose.sdk.order.signRequestorder(template);
}
async function deal(more) {
  const { dealid } = await order.matchOrders({ ...orders, requestorder: await ask(requester, more) });
  return sdk.deal.computeTaskId(dealid, 0);
}

await check('a restricted order is not matched for others: the hub refuses', async () => {
  const requestorder = await ask(other, {});
  await refused(() => other.sdk.order.matchOrders({ ...orders, requestorder }), 'iExecV5-matchOrders-0x15');
});
await check('tags that the workerpool lacks are refused', async () => {
  const requestorder = await ask(requester, { tag: ['gpu'] });
  await refused(() => order.estimateMatchOrders({ ...orders, requestorder }), 'Missing tags [gpu] in workerpoolorder');
});
await check('trust above what a workerpool offers is refused', async () => {
  const requestorder = await ask(requester, { trust: 2 });
  await refused(() => order.estimateMatchOrders({ ...orders, requestorder }), 'trust is too low (expected 2, got 1)');
});
await check('a result in a dropbox is not asked for without its token', async () => {
  const params = { iexec_result_storage_provider: 'dropbox' };
  await refused(() => ask(requester, { params }), 'storage token is not set');
});

const listener = await check('a contract that listens is deployed', async () => {
  const { wallet } = requester;
  const sent = await wallet.sendTransaction({ data: LISTENER });
  return (await sent.wait()).contractAddress;
});

const tasks = await check('deals: with a callback, by an app that fails, with a result for a dropbox', async () => {
  await sdk.storage.pushStorageToken('token', 'dropbox');
  return {
    call: await deal({ callback: listener, params: { iexec_args: 'call answer' } }),
    fail: await deal({ params: { iexec_args: 'fail' } }),
    dropbox: await deal({ params: { iexec_result_storage_provider: 'dropbox' } }),
  };
});

const ended = (taskid) =>
  until(
    async () => {
      const task = await sdk.task.show(taskid).catch(() => ({}));
      return task.statusName === 'COMPLETED' && task;
    },
    { seconds: 120 },
  );
const error = async (taskid) => {
  const zip = await JSZip.loadAsync(await (await sdk.task.fetchResults(taskid)).arrayBuffer());
  return zip.file('error.txt').async('string');
};

await check('the callback brings the result to the contract', async () => {
  const { results, resultsCallback } = await ended(tasks.call);
  const data = ethers.hexlify(ethers.toUtf8Bytes('answer'));
  same([results, resultsCallback], [{ storage: 'ethereum', location: listener }, data]);
  const logs = await requester.wallet.provider.getLogs({ address: listener, fromBlock: 0 });
  const receiver = new ethers.Interface(['function receiveResult(bytes32 taskid, bytes results)']);
  same(logs.map((log) => receiver.decodeFunctionData('receiveResult', log.data).toArray()), [[tasks.call, data]]);
  await refused(() => sdk.task.fetchResults(tasks.call), 'ethereum');
});
await check('of an app that fails there are exit code, logs and an error for a result', async () => {
  await ended(tasks.fail);
  const [replicate] = (await until(async () => {
    const found = await sdk.task.fetchOffchainInfo(tasks.fail);
    return found.task.status === 'COMPLETED' && found;
  })).replicates;
  same(replicate.exitCode, 1, 'exit code');
  const [log] = await until(() => sdk.task.fetchLogs(tasks.fail).catch(() => undefined));
  expect(log.stderr.includes('the app has given up'), `stderr ${JSON.stringify(log)}`);
  const said = await error(tasks.fail);
  expect(said.includes('the app exited with code 1'), said);
});
await check('a result for a dropbox is refused by name', async () => {
  await ended(tasks.dropbox);
  const said = await error(tasks.dropbox);
  expect(said.includes('dropbox'), said);
});

const bulk = await check('data are prepared in bulk', async () => {
  const { sdk: seller, address: owner } = provider;
  const made = [];
  for (const name of ['one', 'two', 'three']) {
    const facts = { owner, name, multiaddr: 'https://example.org/d', checksum: world.app.checksum };
    const { address: dataset } = await seller.dataset.deployDataset(facts);
    await seller.dataset.pushDatasetSecret(dataset, seller.dataset.generateEncryptionKey());
    const template = await seller.order.createDatasetorder({ dataset, volume: Number.MAX_SAFE_INTEGER - 1, tag: ['tee'] });
    made.push(await seller.order.signDatasetorder(template));
  }
  const { cid, volume } = await order.prepareDatasetBulk(made, { maxDatasetPerTask: 2, thegraphUpload: false });
  same(volume, 2, 'slices');
  const read = async (at) => (await fetch(`${world.gateway}/ipfs/${at}`)).json();
  const slices = await Promise.all((await read(cid)).map(read));
  same(slices.map((slice) => slice.map((one) => one.dataset)), [made.slice(0, 2), made.slice(2)].map((part) => part.map((one) => one.dataset)));
  return cid;
});
await check('a request names a bulk', async () => {
  const { params } = await ask(requester, { volume: 2, params: { bulk_cid: bulk } });
  same(JSON.parse(params).bulk_cid, bulk);
});

end();
