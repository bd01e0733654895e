// The command line, in the two folders of a provider and of a requester: from a wallet to a decrypted result.

import { readFileSync } from 'node:fs';

import JSZip from 'jszip';

import { chains, Folder } from './console.mjs';
import { add, check, end, expect, person, refused, rlc, same, until, world } from './journey.mjs';

const SECRET = 'a secret of the app';
const PLAIN = 'what the command line protects';

const provider = new Folder('provider');
const requester = new Folder('requester');
const selling = person();
const buying = person();

await check('init: a project is begun', async () => {
  await Promise.all([provider, requester].map((folder) => folder.run('init', '--skip-wallet')));
  expect(provider.json('iexec.json').license, 'no iexec.json');
  for (const folder of [provider, requester]) folder.write('chain.json', chains);
});

await check('info: the contracts of the network', async () => {
  const { hubAddress, host } = await provider.run('info');
  same([hubAddress, host], [world.hub, world.rpc]);
});

await check('wallet import', async () => {
  const [{ address }] = await Promise.all([
    provider.iexec('wallet import', selling.key, '--unencrypted'),
    requester.iexec('wallet import', buying.key, '--unencrypted'),
  ]);
  same(address, selling.address);
});

await check('account deposit', async () => {
  const { amount } = await requester.run('account deposit', 50, 'RLC');
  same(amount, rlc(50));
});

const app = await check('app init and deploy', async () => {
  await provider.run('app init');
  provider.change((told) => Object.assign(told.app, { name: 'of the command line', ...world.app }));
  const { address } = await provider.run('app deploy');
  same(provider.json('deployed.json').app[world.chainId], address);
  return address;
});

await check('app push-secret', () => provider.run('app push-secret', '--secret-value', SECRET));

const dataset = await check('dataset init, encrypt and deploy', async () => {
  await provider.run('dataset init', '--encrypted');
  provider.write('datasets/original/data.txt', PLAIN);
  await provider.run('dataset encrypt');
  const encrypted = readFileSync(`${provider.path}/datasets/encrypted/data.txt.enc`);
  const cid = await add(encrypted);
  const checksum = '0x' + Buffer.from(await crypto.subtle.digest('SHA-256', encrypted)).toString('hex');
  provider.change((told) => Object.assign(told.dataset, { name: 'data', multiaddr: `/ipfs/${cid}`, checksum }));
  const { address } = await provider.run('dataset deploy');
  return address;
});

await check('dataset push-secret', () =>
  provider.run('dataset push-secret', '--secret-path', '.secrets/datasets/data.txt.key'));

await check('app publish, and orderbook app', async () => {
  await provider.run('app publish', '--price', 1, 'RLC', '--volume', 5, '--tag', 'tee,tdx', '--force');
  const { count, appOrders } = await requester.run('orderbook app', app, '--require-tag', 'tee,tdx');
  same([count, appOrders[0].price], [1, 1_000_000_000], 'app orders');
});

await check('dataset publish', async () => {
  await provider.run('dataset publish', '--price', 1, 'RLC', '--volume', 5, '--app-restrict', app, '--force');
});

await check('requester push-secret', () =>
  requester.run('requester push-secret', 'login', '--secret-value', 'of the requester'));

await check('result generate-encryption-keypair and push-encryption-key', async () => {
  await requester.run('result generate-encryption-keypair', '--force', '--password', 'word');
  same((await requester.run('result push-encryption-key')).isPushed, true);
});

const run = await check(
  'app run: with data, secrets and an encrypted result, watched to its end',
  async () => {
    const said = await requester.run(
      'app run',
      app,
      ...['--dataset', dataset, '--workerpool', world.workerpool, '--category', world.category],
      ...['--tag', 'tee,tdx', '--args', "one 'two words'", '--secret', '1=login', '--encrypt-result'],
      ...['--watch', '--force'],
    );
    const { deals, tasks, failedTasks } = said;
    same([deals.length, tasks.length, failedTasks], [1, 1, undefined]);
    same([tasks[0].statusName, tasks[0].dealid], ['COMPLETED', deals[0].dealid]);
    return tasks[0];
  },
);

await check('deal show', async () => {
  const { deal } = await requester.run('deal show', run.dealid);
  same([deal.app.pointer, deal.requester], [app, buying.address]);
});

await check('task show: the result, decrypted', async () => {
  const said = await requester.run('task show', run.taskid, '--download', 'result', '--decrypt');
  same(said.task.statusName, 'COMPLETED');
  const zip = await JSZip.loadAsync(readFileSync(said.resultPath));
  const told = JSON.parse(await zip.file('result.json').async('string'));
  same([told.args, told.data], [['one', 'two words'], PLAIN]);
  same(told.secrets.IEXEC_REQUESTER_SECRET_1, 'of the requester');
  same(told.secrets.IEXEC_APP_DEVELOPER_SECRET, SECRET);
});

await check('result decrypt', async () => {
  const encrypted = await (await buying.sdk.task.fetchResults(run.taskid)).arrayBuffer();
  requester.write('encrypted.zip', Buffer.from(encrypted));
  const { resultsPath } = await requester.run('result decrypt', 'encrypted.zip');
  expect((await JSZip.loadAsync(readFileSync(resultsPath))).file('result.json'), 'no result.json');
});

await check('task debug', async () => {
  const { offchainData, onchainData } = await until(async () => {
    const said = await requester.run('task debug', run.taskid);
    return said.offchainData.task.status === 'COMPLETED' && said; // the worker reports after its transaction
  });
  same(onchainData.statusName, 'COMPLETED');
  same(offchainData.replicates.length, 1);
});

await check('what is refused is said with its reason', () =>
  refused(() => requester.iexec('deal show', '0x' + '11'.repeat(32)), 'No deal found'));

end();
