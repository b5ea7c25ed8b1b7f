// A page of the server in headless Chromium, --page PATH. Reads one JSON line for each expression that is to be evaluated
// in the page, {"eval": "…"}, and answers it with {"value": …} or {"error": "…"}; ends when its standard input closes.

import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';
import { args, emit, fail, ready } from './contract.mjs';

const a = args();
const browser = await chromium
  .launch({
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-proxy-server', '--disable-dev-shm-usage',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  })
  .catch(fail);
const page = await browser.newPage();
page.on('pageerror', (e) => emit({ error: `page: ${e.message}` }));
page.on('console', (m) => console.error(m.text()));
await page.goto(new URL(a.page, a.http).href).catch(fail);
ready();
for await (const line of createInterface({ input: process.stdin })) {
  await page.evaluate(JSON.parse(line).eval).then(
    (value) => emit({ value: value ?? null }),
    (e) => emit({ error: e.message }),
  );
}
await browser.close();
