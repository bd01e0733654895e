// The official command line in a folder of its own: a project, with a wallet and chain.json.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';

import { world } from './journey.mjs';

const PROGRAM = new URL('./node_modules/iexec/dist/esm/cli/cmd/iexec.js', import.meta.url).pathname;

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

  /** Run a command; its answer. A command that is not ok throws its message. */
  run(...args) {
    const [command, ...rest] = args;
    return new Promise((done, fail) => {
      const child = spawn(process.execPath, [PROGRAM, ...command.split(' '), ...rest.map(String), '--raw'], {
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
          fail(Error(`iexec ${command} ${rest.join(' ')}: ${error.message}\n${out.slice(-500)}\n${err.slice(-500)}`));
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
