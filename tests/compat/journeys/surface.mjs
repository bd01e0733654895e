// What the tools offer: every public method of the SDK, its utilities and DataProtector, and every command of
// the command line. Says it as JSON; it is no journey, and asks no network.

import { readdirSync, readFileSync } from 'node:fs';

import { IExecDataProtectorCore } from '@iexec/dataprotector';
import { IExec, IExecModule, utils } from 'iexec';

const functions = (object) =>
  Object.keys(object).filter((name) => typeof object[name] === 'function' && /^[a-z]/.test(name)); // no classes

const sdk = new IExec({ ethProvider: 'http://127.0.0.1:1' });
const modules = Object.entries(sdk).filter(([, module]) => module instanceof IExecModule);
const own = Object.getOwnPropertyNames(IExecDataProtectorCore.prototype).filter((name) => name !== 'constructor');

// A file for each noun; what `iexec.js` itself has are the nouns, and two commands without one.
const folder = new URL('./node_modules/iexec/dist/esm/cli/cmd/', import.meta.url);
const commands = readdirSync(folder).flatMap((file) => {
  const noun = file.match(/^iexec-(.*)\.js$/)?.[1];
  if (!noun && file !== 'iexec.js') return [];
  const source = readFileSync(new URL(file, folder), 'utf8');
  const found = [...source.matchAll(/\.command\(\s*'([^' ]+)[^']*'\s*\)/g)];
  return found.map(([, verb]) => (noun ? `${noun} ${verb}` : verb));
});

const told = {
  methods: [
    ...modules.flatMap(([module, object]) => functions(object).map((name) => `${module}.${name}`)),
    ...functions(utils).map((name) => `utils.${name}`),
    ...own.map((name) => `protector.${name}`),
  ],
  commands,
};
process.stdout.write(JSON.stringify(told), () => process.exit(0));
