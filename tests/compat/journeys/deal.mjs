// From an app and a dataset to a decrypted result: the journey that all the others are parts of.

import JSZip from 'jszip';

import { add, check, end, ethers, expect, IExec, observed, options, person, refused, rlc, same, until, utils, world } from './journey.mjs';

const provider = person();
const owner = person();
const requester = person();
const stranger = person();

const plain = Buffer.from('what the owner keeps for itself');

const app = await check('an app is deployed', async () => {
  const { address } = await provider.sdk.app.deployApp({
    owner: provider.address,
    name: 'echo',
    type: 'DOCKER',
    multiaddr: world.app.multiaddr,
    checksum: world.app.checksum,
  });
  return address;
});

await check("the app's developer pushes its secret", () => provider.sdk.app.pushAppSecret(app, 'app secret'));

const dataset = await check('data are encrypted, stored and deployed', async () => {
  const { sdk } = owner;
  const key = sdk.dataset.generateEncryptionKey();
  const encrypted = await sdk.dataset.encrypt(plain, key);
  const checksum = await sdk.dataset.computeEncryptedFileChecksum(encrypted);
  const cid = await add(encrypted);
  const { address } = await sdk.dataset.deployDataset({
    owner: owner.address,
    name: 'data',
    multiaddr: `/ipfs/${cid}`,
    checksum,
  });
  await sdk.dataset.pushDatasetSecret(address, key);
  return address;
});

await check('the app is offered', async () => {
  const { order } = provider.sdk;
  await order.publishApporder(
    await order.signApporder(await order.createApporder({ app, appprice: rlc(1), volume: 100 })),
  );
});

await check('the dataset is offered to the app', async () => {
  const { order } = owner.sdk;
  const template = await order.createDatasetorder({ dataset, datasetprice: rlc(2), volume: 100, apprestrict: app });
  await order.publishDatasetorder(await order.signDatasetorder(template));
});

