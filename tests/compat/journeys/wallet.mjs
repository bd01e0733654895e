// Wallet, account, network and hub: what a person does before there is any order.

import { check, end, expect, IExec, options, person, provider, refused, rlc, same, utils, world } from './journey.mjs';

const one = person();
const other = person();
const { sdk } = one;

await check('the wallet tells its address', async () => same(await sdk.wallet.getAddress(), one.address));

await check('balances are what the faucet gave', async () => {
  const { wei, nRLC } = await sdk.wallet.checkBalances(one.address);
  expect(BigInt(wei) > 0n, `wei ${wei}`);
  same(String(nRLC), rlc(200), 'nRLC');
});

await check('the network is recognised by its id', async () => {
  const { chainId } = await sdk.network.getNetwork();
  same(String(chainId), String(world.chainId));
});

await check('RLC are sent', async () => {
  await sdk.wallet.sendRLC(rlc(5), other.address);
  same(String((await sdk.wallet.checkBalances(other.address)).nRLC), rlc(205));
});

await check('RLC are sent by amount and unit', async () => {
  await sdk.wallet.sendRLC('1.5 RLC', other.address);
  same(String((await sdk.wallet.checkBalances(other.address)).nRLC), '206500000000');
});

await check('ether is sent', async () => {
  const before = BigInt((await sdk.wallet.checkBalances(other.address)).wei);
  await sdk.wallet.sendETH(utils.parseEth('0.01'), other.address);
  same(String(BigInt((await sdk.wallet.checkBalances(other.address)).wei) - before), String(10n ** 16n));
});

await check('more RLC than there are cannot be sent', () =>
  refused(() => sdk.wallet.sendRLC(rlc(10_000), other.address), 'exceed wallet balance'));

await check('RLC are deposited', async () => {
  const { amount, txHash } = await sdk.account.deposit(rlc(20));
  same([String(amount), txHash.length], [rlc(20), 66]);
  const { stake, locked } = await sdk.account.checkBalance(one.address);
  same([String(stake), String(locked)], [rlc(20), '0']);
});

await check('RLC are withdrawn', async () => {
  await sdk.account.withdraw(rlc(8));
  same(String((await sdk.account.checkBalance(one.address)).stake), rlc(12));
});

await check('more than the stake cannot be withdrawn', () =>
  refused(() => sdk.account.withdraw(rlc(13)), 'exceed account balance'));

await check('a spender is approved', async () => {
  await sdk.account.approve(rlc(3), other.address);
  same(String(await sdk.account.checkAllowance(one.address, other.address)), rlc(3));
});

await check('the approval is revoked', async () => {
  await sdk.account.revokeApproval(other.address);
  same(String(await sdk.account.checkAllowance(one.address, other.address)), '0');
});

await check('categories are counted and shown', async () => {
  const count = Number(await sdk.hub.countCategory());
  expect(count > world.category, `count ${count}`);
  const { name, workClockTimeRef } = await sdk.hub.showCategory(0);
  same([name, String(workClockTimeRef)], ['XS', '300']);
});

await check('a category that is not there is not shown', () =>
  refused(() => sdk.hub.showCategory(999), 'execution reverted'));

await check('the hub tells its timeout ratio', async () => same(String(await sdk.hub.getTimeoutRatio()), '10'));

await check("the hub's owner creates a category", async () => {
  const owner = person(world.accounts.hub_owner);
  const { catid } = await owner.sdk.hub.createCategory({ name: 'of a test', description: 'short', workClockTimeRef: 7 });
  const { name, workClockTimeRef } = await sdk.hub.showCategory(catid);
  same([name, String(workClockTimeRef)], ['of a test', '7']);
});

await check('nobody else creates one', () =>
  refused(
    () => sdk.hub.createCategory({ name: 'x', description: 'y', workClockTimeRef: 7 }),
    'only category owner',
  ));

await check('a browser wallet (EIP-1193) works as well', async () => {
  const wallet = {
    request: ({ method, params = [] }) => {
      if (method === 'eth_requestAccounts' || method === 'eth_accounts') return [one.address];
      return provider.send(method, params);
    },
  };
  const browser = new IExec({ ethProvider: wallet }, options);
  same(await browser.wallet.getAddress(), one.address);
  same(String((await browser.account.checkBalance(one.address)).stake), rlc(12));
});

await check('amounts, tags and keys are read and written', async () => {
  same([utils.parseRLC('1.5 RLC'), utils.parseEth('2 gwei')].map(String), ['1500000000', '2000000000'], 'parsed');
  same([utils.formatRLC(1_500_000_000), utils.formatEth('2000000000')], ['1.5', '0.000000002'], 'formatted');
  const tag = utils.encodeTag(['tee', 'tdx']);
  same(utils.decodeTag(utils.sumTags([tag, utils.encodeTag(['gpu'])])), ['tee', 'tdx', 'gpu'], 'tags');
  const signer = utils.getSignerFromPrivateKey(world.rpc, one.key);
  same(await new IExec({ ethProvider: signer }, options).wallet.getAddress(), one.address, 'address');
});

await check('all is swept into another wallet', async () => {
  await sdk.wallet.sweep(other.address);
  const { nRLC } = await sdk.wallet.checkBalances(one.address);
  same(String(nRLC), '0');
});

end();
