// What journeys are made of, in Node and in a page: named checks, and what they need to expect, to wait and to hear.

let say = (line) => process.stdout.write(JSON.stringify(line) + '\n');

/** Where checks tell how they went, in place of stdout. */
export const sayTo = (told) => (say = told);

const RLC = 10n ** 9n;
export const rlc = (amount) => (BigInt(amount) * RLC).toString();

/** The SDK's options for the network that `world` tells of. */
export const addresses = (world) => ({
  hubAddress: world.hub,
  smsURL: world.sms,
  iexecGatewayURL: world.market,
  ipfsGatewayURL: world.gateway,
  ipfsNodeURL: world.node,
  compassURL: world.compass,
  pocoSubgraphURL: world.pocoSubgraph ?? undefined,
});

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
  say(said);
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