const keys = await check('the requester deposits, and pushes secrets and the key of results', async () => {
  const { sdk } = requester;
  await sdk.account.deposit(rlc(50));
  await sdk.secrets.pushRequesterSecret('login', 'requester secret');
  const pair = await crypto.subtle.generateKey(
    { name: 'RSA-OAEP', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
    true,
    ['encrypt', 'decrypt'],
  );
  const spki = Buffer.from(await crypto.subtle.exportKey('spki', pair.publicKey)).toString('base64');
  const pem = `-----BEGIN PUBLIC KEY-----\n${spki.match(/.{1,64}/g).join('\n')}\n-----END PUBLIC KEY-----`;
  await sdk.result.pushResultEncryptionKey(pem);
  return pair;
});

const orders = await check('the orderbooks hold what the deal needs', async () => {
  const { orderbook } = requester.sdk;
  const apps = await orderbook.fetchAppOrderbook({ app });
  same([apps.count, apps.orders.length], [1, 1], 'app orders');
  const datasets = await orderbook.fetchDatasetOrderbook({ dataset, app });
  same([datasets.count, datasets.orders[0].order.apprestrict], [1, app], 'dataset orders');
  const pools = await orderbook.fetchWorkerpoolOrderbook({
    workerpool: world.workerpool,
    category: world.category,
    minTag: ['tee', 'tdx'],
  });
  expect(pools.count >= 1, 'no workerpool order');
  return {
    apporder: apps.orders[0].order,
    datasetorder: datasets.orders[0].order,
    workerpoolorder: pools.orders[0].order,
  };
});

const requestorder = await check('the request is signed', async () => {
  const { order } = requester.sdk;
  const template = await order.createRequestorder({
    app,
    dataset,
    appmaxprice: rlc(1),
    datasetmaxprice: rlc(2),
    workerpoolmaxprice: orders.workerpoolorder.workerpoolprice,
    category: world.category,
    volume: 2,
    params: {
      iexec_args: "one 'two words'",
      iexec_secrets: { 1: 'login' },
      iexec_result_encryption: true,
    },
  });
  return order.signRequestorder(template);
});

await check('the match is estimated', async () => {
  const { volume, total } = await requester.sdk.order.estimateMatchOrders({ ...orders, requestorder });
  same(String(volume), '2', 'volume');
  const each = 3_000_000_000n + BigInt(orders.workerpoolorder.workerpoolprice);
  same(String(total), String(2n * each), 'total');
});

const dealid = await check('the orders are matched', async () => {
  const { dealid, volume } = await requester.sdk.order.matchOrders({ ...orders, requestorder });
  same(String(volume), '2', 'volume');
  return dealid;
});

await check('the deal is on chain as it was signed', async () => {
  const deal = await requester.sdk.deal.show(dealid);
  same(deal.app.pointer, app, 'app');
  same(deal.dataset.pointer, dataset, 'dataset');
  same(deal.requester, requester.address, 'requester');
  same(Object.keys(deal.tasks).length, 2, 'tasks');
});

await check('the deal is in the lists at once', async () => {
  const { deal, order } = requester.sdk;
  const mine = await deal.fetchRequesterDeals(requester.address);
  same([mine.count, mine.deals[0].dealid], [1, dealid], 'deals of the requester');
  const kinds = { App: 'apporder', Dataset: 'datasetorder', Workerpool: 'workerpoolorder' };
  for (const [kind, name] of Object.entries(kinds)) {
    const found = await deal[`fetchDealsBy${kind}order`](await order[`hash${kind}order`](orders[name]));
    expect(found.deals.some((one) => one.dealid === dealid), `not among the deals of the ${name}`);
  }
  const found = await deal.fetchDealsByRequestorder(await order.hashRequestorder(requestorder));
  same(found.deals.map((one) => one.dealid), [dealid], 'deals of the request order');
});

const taskid = await check('the id of a task is computed', () => requester.sdk.deal.computeTaskId(dealid, 0));

await check('the task is observed until it has completed', async () => {
  const heard = await observed(await requester.sdk.task.obsTask(taskid, { dealid }));
  expect(heard.every((one) => ['TASK_UPDATED', 'TASK_COMPLETED'].includes(one.message)), JSON.stringify(heard));
  same(heard.at(-1).message, 'TASK_COMPLETED', 'the last message');
});

await check('the deal is observed until it has completed', async () => {
  const heard = await observed(await requester.sdk.deal.obsDeal(dealid));
  const { message, tasksCount, completedTasksCount, failedTasksCount } = heard.at(-1);
  same([message, tasksCount, completedTasksCount, failedTasksCount], ['DEAL_COMPLETED', 2, 2, 0], 'the last message');
});

await check('the task is shown as completed, with the place of its result', async () => {
  const task = await requester.sdk.task.show(taskid);
  same([task.statusName, task.taskTimedOut, task.results.storage], ['COMPLETED', false, 'ipfs'], 'task');
  expect(task.results.location.startsWith('/ipfs/'), task.results.location);
});

await check('the result is fetched and decrypted', async () => {
  const response = await requester.sdk.task.fetchResults(taskid);
  const pkcs8 = await crypto.subtle.exportKey('pkcs8', keys.privateKey);
  const pem = Buffer.from(pkcs8).toString('base64').match(/.{1,64}/g).join('\n');
  const archive = await utils.decryptResult(
    await response.arrayBuffer(),
    `-----BEGIN PRIVATE KEY-----\n${pem}\n-----END PRIVATE KEY-----`,
  );
  const zip = await JSZip.loadAsync(archive);
  const told = JSON.parse(await zip.file('result.json').async('string'));
  same(told.args, ['one', 'two words'], 'arguments');
  same(told.data, plain.toString(), 'data');
  same(told.index, 0, 'index');
  same(told.secrets.IEXEC_APP_DEVELOPER_SECRET, 'app secret', "the app's secret");
  same(told.secrets.IEXEC_REQUESTER_SECRET_1, 'requester secret', "the requester's secret");
  expect(zip.file('computed.json'), `no computed.json in ${Object.keys(zip.files)}`);
});

await check('the scheduler tells how the task went', async () => {
  const told = await until(async () => {
    const found = await requester.sdk.task.fetchOffchainInfo(taskid);
    return found.task.status === 'COMPLETED' && found;
  });
  same(told.replicates.length, 1, 'replicates');
  const [replicate] = told.replicates;
  expect(replicate.status === 'COMPLETED' && replicate.exitCode === 0, JSON.stringify(replicate));
  expect(told.task.statusHistory.length > 3, JSON.stringify(told.task.statusHistory));
});

await check('of an encrypted result the logs are in there alone', async () => {
  await refused(() => requester.sdk.task.fetchLogs(taskid), 'only the beneficiary can read the result');
});

await check('the deal has paid app, data and workerpool', async () => {
  same(String((await provider.sdk.account.checkBalance(provider.address)).stake), rlc(2), 'app provider');
  same(String((await owner.sdk.account.checkBalance(owner.address)).stake), rlc(4), 'data owner');
  const { stake, locked } = await requester.sdk.account.checkBalance(requester.address);
  const price = BigInt(orders.workerpoolorder.workerpoolprice);
  same([String(stake), String(locked)], [String(44_000_000_000n - 2n * price), '0'], 'requester');
});

await check('a consumed request cannot be matched again', () =>
  refused(() => requester.sdk.order.matchOrders({ ...orders, requestorder }), 'fully consumed'));

const open = await check('a run without data and without encryption is bought', async () => {
  const { order } = requester.sdk;
  const file = await add(Buffer.from('an input file'));
  const template = await order.createRequestorder({
    app,
    appmaxprice: rlc(1),
    workerpoolmaxprice: orders.workerpoolorder.workerpoolprice,
    category: world.category,
    params: { iexec_args: 'open', iexec_input_files: [`${world.gateway}/ipfs/${file}`] },
  });
  const { apporder, workerpoolorder } = orders;
  const match = { apporder, workerpoolorder, requestorder: await order.signRequestorder(template) };
  const { dealid } = await order.matchOrders(match);
  return requester.sdk.deal.computeTaskId(dealid, 0);
});

await check('its result is read by anybody', async () => {
  await until(async () => (await stranger.sdk.task.show(open).catch(() => ({}))).statusName === 'COMPLETED');
  const response = await stranger.sdk.task.fetchResults(open);
  const zip = await JSZip.loadAsync(await response.arrayBuffer());
  const { args, inputs } = JSON.parse(await zip.file('result.json').async('string'));
  same([args, inputs], [['open'], ['an input file']]);
});

await check('the requester reads the logs of its task', async () => {
  const [log] = await until(() => requester.sdk.task.fetchLogs(open).catch(() => undefined));
  expect(log.stdout.includes('hello from the app'), `stdout ${JSON.stringify(log)}`);
  same(log.stderr, '', 'stderr');
  expect(/^0x[0-9a-fA-F]{40}$/.test(log.worker), log.worker);
});

await check('nobody else reads them: the SDK does not ask', () =>
  refused(() => stranger.sdk.task.fetchLogs(open), 'Only task requester'));

await check('nobody else reads them: the scheduler does not tell', async () => {
  const asked = await fetch(`${world.compass}/tasks/logs/challenge?address=${stranger.address}`);
  const typed = await asked.json();
  const { EIP712Domain, ...types } = typed.types;
  const signature = await stranger.wallet.signTypedData(typed.domain, types, typed.message);
  const hash = ethers.TypedDataEncoder.hash(typed.domain, types, typed.message);
  const headers = { Authorization: `${hash}_${signature}_${stranger.address}` };
  same((await fetch(`${world.compass}/tasks/${open}/logs`, { headers })).status, 403, 'status');
  same((await fetch(`${world.compass}/tasks/${open}/logs`)).status, 401, 'status without a signature');
});

await check('an SDK without a wallet reads the deal', async () => {
  const reader = new IExec({ ethProvider: world.rpc }, options);
  same((await reader.deal.show(dealid)).requester, requester.address, 'requester');
});

end();
