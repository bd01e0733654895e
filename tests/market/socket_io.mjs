// The official Socket.IO client, as a page of an explorer uses it: socket_io.mjs URL CHAIN_ID
// It says one line of JSON on stdout for each thing that happens to each of its clients.

import { io } from 'socket.io-client';

const [url, chainId] = process.argv.slice(2);
const ways = { polling: ['polling'], websocket: ['websocket'], upgrading: ['polling', 'websocket'] };

for (const [name, transports] of Object.entries(ways)) {
  const say = (event, data) => process.stdout.write(`${JSON.stringify({ name, event, data })}\n`);
  const socket = io(url, { path: '/ws', transports, forceNew: true, reconnectionDelay: 100, randomizationFactor: 0 });
  const ask = (what, topic) => new Promise((done) => socket.emit(what, { chainId, topic }, done));
  socket.on('connect', async () => say('joined', [await ask('join', 'orders'), await ask('join', 'deals')]));
  socket.on('disconnect', (reason) => say('disconnected', reason));
  socket.on('requestorder_published', async () => {
    if (name === 'polling') say('left', await ask('leave', 'orders'));
    const { engine } = socket.io;
    if (name === 'upgrading' && engine.transport.name === 'polling') await new Promise((done) => engine.once('upgrade', done));
    say('transport', engine.transport.name);
  });
  socket.onAny(say);
}
