// What every journey begins with: the network that it is told of, people with money, and named checks.
//
// A journey is a program. It is given the network as JSON in the file that its first argument names, and says
// one line of JSON on stdout for each check: {"check", "ok", "seconds", "error"}. `check` goes on after a
// failure, so that one run tells all that is wrong. The last line says which of the tools' methods it called.

import { readFileSync } from 'node:fs';
import * as ethers from 'ethers';
import { IExec, IExecModule, utils as tools } from 'iexec';
import { create } from 'kubo-rpc-client';

import { addresses } from './steps.mjs';

export const world = JSON.parse(readFileSync(process.argv[2], 'utf8'));

export { IExec, ethers };
export * from './steps.mjs';

const called = new Set();

/** `object` as it is, but that calls of its functions, as `name.function`, are remembered. */
export const watched = (name, object) =>
  new Proxy(object, {
    get(target, key) {
      const found = target[key];
      if (found instanceof IExecModule) return watched(key, found);
      if (typeof found !== 'function' || typeof key !== 'string') return found;
      return (...given) => {
        called.add(`${name}.${key}`);
        return found.apply(target, given);
      };
    },
  });

export const utils = watched('utils', tools);

// ethers keeps an answer for 250 ms, the next nonce too: longer than a local chain takes for a transaction.
const local = { pollingInterval: 100, cacheTimeout: -1 };
export const provider = new ethers.JsonRpcProvider(world.rpc, undefined, local);

export const options = addresses(world);

/** Somebody with this key, or with the next of the keys that the network's faucet has filled. */
export function person(key = world.purses.pop()) {
  if (!key) throw Error('no purse is left: give the journey more of them');
  const wallet = new ethers.Wallet(key, provider);
  const sdk = watched('sdk', new IExec({ ethProvider: wallet }, options));
  return { key, wallet, address: wallet.address, sdk };
}

/** Bytes to the IPFS node, as clients of it add them; their CID. */
export async function add(bytes) {
  const { cid } = await create({ url: world.node }).add(bytes);
  return cid.toString();
}

/** End: sockets that clients keep open would hold the process. */
export const end = () => process.stdout.write(JSON.stringify({ called: [...called] }) + '\n', () => process.exit(0));
