// For the benchmark: the same deal again and again, from the orders of the book to the decrypted result.

import JSZip from 'jszip';

import { check, end, observed, person, rlc, same, until, utils, world } from './journey.mjs';

const { sdk, address } = person();
const { order, orderbook, task } = sdk;

const prepared = await check('prepare', async () => {
  const { address: app } = await sdk.app.deployApp({ owner: address, name: 'echo', type: 'DOCKER', ...world.app });
  await order.publishApporder(await order.signApporder(await order.createApporder({ app, volume: 100 })));
  await sdk.account.deposit(rlc(100));
  const kind = { name: 'RSA-OAEP', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' };
  const pair = await crypto.subtle.generateKey(kind, true, ['encrypt', 'decrypt']);
  const pem = async (form, key, name) => {
    const text = Buffer.from(await crypto.subtle.exportKey(form, key)).toString('base64').match(/.{1,64}/g);
    return [`-----BEGIN ${name} KEY-----`, ...text, `-----END ${name} KEY-----`].join('\n');
  };
  await sdk.result.pushResultEncryptionKey(await pem('spki', pair.publicKey, 'PUBLIC'));
  return { app, key: await pem('pkcs8', pair.privateKey, 'PRIVATE') };
});

async function deal(wait) {
  const { app, key } = prepared;
  const { workerpool } = world;
  const [apps, pools] = await Promise.all([
    orderbook.fetchAppOrderbook({ app }),
    orderbook.fetchWorkerpoolOrderbook({ workerpool, category: world.category, minTag: ['tee', 'tdx'] }),
  ]);
  const [apporder, workerpoolorder] = [apps.orders[0].order, pools.orders[0].order];
  const template = await order.createRequestorder({
    app,
    workerpoolmaxprice: workerpoolorder.workerpoolprice,
    category: world.category,
    params: { iexec_args: 'x', iexec_result_encryption: true },
  });
  const requestorder = await order.signRequestorder(template);
  const { dealid } = await order.matchOrders({ apporder, workerpoolorder, requestorder });
  const taskid = await sdk.deal.computeTaskId(dealid, 0);
  await wait(taskid, dealid);
  const response = await task.fetchResults(taskid);
  const zip = await JSZip.loadAsync(await utils.decryptResult(await response.arrayBuffer(), key));
  same(JSON.parse(await zip.file('result.json').async('string')).args, ['x']);
}

const asking = (taskid) =>
  until(async () => (await task.show(taskid).catch(() => ({}))).statusName === 'COMPLETED', { every: 0.05 });
const observing = async (taskid, dealid) => observed(await task.obsTask(taskid, { dealid }));

await check('warm up', () => deal(asking));
for (let n = 1; n <= world.deals; n++) await check(`deal ${n}`, () => deal(asking));
for (let n = 1; n <= world.deals; n++) await check(`observed deal ${n}`, () => deal(observing));

end();
