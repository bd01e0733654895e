// The command line's other commands, each at least once.

import { mkdirSync } from 'node:fs';

import { chains, Folder } from './console.mjs';
import { check, end, expect, person, refused, rlc, same, until, world } from './journey.mjs';

const provider = new Folder('provider');
const requester = new Folder('requester');
const selling = person();
const buying = person();

const assets = await check('two projects are begun, with an app and a dataset', async () => {
  await Promise.all([provider, requester].map((folder) => folder.run('init', '--skip-wallet')));
  for (const folder of [provider, requester]) folder.write('chain.json', chains);
  await Promise.all([
    provider.run('wallet import', selling.key, '--unencrypted'),
    requester.run('wallet import', buying.key, '--unencrypted'),
  ]);
  await provider.run('wallet import', selling.key, '--password', 'word', '--keystoredir', './keys');
  const { sdk, address: owner } = selling;
  const app = await sdk.app.deployApp({ owner, name: 'app', type: 'DOCKER', ...world.app });
  const dataset = await sdk.dataset.deployDataset({ owner, name: 'data', multiaddr: 'https://example.org/d', checksum: world.app.checksum });
  const template = await sdk.order.createApporder({ app: app.address, appprice: rlc(1), volume: 5 });
  await sdk.order.publishApporder(await sdk.order.signApporder(template));
  await buying.sdk.account.deposit(rlc(20));
  return { app: app.address, dataset: dataset.address };
});
const { app, dataset } = assets ?? {};

await check('wallet show: open or under a password', async () => {
  const [open, kept] = await Promise.all([
    provider.run('wallet show'),
    provider.run('wallet show', '--password', 'word', '--keystoredir', './keys', '--wallet-address', selling.address),
  ]);
  same([open.wallet.address, open.balance.nRLC], [selling.address, rlc(200)]);
  same(kept.wallet.address, selling.address);
});

await check('wallet create: a new key', async () => {
  mkdirSync(`${provider.path}/other`);
  const { address } = await provider.run('wallet create', '--password', 'word', '--keystoredir', './other');
  expect(/^0x[0-9a-fA-F]{40}$/.test(address), address);
});

await check('wallet send-RLC and send-ether', async () => {
  await provider.run('wallet send-RLC', 2, 'RLC', '--to', buying.address, '--force');
  await provider.run('wallet send-ether', '0.01', '--to', buying.address, '--force');
  same((await requester.run('wallet show')).balance.nRLC, rlc(182));
});

await check('account deposit, withdraw and show', async () => {
  await provider.run('account deposit', 6, 'RLC');
  await provider.run('account withdraw', 1, 'RLC');
  same((await provider.run('account show')).balance, { stake: rlc(5), locked: '0' });
});

await check('check-secret and check-encryption-key, before and after', async () => {
  same((await provider.run('app check-secret', app)).isSecretSet, false);
  await provider.run('app push-secret', app, '--secret-value', 'secret');
  same((await provider.run('app check-secret', app)).isSecretSet, true);
  same((await provider.run('dataset check-secret', dataset)).isSecretSet, false);
  await requester.run('requester push-secret', 'login', '--secret-value', 'of the requester');
  same((await requester.run('requester check-secret', 'login')).isSet, true);
  same((await requester.run('result check-encryption-key')).isEncryptionKeySet, false);
});

await check('app publish and unpublish', async () => {
  const terms = ['--price', 2, 'RLC', '--volume', 5, '--tag', 'tee,tdx', '--force'];
  const { orderHash } = await provider.run('app publish', app, ...terms);
  expect(orderHash, 'no hash');
  await provider.run('app unpublish', app, '--force');
  same((await requester.run('orderbook app', app, '--require-tag', 'tee,tdx')).count, 1, 'left');
});

await check('account approve, allowance and revoke', async () => {
  await requester.run('account approve', 1000, selling.address);
  const { amount } = await requester.run('account allowance', selling.address);
  same(BigInt(`0x${amount}`).toString(), '1000'); // the command's own way to write it
  await requester.run('account revoke', selling.address);
});

await check("category init and create, which only the hub's owner may", async () => {
  await provider.run('category init');
  await refused(() => provider.run('category create'), 'only category owner');
});

await check('category show and count', async () => {
  const [{ category }, { count }] = await Promise.all([provider.run('category show', 0), provider.run('category count')]);
  same(category.name, 'XS');
  expect(Number(count) > world.category, count);
});

await check('app show and count', async () => {
  const [shown, { count }] = await Promise.all([provider.run('app show', app), provider.run('app count')]);
  same([shown.app.appName, shown.app.appChecksum, count], ['app', world.app.checksum, '1']);
});

await check('dataset show and count', async () => {
  const [shown, { count }] = await Promise.all([provider.run('dataset show', dataset), provider.run('dataset count')]);
  same([shown.dataset.datasetName, count], ['data', '1']);
});

const pool = await check('workerpool init, deploy, show and count', async () => {
  await provider.run('workerpool init');
  const { address } = await provider.run('workerpool deploy');
  const [shown, { count }] = await Promise.all([provider.run('workerpool show'), provider.run('workerpool count')]);
  same([shown.address, count], [address, '1']);
  return address;
});

