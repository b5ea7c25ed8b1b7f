// Subscriber: mqtt.js, over TCP or (--websocket) over WebSocket.

import { args, closed, fail, mqttMessage, ready, whenStdinCloses } from './contract.mjs';
import { connect } from './mqttjs_client.mjs';

const a = args();
const client = connect(a);
let ending = false;
client.on('error', (e) => {
  if (!a.reconnect) fail(e, e.code ?? null);
});
client.on('close', () => {
  if (!ending && !a.reconnect) closed('the connection closed');
});
client.on('message', (topic, payload, packet) => {
  mqttMessage(a, topic, payload, packet.retain, packet.qos, packet.properties?.contentType);
});
client.on('connect', () => {
  const options = { qos: a.qos };
  if (a.v5) options.properties = { userProperties: { format: a.format } };
  client.subscribe(a.filter, options, (error, granted, packet) => {
    const code = packet?.granted?.[0] ?? packet?.reasonCode ?? granted?.[0]?.qos ?? null;
    if (error) fail(`subscription refused: ${error.message}`, error.code ?? code);
    if (code >= 0x80) fail('subscription refused', code);
    ready();
  });
});
whenStdinCloses(() => {
  ending = true;
  return client.endAsync();
});
