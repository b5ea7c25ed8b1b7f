// Subscriber: the ws package.

import WebSocket from 'ws';
import { CONTENT_TYPES, args, authHeaders, closed, envelopeMessage, fail, ready, urlOf, whenStdinCloses } from './contract.mjs';

const a = args();
const headers = authHeaders(a);
if (a.format !== 'json') headers.Accept = CONTENT_TYPES[a.format];
const socket = new WebSocket(urlOf(a).replace(/^http/, 'ws'), { headers });
let ending = false;
socket.on('unexpected-response', (_request, response) => fail(`HTTP ${response.statusCode}`, response.statusCode));
socket.on('error', (e) => fail(e));
socket.on('open', ready);
socket.on('message', (data, binary) => envelopeMessage(data, binary ? a.format : 'json'));
socket.on('close', (code, reason) => {
  if (!ending) closed(`${code} ${reason}`);
});
whenStdinCloses(() => {
  ending = true;
  const done = new Promise((resolve) => {
    socket.once('close', resolve);
    setTimeout(resolve, 2000);
  });
  socket.close(1000);
  return done;
});