await check('workerpool publish, orderbook workerpool and unpublish', async () => {
  await provider.run('account deposit', 10, 'RLC');
  await provider.run('workerpool publish', '--price', 1, 'RLC', '--volume', 1, '--category', 0, '--tag', 'tee,tdx', '--force');
  same((await requester.run('orderbook workerpool', pool)).count, 1, 'workerpool orders');
  await provider.run('workerpool unpublish', '--force');
});

const idle = await check('app run, by a workerpool that does not work', async () => {
  const terms = ['--price', 1, 'RLC', '--volume', 2, '--category', world.idle, '--tag', 'tee,tdx', '--force'];
  await provider.run('workerpool publish', ...terms);
  const terms_of_mine = ['--workerpool', pool, '--category', world.idle, '--tag', 'tee,tdx', '--force'];
  const deals = [];
  for (const args of ['one', 'two']) {
    deals.push((await requester.run('app run', app, '--args', args, ...terms_of_mine)).deals[0].dealid);
  }
  const contract = (await buying.sdk.config.resolveContractsClient()).getIExecContract();
  await (await contract.initialize(deals[1], 0)).wait();
  return { deals, taskid: await buying.sdk.deal.computeTaskId(deals[1], 0) };
});

await check('dataset push-secret, publish, unpublish and orderbook dataset', async () => {
  provider.write('key', selling.sdk.dataset.generateEncryptionKey());
  await provider.run('dataset push-secret', dataset, '--secret-path', 'key');
  await provider.run('dataset publish', dataset, '--price', 1, 'RLC', '--volume', 5, '--force');
  same((await requester.run('orderbook dataset', dataset)).count, 1, 'dataset orders');
  await provider.run('dataset unpublish', dataset, '--force');
  same((await requester.run('orderbook dataset', dataset)).count, 0, 'left');
});

await check('order init, sign, publish, show, unpublish and cancel', async () => {
  await provider.run('order init', '--app');
  provider.change((told) => Object.assign(told.order.apporder, { app, appprice: '7 RLC', volume: 3 }));
  await provider.run('order sign', '--app', '--force');
  const { apporder } = await provider.run('order publish', '--app', '--force');
  const shown = await requester.run('order show', '--app', apporder.orderHash);
  same([shown.apporder.status, shown.apporder.remaining], ['open', 3]);
  await provider.run('order unpublish', '--app', apporder.orderHash, '--force');
  await provider.run('order cancel', '--app', '--force');
});

await check('storage init and check', async () => {
  const said = await requester.run('storage check', 'dropbox');
  same(said.isInitialized, false);
  await requester.run('storage init', 'dropbox', '--token', 'token');
  same((await requester.run('storage check', 'dropbox')).isInitialized, true);
});

await check('app request-execution: an order at a price', async () => {
  const said = await requester.run(
    'app request-execution',
    app,
    ...['--app-price', 1, 'RLC', '--workerpool-price', 1, '--category', world.category],
    ...['--tag', 'tee,tdx', '--args', 'x', '--force'],
  );
  expect(/^0x[0-9a-f]{64}$/.test(said.orderHash), JSON.stringify(said));
});

await check('orderbook requester', async () => {
  const { count } = await provider.run('orderbook requester', buying.address, '--category', world.category);
  expect(count >= 1, count);
});

await check('order fill: orders from the marketplace', async () => {
  const [{ appOrders }, { workerpoolOrders }] = await Promise.all([
    requester.run('orderbook app', app),
    requester.run('orderbook workerpool', world.workerpool, '--category', world.category),
  ]);
  await requester.run('order init', '--request');
  requester.change((told) =>
    Object.assign(told.order.requestorder, {
      app,
      appmaxprice: '1 RLC',
      workerpoolmaxprice: '5 RLC',
      category: world.category,
      params: { iexec_args: 'filled' },
    }),
  );
  await requester.run('order sign', '--request', '--force');
  const { dealid, volume } = await requester.run(
    'order fill',
    ...['--app', appOrders[0].orderHash, '--workerpool', workerpoolOrders[0].orderHash, '--force'],
  );
  same([dealid.length, volume], [66, '1']);
});

await check('app, dataset and workerpool transfer', async () => {
  const to = ['--to', buying.address, '--force'];
  await provider.run('app transfer', app, ...to);
  await provider.run('dataset transfer', dataset, ...to);
  await provider.run('workerpool transfer', pool, ...to);
  for (const kind of ['app', 'dataset', 'workerpool']) same((await requester.run(`${kind} count`)).count, '1', kind);
});

await check('deal claim and task claim', async () => {
  const { deals, taskid } = idle;
  await until(async () => (await buying.sdk.task.show(taskid)).taskTimedOut);
  same(Object.keys((await requester.run('deal claim', deals[0])).claimed).length, 1, 'claimed');
  await requester.run('task claim', taskid);
  same((await requester.run('task show', taskid)).task.statusName, 'FAILED');
});

await check('wallet sweep', async () => {
  await provider.run('wallet sweep', '--to', buying.address, '--force');
  same((await provider.run('wallet show')).balance.nRLC, '0');
});

end();
