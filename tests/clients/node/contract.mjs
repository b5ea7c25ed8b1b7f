// What every Node client of the end-to-end tests shares: the command line, the JSON lines and the codecs.
//
// A subscriber prints {"ready":true} once its subscription is live, then one JSON line for each message, and ends when
// its standard input closes. A publisher reads one JSON command a line and answers each with one JSON line.

import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { Decoder, Encoder } from 'cbor-x';
import { decode as msgpackDecode, encode as msgpackEncode } from '@msgpack/msgpack';

export const CONTENT_TYPES = { json: 'application/json', cbor: 'application/cbor', msgpack: 'application/x-msgpack' };
const cbor = { decoder: new Decoder({ mapsAsObjects: true }), encoder: new Encoder({ useRecords: false, tagUint8Array: false }) };

export function args() {
  const text = (byDefault) => ({ type: 'string', default: byDefault });
  const flag = { type: 'boolean', default: false };
  const { values } = parseArgs({
    options: {
      http: text('http://127.0.0.1:9926'),
      mqtt: text('127.0.0.1:1883'),
      path: text(''),
      filter: text(''),
      table: { type: 'string' },
      format: text('json'),
      qos: text('0'),
      'mqtt-version': text('4'),
      websocket: flag,
      'ws-path': text('/mqtt'),
      'client-id': text(''),
      'keep-session': flag,
      reconnect: flag,
      username: { type: 'string' },
      password: { type: 'string' },
      page: { type: 'string' },
      shots: { type: 'string' },
    },
  });
  return { ...values, qos: Number(values.qos), v5: values['mqtt-version'] === '5' };
}

export function authHeaders(a) {
  if (a.username === undefined) return {};
  return { Authorization: 'Basic ' + Buffer.from(`${a.username}:${a.password ?? ''}`).toString('base64') };
}

export const urlOf = (a, path = a.path) => a.http.replace(/\/$/, '') + '/' + path;

const plain = (_key, value) => {
  if (value instanceof Uint8Array) return { type: 'Buffer', data: [...value] };
  if (typeof value === 'bigint') return Number(value);
  if (value instanceof Map) return Object.fromEntries(value);
  return value;
};

export function emit(line) {
  let rest = Buffer.from(JSON.stringify(line, plain) + '\n');
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (e) {
      if (e.code !== 'EAGAIN') throw e;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

export const ready = () => emit({ ready: true });

export function fail(reason, status = null) {
  emit({ error: String(reason?.message ?? reason), code: typeof status === 'number' ? status : null });
  process.exit(1);
}

export function closed(reason) {
  emit({ closed: String(reason?.message ?? reason) });
  process.exit(3);
}

export function whenStdinCloses(then) {
  process.stdin.resume();
  process.stdin.once('end', async () => {
    try {
      await then();
    } finally {
      process.exit(0);
    }
  });
}

export function encode(value, format) {
  if (format === 'cbor') return cbor.encoder.encode(value);
  if (format === 'msgpack') return Buffer.from(msgpackEncode(value));
  return Buffer.from(JSON.stringify(value));
}

// The decoded value, or null if the bytes are no such thing.
export function decode(raw, format) {
  try {
    if (format === 'cbor') return cbor.decoder.decode(raw);
    if (format === 'msgpack') return msgpackDecode(raw);
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(raw));
  } catch {
    return null;
  }
}

// A content type's codec; without a content type `otherwise`; null for a type without a codec.
function formatOf(contentType, otherwise) {
  if (!contentType) return otherwise;
  const bare = contentType.split(';')[0].trim().toLowerCase();
  return Object.keys(CONTENT_TYPES).find((f) => CONTENT_TYPES[f] === bare) ?? null;
}

function idOf(topic, a) {
  let table = a.table;
  if (table === undefined) {
    const first = a.filter.split('/')[0];
    table = ['+', '#', '$share'].includes(first) ? '' : first;
  }
  if (table && topic === table) return null;
  if (table && topic.startsWith(table + '/')) return topic.slice(table.length + 1);
  return topic.replace(/^\//, '');
}

export function mqttMessage(a, topic, raw, retain, qos, contentType) {
  const format = formatOf(contentType, a.v5 || a.websocket ? a.format : 'json');
  emit({
    topic,
    id: idOf(topic, a),
    type: null,
    retain: Boolean(retain),
    qos,
    sse_id: null,
    value: raw.length > 0 && format ? (decode(raw, format) ?? null) : null,
    raw_base64: raw.toString('base64'),
    envelope: false,
    content_type: contentType ?? null,
  });
}

export function envelopeMessage(raw, format, sseId = null) {
  const event = decode(raw, format);
  const wrapped = event !== null && typeof event === 'object' && 'id' in event && 'type' in event;
  emit({
    topic: null,
    id: wrapped ? event.id : null,
    type: wrapped ? event.type : null,
    retain: null,
    qos: null,
    sse_id: sseId,
    value: (wrapped ? event.value : event) ?? null,
    raw_base64: raw.toString('base64'),
    envelope: wrapped,
    content_type: CONTENT_TYPES[format],
  });
}

// The bytes of a command and the content type they are sent with.
export function payloadOf(command) {
  if (command.raw_base64 != null) return [Buffer.from(command.raw_base64, 'base64'), 'application/octet-stream'];
  const format = command.format ?? 'json';
  return [encode(command.value ?? null, format), CONTENT_TYPES[format]];
}

// Answers each command line with what `handle(command)` resolves to, in order, until standard input closes.
export async function commands(handle) {
  for await (const line of createInterface({ input: process.stdin })) {
    if (!line.trim()) continue;
    try {
      emit(await handle(JSON.parse(line)));
    } catch (e) {
      emit({ ok: false, status: null, error: String(e?.cause?.message ?? e?.message ?? e) });
    }
  }
}
