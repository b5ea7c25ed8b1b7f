// The built-in demo page in headless Chromium: does with it what a visitor does, checks what the page then shows, and
// writes screenshots into the folder --shots. Prints one JSON line for each step; fails with the first that fails.

import { chromium } from 'playwright-core';
import { args, emit } from './contract.mjs';

const a = args();
const origin = new URL(a.http).origin;
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-proxy-server', '--disable-dev-shm-usage',
    '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' });
page.setDefaultTimeout(20_000);
const faults = [];
page.on('pageerror', (e) => faults.push(`page: ${e.message}`));
page.on('console', (m) => m.type() === 'error' && faults.push(`console: ${m.text()}`));

let done = 0;
async function step(name, run) {
  try {
    await run();
  } catch (e) {
    const shown = await page.locator('#errors').innerText().catch(() => '');
    emit({ failed: name, reason: e.message, shown, faults });
    await page.screenshot({ path: `${a.shots}/demo-failed.png`, fullPage: true }).catch(() => {});
    await browser.close();
    process.exit(1);
  }
  done += 1;
  emit({ step: name });
}
const is = (selector, attribute, value) =>
  page.waitForFunction(
    ([selector, attribute, value]) => document.querySelector(selector)?.getAttribute(attribute) === value,
    [selector, attribute, value],
  );
// The sign and each protocol's mirror show the message.
async function shows(text) {
  for (const proto of ['sse', 'ws', 'mqtt']) await is(`#mirror-${proto}`, 'data-value', text);
  await is('#sign-text', 'data-text', text);
}
const acknowledged = (selector, by) =>
  page.waitForFunction(([selector, by]) => document.querySelector(selector)?.textContent.includes(by), [selector, by]);
// The radio button itself is hidden behind its label.
const choose = (name, value) => page.locator(`label:has(input[name="${name}"][value="${value}"])`).click();

await step('every connection opens', async () => {
  await page.goto(`${origin}/`);
  for (const name of ['rest', 'sse', 'ws', 'mqtt']) await is(`[data-status="${name}"]`, 'data-state', 'open');
});
await step('a message by REST', async () => {
  await page.fill('#sign-input', 'Hello by REST');
  await page.click('#sign-send');
  await shows('Hello by REST');
  await acknowledged('#sign-ack', 'REST 204');
});
await step('a message by MQTT', async () => {
  const text = 'Grüße <b>by</b> MQTT & "more"';
  await choose('via', 'mqtt');
  await page.fill('#sign-input', text);
  await page.click('#sign-send');
  await shows(text);
  await acknowledged('#sign-ack', 'PUBACK');
});
await step('sensors are added by REST and by MQTT', async () => {
  for (const [via, id, temp] of [['rest', '101', '21.5'], ['mqtt', '7', '-3.25']]) {
    await choose('sensor-via', via);
    await page.fill('#sensor-add-id', id);
    await page.fill('#sensor-add-temp', temp);
    await page.fill('#sensor-add-location', `lab ${via}`);
    await page.click('#sensor-add');
    await is(`[data-sensor="${id}"]`, 'data-temp', temp);
  }
});
await step('a sensor is moved', async () => {
  await page.fill('[data-sensor="101"] input[type=range]', '30.5');
  await is('[data-sensor="101"]', 'data-temp', '30.5');
});
await step('power and brightness', async () => {
  await page.fill('#brightness', '35');
  await is('#mirror-sse', 'data-last', 'brightness=35');
  await page.screenshot({ path: `${a.shots}/demo-desktop.png`, fullPage: true });
  await page.locator('label:has(#power)').click();
  await is('#sign', 'data-power', 'off');
  await is('#mirror-mqtt', 'data-last', 'power=off');
});
await step('a sensor is deleted', async () => {
  await page.click('[data-sensor="7"] .sensor-delete');
  await page.waitForSelector('[data-sensor="7"]', { state: 'detached' });
});
await step('what others write is shown', async () => {
  const response = await fetch(`${origin}/Topics/led-sign%2Fdemo%2Fmessage`, {
    method: 'PUT',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ value: 'outside' }),
  });
  if (response.status !== 204) throw new Error(`PUT: ${response.status}`);
  await shows('outside');
});
await step('a reload starts from the stored state, without a complaint', async () => {
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.reload();
  await shows('outside');
  await is('#sign', 'data-power', 'off');
  await is('[data-sensor="101"]', 'data-temp', '30.5');
  await page.screenshot({ path: `${a.shots}/demo-dark.png`, fullPage: true });
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.screenshot({ path: `${a.shots}/demo-phone.png`, fullPage: true });
  // The page asks the server every ten seconds whether it still answers REST.
  await page.waitForResponse((response) => response.url() === `${origin}/Sensors/` && response.request().method() === 'HEAD');
  const shown = await page.locator('#errors').innerText();
  if (shown || faults.length > 0) throw new Error(`complaints: ${shown} ${faults.join('; ')}`);
});
emit({ done });
await browser.close();
process.exit(0);
