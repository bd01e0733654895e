// DataProtector: data are protected, found, granted, processed, in bulk too, and given away.

import { IExecDataProtectorCore } from '@iexec/dataprotector';
import JSZip from 'jszip';

import { check, end, expect, options, person, refused, rlc, same, until, watched, world } from './journey.mjs';

console.error = () => {}; // it prints what it also throws

const owner = person();
const requester = person();
const other = person();

const core = ({ wallet }) =>
  watched(
    'protector',
    new IExecDataProtectorCore(wallet, {
      dataprotectorContractAddress: world.dataprotector,
      subgraphUrl: world.subgraph,
      ipfsNode: world.node,
      ipfsGateway: world.gateway,
      iexecOptions: options,
    }),
  );
const protector = core(owner);
const buyer = core(requester);

const DATA = { email: 'owner@example.org', age: 42, adult: true, count: 7n, nested: { note: 'a note' } };
const SCHEMA = { email: 'string', age: 'f64', adult: 'bool', count: 'i128', nested: { note: 'string' } };

const app = await check('an app is offered', async () => {
  const { sdk, address } = other;
  const { address: app } = await sdk.app.deployApp({ owner: address, name: 'processor', type: 'DOCKER', ...world.app });
  const template = await sdk.order.createApporder({ app, volume: 1000 });
  await sdk.order.publishApporder(await sdk.order.signApporder(template));
  await requester.sdk.account.deposit(rlc(60));
  return app;
});

const data = await check('protectData', async () => {
  const titles = [];
  const made = await protector.protectData({
    name: 'contact',
    data: DATA,
    onStatusUpdate: ({ title, isDone }) => isDone && titles.push(title),
  });
  same(made.schema, SCHEMA, 'schema');
  same([made.owner, made.name, titles.at(-1)], [owner.address, 'contact', 'PUSH_SECRET_TO_SMS']);
  expect(made.multiaddr.startsWith('/p2p/Qm'), made.multiaddr);
  return made;
});

await check('its checksum and address are on chain', async () => {
  const { dataset } = await owner.sdk.dataset.showDataset(data.address);
  same([dataset.datasetName, dataset.owner, dataset.datasetMultiaddr], ['contact', owner.address, data.multiaddr]);
});

const found = async (asked) => (await protector.getProtectedData(asked)).map((one) => one.address.toLowerCase());

await check('getProtectedData by address', async () => {
  const [one, ...rest] = await protector.getProtectedData({ protectedDataAddress: data.address });
  same(rest, []);
  same([one.name, one.owner.toLowerCase(), one.schema], ['contact', owner.address.toLowerCase(), SCHEMA]);
  same([one.multiaddr, one.creationTimestamp], [data.multiaddr, data.creationTimestamp]);
});

await check('getProtectedData by owner', async () => {
  same(await found({ owner: owner.address }), [data.address.toLowerCase()]);
  same(await found({ owner: requester.address }), [], 'of another');
});

await check('getProtectedData by schema', async () => {
  const at = { owner: owner.address };
  const mine = [data.address.toLowerCase()];
  same(await found({ ...at, requiredSchema: { email: 'string' } }), mine, 'one member');
  same(await found({ ...at, requiredSchema: { email: 'string', nested: { note: 'string' } } }), mine, 'two members');
  same(await found({ ...at, requiredSchema: { email: ['bool', 'string'] } }), mine, 'one of two types');
  same(await found({ ...at, requiredSchema: { email: 'bool' } }), [], 'another type');
  same(await found({ ...at, requiredSchema: { picture: 'image/png' } }), [], 'another member');
});

await check('getProtectedData by time, page by page', async () => {
  const at = { owner: owner.address, pageSize: 10 };
  same(await found({ ...at, createdAfterTimestamp: data.creationTimestamp }), [data.address.toLowerCase()], 'since');
  same(await found({ ...at, createdAfterTimestamp: data.creationTimestamp + 1000 }), [], 'later');
  same(await found({ ...at, page: 1 }), [], 'the second page');
});

await check('grantAccess', async () => {
  const access = await protector.grantAccess({
    protectedData: data.address,
    authorizedApp: app,
    authorizedUser: requester.address,
    pricePerAccess: 1_000_000_000,
    numberOfAccess: 10,
  });
  const { apprestrict, requesterrestrict, volume } = access; // DataProtector writes addresses in small letters
  same([apprestrict, requesterrestrict, volume], [app.toLowerCase(), requester.address.toLowerCase(), '10']);
});

await check('the same access is not granted twice', () =>
  refused(
    () => protector.grantAccess({ protectedData: data.address, authorizedApp: app, authorizedUser: requester.address }),
    'already granted',
  ));

await check('access is not granted to what is no app', () =>
  refused(
    () => protector.grantAccess({ protectedData: data.address, authorizedApp: owner.address, authorizedUser: owner.address }),
    'Invalid authorized app',
  ));

const granted = (asked = {}) => protector.getGrantedAccess({ protectedData: data.address, ...asked });

await check('getGrantedAccess by data, app and user', async () => {
  same((await granted()).count, 1, 'all');
  same((await granted({ authorizedApp: app, authorizedUser: requester.address })).count, 1, 'of the user');
  same((await granted({ authorizedApp: app, authorizedUser: owner.address })).count, 0, 'of another');
  same((await granted({ bulkOnly: true })).count, 0, 'in bulk');
});

const told = async (result, ...parts) => {
  const zip = parts.length ? undefined : await JSZip.loadAsync(result);
  return JSON.parse(zip ? await zip.file('result.json').async('string') : Buffer.from(result).toString());
};

