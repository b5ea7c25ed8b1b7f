// Publisher: mqtt.js, over TCP or (--websocket) over WebSocket. One connection for all commands.

import { args, commands, fail, payloadOf, ready } from './contract.mjs';
import { connect } from './mqttjs_client.mjs';

const a = args();
const client = connect(a);
let up = false;
let lost = null;
client.on('error', (e) => {
  if (!up) fail(e, e.code ?? null);
});
await new Promise((resolve) => client.once('connect', resolve));
up = true;
client.on('close', () => lost?.({ ok: false, status: null, error: 'the connection closed' }));
ready();

function handle(command) {
  const { op } = command;
  if (!['put', 'message', 'delete'].includes(op)) return { ok: false, status: null, error: `MQTT has no ${op}` };
  const [payload, contentType] = op === 'delete' ? [Buffer.alloc(0), null] : payloadOf(command);
  const options = { qos: command.qos ?? 1, retain: op !== 'message' };
  if (a.v5 && ['application/cbor', 'application/x-msgpack'].includes(contentType)) options.properties = { contentType };
  return new Promise((resolve) => {
    lost = resolve;
    client.publish(command.path, payload, options, (error, packet) => {
      const status = error?.code ?? packet?.reasonCode ?? 0;
      resolve(error ? { ok: false, status, error: error.message } : { ok: true, status });
    });
  });
}

await commands(handle);
lost = null;
await client.endAsync();
process.exit(0);
