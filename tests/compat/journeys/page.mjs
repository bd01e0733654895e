// A web application: the SDK, bundled for browsers, in a page of another origin than the services', with a wallet
// as pages get one (EIP-1193). `browser.mjs` serves it to a browser.

import * as ethers from 'ethers';
import { IExec } from 'iexec';
import JSZip from 'jszip';
import { create } from 'kubo-rpc-client';

import { addresses, check, expect, refused, rlc, same, sayTo, until } from './steps.mjs';

const world = await (await fetch('/world.json')).json();
const tell = (lines) => fetch('/told', { method: 'POST', body: JSON.stringify(lines) });
const said = [];
sayTo((line) => said.push(line));

/** What a browser's wallet puts into the page: it signs, and asks a node for all else. */
function inPage(key) {
  const node = new ethers.JsonRpcProvider(world.rpc, undefined, { pollingInterval: 100, cacheTimeout: -1 });
  const wallet = new ethers.Wallet(key, node);
  return {
    address: wallet.address,
    async request({ method, params = [] }) {
      switch (method) {
        case 'eth_requestAccounts':
        case 'eth_accounts':
          return [wallet.address.toLowerCase()];
        case 'personal_sign':
          return wallet.signMessage(ethers.getBytes(params[0]));
        case 'eth_signTypedData_v4': {
          const { domain, types, message } = JSON.parse(params[1]);
          delete types.EIP712Domain;
          return wallet.signTypedData(domain, types, message);
        }
        case 'eth_sendTransaction': {
          const { from, gas, ...sent } = params[0];
          expect(ethers.getAddress(from) === wallet.address, `from ${from}`);
          return (await wallet.sendTransaction({ ...sent, gasLimit: gas })).hash;
        }
        default:
          return node.send(method, params);
      }
    },
  };
}

const wallet = inPage(world.purses.pop());
const sdk = new IExec({ ethProvider: wallet }, addresses(world));
const { order, orderbook } = sdk;

await check('a page of another origin knows the wallet and the network', async () => {
  expect(location.origin !== new URL(world.market).origin, location.origin);
  same(await sdk.wallet.getAddress(), wallet.address);
  same(String((await sdk.network.getNetwork()).chainId), String(world.chainId));
});

await check('the wallet sends transactions: a deposit', async () => {
  await sdk.account.deposit(rlc(20));
  same(String((await sdk.account.checkBalance(wallet.address)).stake), rlc(20));
});

const app = await check('the page keeps a secret, and publishes an offer of an app', async () => {
  const { address } = await sdk.app.deployApp({ owner: wallet.address, name: 'in a page', type: 'DOCKER', ...world.app });
  await sdk.app.pushAppSecret(address, 'of a page');
  await order.publishApporder(await order.signApporder(await order.createApporder({ app: address, volume: 2 })));
  return address;
});

const file = await check('it adds a file to the IPFS node, and reads it from the gateway', async () => {
  const { cid } = await create({ url: world.node }).add(new TextEncoder().encode('from a page'));
  same(await (await fetch(`${world.gateway}/ipfs/${cid}`, { headers: { Range: 'bytes=0-3' } })).text(), 'from');
  return `${world.gateway}/ipfs/${cid}`;
});

const taskid = await check('it reads the order book, and buys a run', async () => {
  const { workerpool, category } = world;
  const [apps, pools] = await Promise.all([
    orderbook.fetchAppOrderbook({ app }),
    orderbook.fetchWorkerpoolOrderbook({ workerpool, category, minTag: ['tee', 'tdx'] }),
  ]);
  const [{ order: apporder }, { order: workerpoolorder }] = [apps.orders[0], pools.orders[0]];
  const params = { iexec_args: 'in a page', iexec_input_files: [file] };
  const template = { app, category, params, workerpoolmaxprice: workerpoolorder.workerpoolprice };
  const requestorder = await order.signRequestorder(await order.createRequestorder(template));
  const { dealid } = await order.matchOrders({ apporder, workerpoolorder, requestorder });
  return sdk.deal.computeTaskId(dealid, 0);
});

await check('it fetches the result', async () => {
  const done = async () => (await sdk.task.show(taskid).catch(() => ({}))).statusName === 'COMPLETED';
  await until(done, { seconds: 120 });
  const zip = await JSZip.loadAsync(await (await sdk.task.fetchResults(taskid)).arrayBuffer());
  const { inputs, secrets } = JSON.parse(await zip.file('result.json').async('string'));
  same([inputs, secrets.IEXEC_APP_DEVELOPER_SECRET], [['from a page'], 'of a page']);
});

await check('it reads how the task went, and its logs', async () => {
  await until(async () => (await sdk.task.fetchOffchainInfo(taskid)).task.status === 'COMPLETED');
  const [log] = await until(() => sdk.task.fetchLogs(taskid).catch(() => undefined));
  expect(log.stdout.includes('hello from the app'), JSON.stringify(log));
});

await check('what is refused is told with its reason', () =>
  refused(() => orderbook.fetchApporder('0x' + '11'.repeat(32)), 'not found'));

await check('it asks the graph', async () => {
  const body = JSON.stringify({ query: '{ apps(first: 1) { id } }' });
  const headers = { 'Content-Type': 'application/json' };
  const { data } = await (await fetch(world.pocoSubgraph, { method: 'POST', headers, body })).json();
  same(data.apps.length, 1);
});

await tell(said);
