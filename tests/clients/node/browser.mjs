// Subscriber: headless Chromium, in a page of the server's origin, by the page's own EventSource or (--websocket) its
// own WebSocket. The page is an empty one made here, or with --page PATH one that the server serves. A browser's
// WebSocket cannot set Accept, so another format than JSON is chosen by the URL's suffix.

import { chromium } from 'playwright-core';
import { args, closed, emit, envelopeMessage, fail, ready, urlOf, whenStdinCloses } from './contract.mjs';

const a = args();
// A new empty profile, which Playwright removes at the end.
const browser = await chromium
  .launch({
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--no-proxy-server',
      '--disable-dev-shm-usage',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      // The page made here has no address of its own, so that Chromium would keep it from the loopback.
      '--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets',
    ],
  })
  .catch(fail);
let ending = false;
whenStdinCloses(() => {
  ending = true;
  return browser.close();
});

const page = await browser.newPage();
page.on('pageerror', (e) => emit({ error: `page: ${e.message}`, code: null }));
page.on('console', (m) => console.error(m.text()));
page.on('crash', () => closed('the page crashed'));
browser.on('disconnected', () => {
  if (!ending) closed('the browser closed');
});
const origin = new URL(a.http).origin;
if (a.page === undefined) {
  await page.route(`${origin}/**`, (route) =>
    route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>tablecast</title>' }),
  );
}
await page.goto(origin + (a.page ?? '/')).catch(fail);
await page.unrouteAll();

await page.exposeFunction('report', (kind, data, sseId) => {
  if (kind === 'open') ready();
  else if (kind === 'text') envelopeMessage(Buffer.from(data), 'json', sseId);
  else if (kind === 'binary') envelopeMessage(Buffer.from(data, 'base64'), a.format);
  else if (kind === 'fail' && !ending) fail(data);
  else if (kind === 'closed' && !ending && !a.reconnect) closed(data);
});
if (a.websocket) {
  const path = a.format === 'json' ? a.path : `${a.path}.${a.format}`;
  await page.evaluate((url) => {
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    let opened = false;
    socket.onopen = () => {
      opened = true;
      report('open');
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === 'string') report('text', data, null);
      else report('binary', btoa(Array.from(new Uint8Array(data), (b) => String.fromCharCode(b)).join('')));
    };
    socket.onclose = (e) => report(opened ? 'closed' : 'fail', `WebSocket closed: ${e.code} ${e.reason}`);
  }, urlOf(a, path).replace(/^http/, 'ws'));
} else {
  await page.evaluate((url) => {
    const source = new EventSource(url);
    source.onopen = () => report('open');
    source.onmessage = (event) => report('text', event.data, event.lastEventId || null);
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) report('fail', 'EventSource refused or closed');
      else report('closed', 'the stream ended');
    };
  }, urlOf(a));
}
