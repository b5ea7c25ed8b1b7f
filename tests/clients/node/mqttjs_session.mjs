// An mqtt.js client that does as it is told: one JSON command a line, one JSON event a line (the contract is that of
// tests/mqtt_sessions/foreign.rs). For sessions, wills, topic aliases and flow control.

import { createInterface } from 'node:readline';
import mqtt from 'mqtt';
import { args, emit, fail, ready } from './contract.mjs';

const a = args();
let client;

// What the tests look at.
function said(properties = {}) {
  const { userProperties, correlationData: _, ...rest } = properties;
  const pairs = Object.entries(userProperties ?? {}).flatMap(([name, value]) => [value].flat().map((v) => [name, v]));
  return userProperties ? { ...rest, user: pairs } : rest;
}

function userProperties(pairs = []) {
  const grouped = {};
  for (const [name, value] of pairs) (grouped[name] ??= []).push(value);
  return grouped;
}

// Leaves out what is not there.
const some = (object) => {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  return a.v5 && entries.length > 0 ? Object.fromEntries(entries) : undefined;
};

function connect(command) {
  const { will } = command;
  client = mqtt.connect(`mqtt://${a.mqtt}`, {
    protocolVersion: a.v5 ? 5 : 4,
    clientId: command.id,
    clean: command.clean ?? true,
    keepalive: 60,
    reconnectPeriod: command.reconnect ? 50 : 0,
    connectTimeout: 10_000,
    resubscribe: false,
    autoAssignTopicAlias: command.assignAliases ?? false,
    properties: some({
      sessionExpiryInterval: command.expiry,
      receiveMaximum: command.receiveMaximum,
      topicAliasMaximum: command.aliasMaximum,
    }),
    will: will && {
      topic: will.topic,
      payload: Buffer.from(will.payload),
      qos: will.qos ?? 0,
      retain: will.retain ?? false,
      properties: some({
        willDelayInterval: will.delay,
        contentType: will.contentType,
        userProperties: will.user && userProperties(will.user),
      }),
    },
  });
  client.on('connect', (packet) => {
    const code = packet.reasonCode ?? packet.returnCode ?? 0;
    emit({ event: 'connected', present: packet.sessionPresent, code, properties: said(packet.properties) });
  });
  client.on('disconnect', (packet) => emit({ event: 'told', code: packet.reasonCode ?? 0 }));
  client.on('close', () => emit({ event: 'disconnected', code: null }));
  client.on('error', (e) => emit({ event: 'error', reason: e.message, code: e.code ?? null }));
  client.on('message', (topic, payload, packet) => {
    const { qos, retain, dup, messageId } = packet;
    const properties = said(packet.properties);
    emit({ event: 'message', topic, payload: payload.toString(), qos, retain, dup, id: messageId ?? 0, properties });
  });
}

function subscribe(command) {
  const filters = Object.fromEntries(command.filters.map(([name, qos]) => [name, { qos }]));
  const options = some({ properties: some({ subscriptionIdentifier: command.number }) }) ?? {};
  client.subscribe(filters, options, (_error, granted, packet) => {
    emit({ event: 'subscribed', codes: packet?.granted ?? granted.map(({ qos }) => qos) });
  });
}

function publish(command) {
  const properties = some({
    topicAlias: command.alias,
    messageExpiryInterval: command.expiry,
    contentType: command.contentType,
    userProperties: command.user && userProperties(command.user),
  });
  const { qos = 0, retain = false } = command;
  client.publish(command.topic, command.payload, { qos, retain, properties }, (error, packet) => {
    emit({ event: 'published', id: packet?.messageId ?? 0, code: error?.code ?? packet?.reasonCode ?? 0 });
  });
}

ready();
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.op === 'connect') connect(command);
  else if (command.op === 'subscribe') subscribe(command);
  else if (command.op === 'publish') publish(command);
  else if (command.op === 'disconnect') client.end();
  else if (command.op === 'drop') client.stream.destroy();
  else fail(`what is ${command.op}?`);
}
process.exit(0);