const processed = await check(
  'processProtectedData',
  async () => {
    const made = await buyer.processProtectedData({
      protectedData: data.address,
      app,
      workerpool: world.workerpool,
      dataMaxPrice: 1_000_000_000,
      workerpoolMaxPrice: 5_000_000_000,
      args: 'one two',
      secrets: { 1: 'of the requester' },
      path: 'result.json',
    });
    const { args, secrets, data: seen } = await told(made.result, 'path');
    same([args, secrets.IEXEC_REQUESTER_SECRET_1], [['one', 'two'], 'of the requester']);
    expect(seen.startsWith('PK'), 'the app did not get a zip archive');
    return made;
  },
  { seconds: 90 },
);

await check('waitForTaskCompletion', async () => {
  const { dealId, taskId } = processed;
  same(await buyer.waitForTaskCompletion({ dealId, taskId }), { status: 'COMPLETED', success: true });
});

await check('getResultFromCompletedTask: the whole archive', async () => {
  const { result } = await buyer.getResultFromCompletedTask({ taskId: processed.taskId });
  same((await told(result)).args, ['one', 'two']);
});

await check(
  'processProtectedData with an encrypted result',
  async () => {
    const { result, pemPrivateKey, taskId } = await buyer.processProtectedData({
      protectedData: data.address,
      app,
      workerpool: world.workerpool,
      dataMaxPrice: 1_000_000_000,
      workerpoolMaxPrice: 5_000_000_000,
      args: 'sealed',
      encryptResult: true,
    });
    same((await told(result)).args, ['sealed']);
    const again = await buyer.getResultFromCompletedTask({ taskId, pemPrivateKey, path: 'result.json' });
    same((await told(again.result, 'path')).args, ['sealed'], 'with the key, again');
  },
  { seconds: 120 },
);

await check('nobody without access processes it', () =>
  refused(
    () =>
      core(owner).processProtectedData({
        protectedData: data.address,
        app,
        workerpool: world.workerpool,
        workerpoolMaxPrice: 5_000_000_000,
      }),
    'No Dataset order found',
  ));

await check('revokeOneAccess', async () => {
  const { grantedAccess } = await granted();
  const { txHash } = await protector.revokeOneAccess(grantedAccess[0]);
  same(txHash.length, 66);
  same((await granted()).count, 0, 'left');
});

await check('revokeAllAccess', async () => {
  for (const authorizedUser of [requester.address, other.address]) {
    await protector.grantAccess({ protectedData: data.address, authorizedApp: app, authorizedUser });
  }
  same((await granted({ authorizedUser: 'any' }).catch(() => granted())).count, 2, 'before');
  same((await protector.revokeAllAccess({ protectedData: data.address })).length, 2, 'revoked');
  same((await granted()).count, 0, 'left');
});

const bulk = await check('data are granted in bulk', async () => {
  const made = [];
  for (const n of [1, 2, 3]) {
    const { address } = await protector.protectData({ name: `bulk ${n}`, data: { text: `text ${n}` } });
    await protector.grantAccess({ protectedData: address, authorizedApp: app, authorizedUser: requester.address, allowBulk: true });
    made.push(address);
  }
  const accesses = [];
  for (const protectedData of made) {
    const { grantedAccess } = await buyer.getGrantedAccess({
      protectedData,
      authorizedApp: app,
      authorizedUser: requester.address,
      bulkOnly: true,
    });
    same(grantedAccess.length, 1, protectedData);
    accesses.push(...grantedAccess);
  }
  return { made, accesses };
});

const prepared = await check('prepareBulkRequest', async () => {
  const { bulkRequest } = await buyer.prepareBulkRequest({
    bulkAccesses: bulk.accesses,
    app,
    workerpool: world.workerpool,
    workerpoolMaxPrice: 5_000_000_000,
    maxProtectedDataPerTask: 2,
    args: 'bulk',
  });
  same(Number(bulkRequest.volume), 2, 'slices');
  return bulkRequest;
});

await check('inspectBulkRequest before', async () => {
  const { bulkStatus, tasksToCreateCount, tasksTotalCount } = await buyer.inspectBulkRequest({ bulkRequest: prepared });
  same([bulkStatus, tasksToCreateCount, tasksTotalCount], ['INITIALIZING', 2, 2]);
});

await check(
  'processBulkRequest',
  async () => {
    const { tasks } = await buyer.processBulkRequest({
      bulkRequest: prepared,
      workerpool: world.workerpool,
      waitForResult: true,
      path: 'result.json',
    });
    same(tasks.map((task) => [task.bulkIndex, task.status, task.success]), [[0, 'COMPLETED', true], [1, 'COMPLETED', true]]);
    const seen = [];
    for (const task of tasks) seen.push(...(await told(task.result, 'path')).bulk);
    expect(seen.length === 3 && seen.every((one) => one?.startsWith('PK')), JSON.stringify(seen));
  },
  { seconds: 150 },
);

await check('inspectBulkRequest after, in detail', async () => {
  const { bulkStatus, tasksCompletedCount, tasks } = await until(async () => {
    const said = await buyer.inspectBulkRequest({ bulkRequest: prepared, detailed: true, withResult: true, path: 'result.json' });
    return said.bulkStatus === 'FINISHED' && said;
  });
  same([bulkStatus, tasksCompletedCount], ['FINISHED', 2]);
  same(
    tasks.flatMap((task) => task.protectedDataAddresses.map((one) => one.toLowerCase())).toSorted(),
    bulk.made.map((one) => one.toLowerCase()).toSorted(),
    'data of the tasks',
  );
});

await check('transferOwnership', async () => {
  await protector.transferOwnership({ protectedData: data.address, newOwner: other.address });
  same(await found({ owner: other.address }), [data.address.toLowerCase()], 'of the new owner');
});

end();
