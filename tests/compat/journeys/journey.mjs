// What every journey begins with: the network that it is told of, people with money, and named checks.
//
// A journey is a program. It is given the network as JSON in the file that its first argument names, and says
// one line of JSON on stdout for each check: {"check", "ok", "seconds", "error"}. `check` goes on after a
// failure, so that one run tells all that is wrong.

import { readFileSync } from 'node:fs';
import * as ethers from 'ethers';
import { IExec, utils } from 'iexec';
import { create } from 'kubo-rpc-client';

export const world = JSON.parse(readFileSync(process.argv[2], 'utf8'));

export { IExec, ethers, utils };

const RLC = 10n ** 9n;
export const rlc = (amount) => (BigInt(amount) * RLC).toString();

// ethers keeps an answer for 250 ms, the next nonce too: longer than a local chain takes for a transaction.
const local = { pollingInterval: 100, cacheTimeout: -1 };
export const provider = new ethers.JsonRpcProvider(world.rpc, undefined, local);

export const options = {
  hubAddress: world.hub,
  smsURL: world.sms,
  iexecGatewayURL: world.market,
  ipfsGatewayURL: world.gateway,
  ipfsNodeURL: world.node,
  compassURL: world.compass,
  pocoSubgraphURL: world.pocoSubgraph ?? undefined,
};

/** Somebody with this key, or with the next of the keys that the network's faucet has filled. */
export function person(key = world.purses.pop()) {
  if (!key) throw Error('no purse is left: give the journey more of them');
  const wallet = new ethers.Wallet(key, provider);
  const sdk = new IExec({ ethProvider: wallet }, options);
  return { key, wallet, address: wallet.address, sdk };
}

/** Run a step and say how it went; its value, or undefined when it failed. */
export async function check(name, step, { seconds = 150 } = {}) {
  const begun = Date.now();
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(Error(`no answer within ${seconds} s`)), seconds * 1000);
  });
  const said = { check: name, ok: true };
  let value;
  try {
    value = await Promise.race([step(), late]);
  } catch (error) {
    said.ok = false;
    said.error = told(error);
  }
  clearTimeout(timer);
  said.seconds = (Date.now() - begun) / 1000;
  process.stdout.write(JSON.stringify(said) + '\n');
  return value;
}

// The SDK wraps what went wrong: the reason is in the causes.
function told(error) {
  const lines = [String(error?.stack ?? error)];
  for (let cause = error?.cause ?? error?.originalError, depth = 0; cause && depth < 5; depth++) {
    lines.push(`because ${cause?.stack ?? JSON.stringify(cause)}`);
    cause = cause.cause ?? cause.originalError;
  }
  return lines.join('\n').slice(0, 4000);
}

export function expect(condition, message) {
  if (!condition) throw Error(message);
}

export function same(got, expected, what = 'value') {
  const plain = (value) =>
    JSON.stringify(value, (_, v) => (typeof v === 'bigint' || v?.constructor?.name === 'BN' ? String(v) : v));
  if (plain(got) !== plain(expected)) throw Error(`${what}: expected ${plain(expected)}, got ${plain(got)}`);
}

/** That a step is refused with these words. */
export async function refused(step, words) {
  let value;
  try {
    value = await step();
  } catch (error) {
    const text = told(error);
    if (text.includes(words)) return;
    throw Error(`expected a refusal with "${words}", got: ${text}`);
  }
  throw Error(`expected a refusal with "${words}", got ${JSON.stringify(value)}`);
}

export const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

/** Ask until the answer is there. */
export async function until(ask, { seconds = 30, every = 0.25 } = {}) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await ask();
    if (found) return found;
    if (Date.now() > end) throw Error(`nothing within ${seconds} s`);
    await pause(every);
  }
}

/** All that an observable says until it completes. */
export const observed = (observable, { seconds = 60 } = {}) =>
  new Promise((done, fail) => {
    const heard = [];
    const timer = setTimeout(() => {
      stop();
      fail(Error(`not complete after ${seconds} s; heard ${JSON.stringify(heard.map((one) => one.message))}`));
    }, seconds * 1000);
    const stop = observable.subscribe({
      next: (value) => heard.push(value),
      error: (error) => (clearTimeout(timer), fail(error)),
      complete: () => (clearTimeout(timer), done(heard)),
    });
  });

/** Bytes to the IPFS node, as clients of it add them; their CID. */
export async function add(bytes) {
  const { cid } = await create({ url: world.node }).add(bytes);
  return cid.toString();
}

/** End: sockets that clients keep open would hold the process. */
export const end = () => process.stdout.write('', () => process.exit(0));
