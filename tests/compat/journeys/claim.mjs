// A task that nobody works on: the requester gets its money back.

import { check, end, expect, observed, person, refused, rlc, same, until, utils, world } from './journey.mjs';

const owner = person();
const requester = person();
const sponsor = person();
const { sdk } = requester;
const CHECKSUM = '0x' + '5a'.repeat(32);

const catid = world.idle; // of one second

const hub = async ({ sdk }) => (await sdk.config.resolveContractsClient()).getIExecContract();

const offers = {};

const deals = await check('two deals are made with a workerpool that does not work', async () => {
  const { sdk: seller } = owner;
  const app = await seller.app.deployApp({ owner: owner.address, name: 'app', type: 'DOCKER', multiaddr: 'registry.example/a:1', checksum: CHECKSUM });
  const pool = await seller.workerpool.deployWorkerpool({ owner: owner.address, description: 'idle' });
  await seller.account.deposit(rlc(10));
  await sdk.account.deposit(rlc(10));
  const apporder = await seller.order.signApporder(await seller.order.createApporder({ app: app.address, volume: 9 }));
  const workerpoolorder = await seller.order.signWorkerpoolorder(
    await seller.order.createWorkerpoolorder({ workerpool: pool.address, workerpoolprice: rlc(1), category: catid, volume: 9 }),
  );
  Object.assign(offers, { app, pool, apporder, workerpoolorder });
  const made = [];
  for (const volume of [1, 2]) {
    const template = await sdk.order.createRequestorder({ app: app.address, workerpoolmaxprice: rlc(1), category: catid, volume });
    const requestorder = await sdk.order.signRequestorder(template);
    made.push((await sdk.order.matchOrders({ apporder, workerpoolorder, requestorder })).dealid);
  }
  return made;
});

// The SDK sponsors nothing, but has the contract's interface, and shows what became of it.
const sponsored = await check('a deal that somebody else pays for is shown like any other', async () => {
  const { app, apporder, workerpoolorder } = offers;
  const signed = await sdk.order.signRequestorder(
    await sdk.order.createRequestorder({ app: app.address, workerpoolmaxprice: rlc(1), category: catid, volume: 1 }),
  );
  await sponsor.sdk.account.deposit(rlc(2));
  const none = await sdk.order.createDatasetorder({ dataset: utils.NULL_ADDRESS });
  const contract = await hub(sponsor);
  const unsigned = { ...none, salt: utils.NULL_BYTES32, sign: '0x' };
  const sent = await contract.sponsorMatchOrders(apporder, unsigned, workerpoolorder, signed);
  await sent.wait();
  const { stake, locked } = await sponsor.sdk.account.checkBalance(sponsor.address);
  same([String(stake), String(locked)], [rlc(1), rlc(1)], 'of the sponsor');
  const { deals: found } = await sdk.deal.fetchDealsByRequestorder(await sdk.order.hashRequestorder(signed));
  const [{ dealid }] = found;
  same((await sdk.deal.show(dealid)).requester, requester.address, 'requester');
  await (await contract.initialize(dealid, 0)).wait();
  return dealid;
});

await check('a task is not claimed before its time', async () => {
  // Of a deal that has minutes, and costs nothing: the others' seconds may be over.
  const { app, pool, apporder } = offers;
  const template = await owner.sdk.order.createWorkerpoolorder({ workerpool: pool.address, category: 0 });
  const workerpoolorder = await owner.sdk.order.signWorkerpoolorder(template);
  const requestorder = await sdk.order.signRequestorder(await sdk.order.createRequestorder({ app: app.address, category: 0 }));
  const { dealid } = await sdk.order.matchOrders({ apporder, workerpoolorder, requestorder });
  const taskid = await sdk.deal.computeTaskId(dealid, 0);
  await refused(() => sdk.task.claim(taskid), taskid);
  await refused(() => sdk.deal.claim(dealid), 'before reaching the final time');
});

await check('its observer says that it has timed out', async () => {
  const heard = await observed(await sdk.deal.obsDeal(deals[0]));
  same(heard.at(-1).message, 'DEAL_TIMEDOUT');
});

await check('the deals are claimed', async () => {
  for (const [dealid, tasks] of [[deals[0], 1], [deals[1], 2]]) {
    await until(async () => (await sdk.deal.show(dealid)).deadlineReached); // one was made after the other
    const { claimed } = await sdk.deal.claim(dealid);
    same(Object.keys(claimed).length, tasks, 'claimed');
  }
});

await check('a task of the sponsored deal is claimed, and its sponsor has its money again', async () => {
  const taskid = await sdk.deal.computeTaskId(sponsored, 0);
  await until(async () => (await sdk.task.show(taskid)).taskTimedOut);
  same((await sdk.task.claim(taskid)).length, 66, 'transaction');
  const { stake, locked } = await sponsor.sdk.account.checkBalance(sponsor.address);
  same([String(stake), String(locked)], [rlc(2), '0']);
});

await check('their tasks are shown as failed', async () => {
  const task = await sdk.task.show(await sdk.deal.computeTaskId(deals[1], 1));
  same([task.statusName, task.taskTimedOut], ['FAILED', true]);
});

await check('the requester has its money again', async () => {
  const { stake, locked } = await sdk.account.checkBalance(requester.address);
  same([String(stake), String(locked)], [rlc(10), '0']);
});

await check('a task is not claimed twice', async () => {
  const taskid = await sdk.deal.computeTaskId(deals[0], 0);
  await refused(() => sdk.task.claim(taskid), 'FAILED');
});

end();
