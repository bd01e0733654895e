// What people do most, in as few lines as the SDK allows: tests/compat/shortest.py does the same with ours.

import { generateKeyPairSync } from 'node:crypto';
import JSZip from 'jszip';

import { add, check, end, observed, person, rlc, same, utils, world } from './journey.mjs';

const PEM = {
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
};

async function money({ sdk, address }, other) {
  await sdk.wallet.sendRLC(rlc(5), other);
  await sdk.wallet.sendETH(utils.parseEth('0.01'), other);
  await sdk.account.deposit(rlc(3));
  await sdk.account.approve(rlc(1), other);
  await sdk.account.withdraw(rlc(1));
  return String((await sdk.account.checkBalance(address)).stake);
}

async function offer({ sdk, address: owner }) {
  const { address: app } = await sdk.app.deployApp({ owner, name: 'echo', type: 'DOCKER', ...world.app });
  const template = await sdk.order.createApporder({ app, volume: 1000 });
  await sdk.order.publishApporder(await sdk.order.signApporder(template));
  return app;
}

async function secrets({ sdk }, app) {
  await sdk.app.pushAppSecret(app, 'for every run');
  await sdk.secrets.pushRequesterSecret('login', 'for my runs');
  await sdk.secrets.pushRequesterSecret('password', 'for them too');
}

async function protect({ sdk, address: owner }, plain, app) {
  const key = sdk.dataset.generateEncryptionKey();
  const encrypted = await sdk.dataset.encrypt(plain, key);
  const checksum = await sdk.dataset.computeEncryptedFileChecksum(encrypted);
  const multiaddr = `/ipfs/${await add(encrypted)}`;
  const { address: dataset } = await sdk.dataset.deployDataset({ owner, name: 'data', multiaddr, checksum });
  await sdk.dataset.pushDatasetSecret(dataset, key);
  const terms = { dataset, volume: utils.DATASET_INFINITE_VOLUME, apprestrict: app };
  const template = await sdk.order.createDatasetorder(terms);
  await sdk.order.publishDatasetorder(await sdk.order.signDatasetorder(template));
  return dataset;
}

async function run({ sdk }, app, dataset) {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048, ...PEM });
  await sdk.result.pushResultEncryptionKey(publicKey);
  const [{ order: apporder }] = (await sdk.orderbook.fetchAppOrderbook({ app })).orders;
  const [{ order: datasetorder }] = (await sdk.orderbook.fetchDatasetOrderbook({ dataset, app })).orders;
  const offers = await sdk.orderbook.fetchWorkerpoolOrderbook({ category: 0, minTag: ['tee', 'tdx'] });
  const [{ order: workerpoolorder }] = offers.orders;
  const workerpoolmaxprice = workerpoolorder.workerpoolprice;
  const params = { iexec_result_encryption: true };
  const template = await sdk.order.createRequestorder({ app, dataset, workerpoolmaxprice, category: 0, params });
  const requestorder = await sdk.order.signRequestorder(template);
  const { dealid } = await sdk.order.matchOrders({ apporder, datasetorder, workerpoolorder, requestorder });
  const taskid = await sdk.deal.computeTaskId(dealid, 0);
  await observed(await sdk.task.obsTask(taskid, { dealid }));
  const response = await sdk.task.fetchResults(taskid);
  const zip = await JSZip.loadAsync(await utils.decryptResult(await response.arrayBuffer(), privateKey));
  return JSON.parse(await zip.file('result.json').async('string')).data;
}

async function bulk({ sdk }, app, datasets) {
  const orders = [];
  for (const dataset of datasets) {
    orders.push((await sdk.orderbook.fetchDatasetOrderbook({ dataset, app, bulkOnly: true })).orders[0].order);
  }
  const { cid, volume } = await sdk.order.prepareDatasetBulk(orders, { maxDatasetPerTask: 1 });
  const [{ order: apporder }] = (await sdk.orderbook.fetchAppOrderbook({ app })).orders;
  const offers = await sdk.orderbook.fetchWorkerpoolOrderbook({ category: 0, minTag: ['tee', 'tdx'] });
  const [{ order: workerpoolorder }] = offers.orders;
  const workerpoolmaxprice = workerpoolorder.workerpoolprice;
  const params = { bulk_cid: cid };
  const template = await sdk.order.createRequestorder({ app, workerpoolmaxprice, category: 0, volume, params });
  const requestorder = await sdk.order.signRequestorder(template);
  const { dealid } = await sdk.order.matchOrders({ apporder, workerpoolorder, requestorder });
  const found = [];
  for (let n = 0; n < volume; n++) {
    const taskid = await sdk.deal.computeTaskId(dealid, n);
    await observed(await sdk.task.obsTask(taskid, { dealid }));
    const zip = await JSZip.loadAsync(await (await sdk.task.fetchResults(taskid)).arrayBuffer());
    found.push(JSON.parse(await zip.file('result.json').async('string')).bulk[0]);
  }
  return found;
}

const [developer, owner, requester] = [person(), person(), person()];
await check('money is moved', async () => same(await money(developer, requester.address), rlc(2)));
const app = await check('an app is offered', () => offer(developer));
await check('secrets are kept', () => secrets(developer, app));
const data = await check('data are protected', async () => [
  await protect(owner, Buffer.from('one'), app),
  await protect(owner, Buffer.from('two'), app),
]);
await requester.sdk.account.deposit(rlc(50));
await check('an app is run on data', async () => same(await run(requester, app, data[0]), 'one'));
await check('an app is run on a bulk', async () => same(await bulk(requester, app, data), ['one', 'two']));
end();
