// Bundles `page.mjs` as web applications are, and has the browser that the network's document names open it, on
// an origin of its own. The page's checks are told like any journey's. Debian's browser is a script that starts many
// programs: whoever runs this ends its whole process group.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import { build } from 'esbuild';

const told = readFileSync(process.argv[2]);
const { browser } = JSON.parse(told);
const at = import.meta.dirname;

const made = await build({
  entryPoints: [`${at}/page.mjs`],
  bundle: true,
  write: false,
  format: 'esm',
  platform: 'browser',
  external: ['crypto'], // Node's, which the SDK asks for where there is no other
});
const page = `<!doctype html><meta charset="utf-8"><script>
  for (const kind of ['error', 'unhandledrejection'])
    addEventListener(kind, ({ reason, error }) => fetch('/failed', { method: 'POST', body: (reason ?? error)?.stack }));
</script><script type="module" src="/page.js"></script>`;
const files = {
  '/': ['text/html', page],
  '/page.js': ['text/javascript', made.outputFiles[0].contents],
  '/world.json': ['application/json', told],
};

const server = createServer((request, response) => {
  if (request.method === 'POST' && ['/told', '/failed'].includes(request.url)) {
    let body = '';
    request.on('data', (data) => (body += data));
    request.on('end', () => {
      if (request.url !== '/told') process.stderr.write(`the page failed: ${body}\n`);
      else for (const line of JSON.parse(body)) process.stdout.write(JSON.stringify(line) + '\n');
      response.end();
      process.stdout.write('', () => process.exit(0));
    });
    return;
  }
  const [kind, content] = files[request.url] ?? ['text/plain', undefined];
  response.writeHead(content === undefined ? 404 : 200, { 'Content-Type': kind });
  response.end(content);
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));

const child = spawn(
  browser,
  [
    '--no-sandbox', // it opens one page, which is ours, and may run as root
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
    '--remote-debugging-port=0', // else it would take a picture and leave
    `--user-data-dir=${mkdtempSync(`${at}/browser-`)}`,
    `http://127.0.0.1:${server.address().port}/`,
  ],
  { stdio: ['ignore', 'ignore', 'pipe'] },
);
child.stderr.on('data', (data) => process.stderr.write(data));
child.on('exit', () => process.stdout.write('', () => process.exit(0)));
