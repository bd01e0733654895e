// The official command line in a folder of its own: a project, with a wallet and chain.json.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';

import { world } from './journey.mjs';

const PROGRAMS = new URL('./node_modules/iexec/dist/esm/cli/cmd/', import.meta.url).pathname;

export const chains = {
  default: 'here',
  chains: {
    here: {
      id: String(world.chainId),
      host: world.rpc,
      hub: world.hub,
      sms: world.sms,
      ipfsGateway: world.gateway,
      iexecGateway: world.market,
      compass: world.compass,
    },
  },
};

export class Folder {
  constructor(name) {
    this.path = mkdtempSync(`${process.cwd()}/${name}-`);
  }

  /** Run a command, such as `app deploy`; its answer. A command that is not ok throws its message. */
  run(command, ...rest) {
    // `iexec NOUN` loads the tool and then starts the program of that noun, which loads it again.
    const [noun, verb] = command.split(' ');
    return verb ? this.start(`iexec-${noun}.js`, verb, ...rest) : this.iexec(noun, ...rest);
  }

  /** The same by the program that people call. */
  iexec(command, ...rest) {
    return this.start('iexec.js', ...command.split(' '), ...rest);
  }

  start(program, ...args) {
    return new Promise((done, fail) => {
      const child = spawn(process.execPath, [PROGRAMS + program, ...args.map(String), '--raw'], {
        cwd: this.path,
        env: { ...process.env, HOME: this.path },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let out = '';
      let err = '';
      child.stdout.on('data', (data) => (out += data));
      child.stderr.on('data', (data) => (err += data));
      child.on('error', fail);
      child.on('close', () => {
        try {
          const said = JSON.parse(out.trim().split('\n').at(-1));
          if (!said.ok) throw Error(`${said.error?.name}: ${said.error?.message ?? JSON.stringify(said)}`);
          done(said);
        } catch (error) {
          fail(Error(`${program} ${args.join(' ')}: ${error.message}\n${out.slice(-500)}\n${err.slice(-500)}`));
        }
      });
    });
  }

  json(name) {
    return JSON.parse(readFileSync(`${this.path}/${name}`, 'utf8'));
  }

  write(name, value) {
    writeFileSync(`${this.path}/${name}`, typeof value === 'object' && !Buffer.isBuffer(value) ? JSON.stringify(value) : value);
  }

  change(change) {
    const told = this.json('iexec.json');
    change(told);
    this.write('iexec.json', told);
  }
}
