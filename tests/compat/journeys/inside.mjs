// Loaded before every journey: no name outside this machine is found, so that nothing of a test leaves it.
// The tools under test are not touched; some of them would ask for their own newer version, or publish bulks.

import dns from 'node:dns';
import { isIP } from 'node:net';

const LOCAL = ['localhost', '127.0.0.1', '::1'];

const { lookup } = dns;
dns.lookup = (name, options, done = options) => {
  if (LOCAL.includes(name) || isIP(name)) return lookup(name, options, done);
  const error = Object.assign(Error(`getaddrinfo ENOTFOUND ${name}`), { code: 'ENOTFOUND', hostname: name });
  return process.nextTick(done, error);
};
