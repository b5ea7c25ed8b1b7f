// The mqtt.js client both mqtt.js programs connect: TCP or WebSocket, MQTT 3.1.1 or 5.

import { randomUUID } from 'node:crypto';
import mqtt from 'mqtt';
import { CONTENT_TYPES, authHeaders } from './contract.mjs';

export function connect(a) {
  const chosen = CONTENT_TYPES[a.format];
  const headers = a.format === 'json' ? {} : { Accept: chosen, 'Content-Type': chosen };
  return mqtt.connect(a.websocket ? a.http.replace(/^http/, 'ws').replace(/\/$/, '') + a['ws-path'] : `mqtt://${a.mqtt}`, {
    protocolVersion: a.v5 ? 5 : 4,
    clientId: a['client-id'] || `mqttjs-${randomUUID()}`,
    clean: !a['keep-session'],
    username: a.username,
    password: a.password,
    keepalive: 60,
    connectTimeout: 10_000,
    reconnectPeriod: a.reconnect ? 200 : 0,
    resubscribe: a.reconnect,
    wsOptions: { headers: { ...headers, ...authHeaders(a) } },
    properties: a.v5 && a['keep-session'] ? { sessionExpiryInterval: 3600 } : undefined,
  });
}
