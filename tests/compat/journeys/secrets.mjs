// Everything that the SDK keeps in a secret management service; nothing can be read from there.

import { check, end, expect, person, refused, same, world } from './journey.mjs';

const one = person();
const other = person();
const { sdk } = one;
const CHECKSUM = '0x' + '5a'.repeat(32);

const assets = await check('an app and a dataset are deployed', async () => {
  const app = await sdk.app.deployApp({ owner: one.address, name: 'app', type: 'DOCKER', multiaddr: 'registry.example/a:1', checksum: CHECKSUM });
  const dataset = await sdk.dataset.deployDataset({ owner: one.address, name: 'd', multiaddr: 'https://example.org/d', checksum: CHECKSUM });
  return { app: app.address, dataset: dataset.address };
});
const { app, dataset } = assets ?? {};

await check("a dataset's key is not there before", async () =>
  same(await sdk.dataset.checkDatasetSecretExists(dataset), false));
await check("a dataset's key is not taken from others", () =>
  refused(() => other.sdk.dataset.pushDatasetSecret(dataset, sdk.dataset.generateEncryptionKey()), 'is not allowed to set secret'));
await check("a dataset's key is pushed", async () => {
  same(await sdk.dataset.pushDatasetSecret(dataset, sdk.dataset.generateEncryptionKey()), true);
  same(await sdk.dataset.checkDatasetSecretExists(dataset), true);
});
await check("a dataset's key is pushed once", () =>
  refused(() => sdk.dataset.pushDatasetSecret(dataset, sdk.dataset.generateEncryptionKey()), 'already exists'));

await check("an app's secret is not there before", async () => same(await sdk.app.checkAppSecretExists(app), false));
await check("an app's secret is not taken from others", () =>
  refused(() => other.sdk.app.pushAppSecret(app, 'secret'), 'is not allowed to set secret'));
await check("an app's secret is pushed", async () => {
  same(await sdk.app.pushAppSecret(app, 'secret'), true);
  same(await sdk.app.checkAppSecretExists(app), true);
});
await check("an app's secret is pushed once", () => refused(() => sdk.app.pushAppSecret(app, 'x'), 'already exists'));

await check("a requester's secret is pushed", async () => {
  same(await sdk.secrets.checkRequesterSecretExists(one.address, 'login'), false, 'before');
  same((await sdk.secrets.pushRequesterSecret('login', 'secret')).isPushed, true, 'pushed');
  same(await sdk.secrets.checkRequesterSecretExists(one.address, 'login'), true, 'after');
});
await check("a requester's secret is pushed once", () =>
  refused(() => sdk.secrets.pushRequesterSecret('login', 'x'), 'already exists'));
await check("requesters' secrets have names of their own", async () =>
  same(await sdk.secrets.checkRequesterSecretExists(other.address, 'login'), false));
await check('a secret of 4,096 bytes is taken', async () => {
  same((await sdk.secrets.pushRequesterSecret('large', 'x'.repeat(4096))).isPushed, true);
});

const pem = async (bits = 2048) => {
  const pair = await crypto.subtle.generateKey(
    { name: 'RSA-OAEP', modulusLength: bits, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
    true,
    ['encrypt', 'decrypt'],
  );
  const text = Buffer.from(await crypto.subtle.exportKey('spki', pair.publicKey)).toString('base64');
  return `-----BEGIN PUBLIC KEY-----\n${text.match(/.{1,64}/g).join('\n')}\n-----END PUBLIC KEY-----`;
};

await check('the key of results is pushed', async () => {
  same(await sdk.result.checkResultEncryptionKeyExists(one.address), false, 'before');
  same((await sdk.result.pushResultEncryptionKey(await pem())).isPushed, true, 'pushed');
  same(await sdk.result.checkResultEncryptionKeyExists(one.address), true, 'after');
});
await check('another key of results is refused unless it is forced', async () => {
  const next = await pem();
  await refused(() => sdk.result.pushResultEncryptionKey(next), 'already exists');
  const { isPushed, isUpdated } = await sdk.result.pushResultEncryptionKey(next, { forceUpdate: true });
  same([isPushed, isUpdated], [true, true]);
});

await check("a storage's token is pushed, and replaced when it is forced", async () => {
  same(await sdk.storage.checkStorageTokenExists(one.address, 'dropbox'), false, 'before');
  same((await sdk.storage.pushStorageToken('token', 'dropbox')).isPushed, true, 'pushed');
  same(await sdk.storage.checkStorageTokenExists(one.address, 'dropbox'), true, 'after');
  await refused(() => sdk.storage.pushStorageToken('next', 'dropbox'), 'already exists');
  same((await sdk.storage.pushStorageToken('next', 'dropbox', { forceUpdate: true })).isUpdated, true, 'forced');
});

await check('a dataset without a key cannot be offered', async () => {
  const { address } = await sdk.dataset.deployDataset({ owner: one.address, name: 'e', multiaddr: 'https://example.org/e', checksum: CHECKSUM });
  const template = await sdk.order.createDatasetorder({ dataset: address });
  await refused(() => sdk.order.signDatasetorder(template), 'is not set');
});
await check('a request for a secret that is not there cannot be signed', async () => {
  const template = await sdk.order.createRequestorder({ app, category: 0, params: { iexec_secrets: { 1: 'missing' } } });
  await refused(() => sdk.order.signRequestorder(template), 'is not set');
});

end();
