// Apps, datasets and workerpools in their registries.

import { check, end, expect, person, refused, same, world } from './journey.mjs';

const one = person();
const other = person();
const { sdk } = one;

const CHECKSUM = '0x' + '5a'.repeat(32);

const apps = { owner: one.address, name: 'app', type: 'DOCKER', multiaddr: 'registry.example/app:1.0.0', checksum: CHECKSUM };

const kinds = {
  app: {
    Kind: 'App',
    module: sdk.app,
    facts: apps,
    shown: { appName: 'app', appType: 'DOCKER', appMultiaddr: 'registry.example/app:1.0.0', appChecksum: CHECKSUM, appMREnclave: '' },
    other: other.sdk.app,
  },
  dataset: {
    Kind: 'Dataset',
    module: sdk.dataset,
    facts: { owner: one.address, name: 'data', multiaddr: '/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn', checksum: CHECKSUM },
    shown: { datasetName: 'data', datasetMultiaddr: '/p2p/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn', datasetChecksum: CHECKSUM },
    other: other.sdk.dataset,
  },
  workerpool: {
    Kind: 'Workerpool',
    module: sdk.workerpool,
    facts: { owner: one.address, description: 'a pool' },
    shown: { workerpoolDescription: 'a pool' },
    other: other.sdk.workerpool,
  },
};

const addresses = {};

async function predict(kind) {
  const { module, Kind, facts } = kinds[kind];
  addresses[kind] = await module[`predict${Kind}Address`](facts);
  same(await module[`checkDeployed${Kind}`](addresses[kind]), false, 'deployed before');
}
async function deploy(kind) {
  const { module, Kind, facts } = kinds[kind];
  const { address, txHash } = await module[`deploy${Kind}`](facts);
  same([address, txHash.length], [addresses[kind], 66]);
  same(await module[`checkDeployed${Kind}`](address), true, 'deployed');
}
async function again(kind) {
  const { module, Kind, facts } = kinds[kind];
  await refused(() => module[`deploy${Kind}`](facts), 'already deployed');
}
async function show(kind) {
  const { module, Kind, shown } = kinds[kind];
  const found = await module[`show${Kind}`](addresses[kind]);
  same(found.objAddress, addresses[kind], 'address');
  const told = found[kind];
  same(told.owner, one.address, 'owner');
  for (const [name, value] of Object.entries(shown)) same(told[name], value, name);
}
async function list(kind) {
  const { module, Kind } = kinds[kind];
  same(String(await module[`countUser${Kind}s`](one.address)), '1', 'count');
  same((await module[`showUser${Kind}`](0, one.address)).objAddress, addresses[kind], 'address');
}
async function transfer(kind) {
  const { module, Kind, other: theirs } = kinds[kind];
  await module[`transfer${Kind}`](addresses[kind], other.address);
  same(String(await module[`countUser${Kind}s`](one.address)), '0', 'count of the giver');
  same(String(await theirs[`countUser${Kind}s`](other.address)), '1', 'count of the taker');
  await refused(() => module[`transfer${Kind}`](addresses[kind], other.address), 'Only');
}

await check("an app's address is predicted", () => predict('app'));
await check('the app is deployed there', () => deploy('app'));
await check('the same app is not deployed twice', () => again('app'));
await check('the app is shown', () => show('app'));
await check("the app is among its owner's", () => list('app'));
await check('the app is transferred, by its owner alone', () => transfer('app'));

await check("a dataset's address is predicted", () => predict('dataset'));
await check('the dataset is deployed there', () => deploy('dataset'));
await check('the same dataset is not deployed twice', () => again('dataset'));
await check('the dataset is shown', () => show('dataset'));
await check("the dataset is among its owner's", () => list('dataset'));
await check('the dataset is transferred, by its owner alone', () => transfer('dataset'));

await check("a workerpool's address is predicted", () => predict('workerpool'));
await check('the workerpool is deployed there', () => deploy('workerpool'));
await check('the same workerpool is not deployed twice', () => again('workerpool'));
await check('the workerpool is shown', () => show('workerpool'));
await check("the workerpool is among its owner's", () => list('workerpool'));
await check('the workerpool is transferred, by its owner alone', () => transfer('workerpool'));

await check('the API of the workerpool of this network is found', async () => {
  same(await sdk.workerpool.getWorkerpoolApiUrl(world.workerpool), world.compass);
});

await check('a workerpool without a scheduler has none', async () => {
  const url = await sdk.workerpool.getWorkerpoolApiUrl(addresses.workerpool);
  expect(url === undefined, `got ${url}`);
});

await check('what is not there is not shown', () => refused(() => sdk.app.showApp(one.address), 'No app found'));

end();
