// The demo page: one table record, written over REST or MQTT and seen over SSE, WebSocket and MQTT.
// Every value from the server reaches the page through textContent or an attribute, never as markup.
'use strict';

const SIGN = 'led-sign/demo/';
const FIELDS = ['message', 'brightness', 'power'];
const WRITE_TIMEOUT_MS = 8000;
const HIDDEN_GRACE_MS = 20000;
const wsOrigin = location.origin.replace(/^http/, 'ws');
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const $ = id => document.getElementById(id);
const el = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const ms = t => `${t < 10 ? t.toFixed(1) : Math.round(t)} ms`;
const checked = name => document.querySelector(`input[name="${name}"]:checked`).value;

// ---- Errors and connection states ---------------------------------------------------------------------------------

const shownErrors = new Map();
const lostLinks = new Set(); // a lost connection is announced once, not at every retry
function fail(key, message) {
  const text = message instanceof Error ? message.message : String(message);
  if (key.startsWith('link:')) {
    document.querySelector(`[data-status="${key.slice(5)}"]`).title = text;
    if (lostLinks.has(key)) return;
    lostLinks.add(key);
  }
  dismiss(key);
  const close = el('button', { type: 'button', ariaLabel: 'Dismiss', textContent: '✕', onclick: () => dismiss(key) });
  const box = el('div', {}, el('p', { textContent: text }), close);
  $('errors').append(box);
  shownErrors.set(key, box);
  while (shownErrors.size > 4) dismiss(shownErrors.keys().next().value);
}
function dismiss(key) {
  shownErrors.get(key)?.remove();
  shownErrors.delete(key);
}
function status(name, state, detail = state) {
  const item = document.querySelector(`[data-status="${name}"]`);
  item.dataset.state = state;
  item.querySelector('.state').textContent = detail;
  if (state !== 'open') return;
  item.title = '';
  lostLinks.delete(`link:${name}`);
  dismiss(`link:${name}`);
}
// Doubling waits from half a second to 15, with jitter, so that a restarted server isn't met by every page at once.
const backoff = attempt => Math.min(15000, 500 * 2 ** attempt) * (0.7 + 0.3 * Math.random());

// ---- MQTT 3.1.1 over WebSocket ------------------------------------------------------------------------------------

class Mqtt {
  constructor(url, hooks) {
    Object.assign(this, { url, hooks, attempt: 0, nextId: 1, inFlight: new Map(), ready: false });
    this.connect();
  }
  connect() {
    clearTimeout(this.retry);
    this.buffer = new Uint8Array();
    this.hooks.state('connecting');
    const socket = this.socket = new WebSocket(this.url, 'mqtt');
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      const id = `web-${crypto.getRandomValues(new Uint32Array(2)).join('-')}`.slice(0, 23);
      this.send(0x10, Mqtt.text('MQTT'), [4, 0x02, 0, 30], Mqtt.text(id)); // level 4, clean session, keep-alive 30 s
    };
    socket.onmessage = event => {
      if (this.socket !== socket) return;
      try { this.feed(new Uint8Array(event.data)); } catch (error) { this.drop(error.message); }
    };
    socket.onclose = event => { if (this.socket === socket) this.drop(event.reason || `connection closed (${event.code})`); };
    this.silence = setTimeout(() => this.drop('no CONNACK within 10 s'), 10000);
  }
  drop(reason) {
    const socket = this.socket;
    this.socket = null;
    this.ready = false;
    clearInterval(this.pings);
    clearTimeout(this.silence);
    socket?.close();
    for (const { settle } of this.inFlight.values()) settle(new Error(`MQTT: ${reason}; not acknowledged`));
    const wait = backoff(this.attempt++);
    this.hooks.state('closed', reason, wait);
    this.retry = setTimeout(() => this.connect(), wait);
  }
  static text(string) {
    const bytes = new TextEncoder().encode(string);
    return [bytes.length >> 8, bytes.length & 255, ...bytes];
  }
  send(first, ...parts) {
    const body = parts.flat();
    const head = [first];
    let left = body.length;
    do { head.push((left % 128) | (left > 127 ? 128 : 0)); left = Math.floor(left / 128); } while (left > 0);
    this.socket.send(Uint8Array.from(head.concat(body)));
  }
  // A frame may hold a part of a packet, one or several: what is left over waits for the next frame.
  feed(chunk) {
    const all = new Uint8Array(this.buffer.length + chunk.length);
    all.set(this.buffer);
    all.set(chunk, this.buffer.length);
    for (let start = 0; ;) {
      this.buffer = all.subarray(start);
      let at = start + 1, length = 0, scale = 1, byte;
      do {
        if (at > start + 4) throw new Error('malformed packet length');
        if (at >= all.length) return;
        byte = all[at++];
        length += (byte & 127) * scale;
        scale *= 128;
      } while (byte & 128);
      if (all.length < at + length) return;
      start = at + length;
      this.handle(this.buffer[0], all.subarray(at, start));
      if (!this.socket) return;
    }
  }
  handle(first, body) {
    const id = at => (body[at] << 8) | body[at + 1];
    switch (first >> 4) {
      case 2: // CONNACK
        if (body[1] !== 0) throw new Error(`connection refused (code ${body[1]})`);
        clearTimeout(this.silence);
        this.attempt = 0;
        this.ready = true;
        this.pings = setInterval(() => {
          this.send(0xc0);
          clearTimeout(this.silence);
          this.silence = setTimeout(() => this.drop('no answer to a ping within 10 s'), 10000);
        }, 20000);
        this.hooks.state('open');
        break;
      case 3: { // PUBLISH
        const qos = (first >> 1) & 3, end = 2 + id(0);
        if (qos > 1 || end > body.length) throw new Error('malformed PUBLISH');
        if (qos === 1) this.send(0x40, [body[end], body[end + 1]]);
        const read = (from, to) => new TextDecoder().decode(body.subarray(from, to));
        this.hooks.message(read(2, end), read(end + (qos ? 2 : 0)), Boolean(first & 1));
        break;
      }
      case 4: // PUBACK
        this.inFlight.get(id(0))?.settle();
        break;
      case 9: // SUBACK
        if (body[2] > 2) this.hooks.refused(id(0));
        break;
      case 13: // PINGRESP
        clearTimeout(this.silence);
        break;
      default:
        throw new Error(`unexpected packet type ${first >> 4}`);
    }
  }
  packetId() {
    do { this.nextId = this.nextId % 65535 + 1; } while (this.inFlight.has(this.nextId));
    return [this.nextId >> 8, this.nextId & 255];
  }
  subscribe(filter) { this.send(0x82, this.packetId(), Mqtt.text(filter), [0]); }
  // QoS 1 with RETAIN, which in tablecast replaces the record; an empty payload deletes it. Resolves at the PUBACK.
  publish(topic, payload) {
    if (!this.ready) return Promise.reject(new Error('MQTT is not connected'));
    return new Promise((resolve, reject) => {
      const id = this.packetId(), number = this.nextId;
      const settle = error => {
        clearTimeout(timer);
        this.inFlight.delete(number);
        if (error) reject(error); else resolve('PUBACK');
      };
      const timer = setTimeout(() => settle(new Error(`MQTT: no PUBACK for ${topic}`)), WRITE_TIMEOUT_MS);
      this.inFlight.set(number, { settle });
      this.send(0x33, Mqtt.text(topic), id, [...new TextEncoder().encode(payload)]);
    });
  }
}

// ---- REST, SSE and WebSocket --------------------------------------------------------------------------------------

async function rest(method, path, body) {
  const options = { method, signal: AbortSignal.timeout(WRITE_TIMEOUT_MS), cache: 'no-store' };
  if (body !== undefined) Object.assign(options, { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } });
  let response, text;
  const began = performance.now();
  try {
    response = await fetch(path, options);
    text = await response.text();
  } catch (error) {
    const late = error.name === 'TimeoutError';
    status('rest', 'closed', late ? 'no answer' : 'unreachable');
    const hint = late ? ' (a browser opens six connections per host: close other tabs of this page)' : '';
    throw new Error(`${method} ${path}: ${late ? 'no answer in 8 s' : error.message}${hint}`);
  }
  status('rest', 'open', ms(performance.now() - began));
  if (response.ok) return { code: response.status, text };
  let reason = text.slice(0, 200);
  try {
    const problem = JSON.parse(text);
    reason = [problem.title, problem.detail ?? problem.error].filter(Boolean).join(': ') || reason;
  } catch { /* not JSON: the text itself is the reason */ }
  throw new Error(`${method} ${path} → ${response.status} ${reason || response.statusText}`);
}

// Replaces a record, or deletes it when `value` is null; resolves with what the server answered.
async function write(via, table, key, value) {
  if (via === 'mqtt') {
    if (/[+#%\u0000]/.test(key)) throw new Error(`The id ${key} cannot be an MQTT topic: write it with REST`);
    const topic = table === 'Topics' ? key : `${table}/${key}`;
    return `MQTT ${await mqtt.publish(topic, value === null ? '' : JSON.stringify(value))}`;
  }
  const path = `/${table}/${encodeURIComponent(key)}`;
  const { code } = value === null ? await rest('DELETE', path) : await rest('PUT', path, value);
  return `REST ${code}`;
}

// While a write is under way, keeps only the newest value: a dragged slider never queues.
function newestOnly(task) {
  let busy = false, waiting = null;
  return async value => {
    waiting = { value };
    if (busy) return;
    busy = true;
    while (waiting) {
      const next = waiting.value;
      waiting = null;
      await task(next);
    }
    busy = false;
  };
}

const sources = { sign: 'closed', sensors: 'closed' };
function stream(name, path, onEvent, onOpen) {
  let source, timer, attempt = 0;
  const state = next => {
    sources[name] = next;
    const all = Object.values(sources);
    status('sse', ['closed', 'connecting', 'open'].find(s => all.includes(s)));
  };
  const open = () => {
    clearTimeout(timer);
    state('connecting');
    source = new EventSource(path);
    source.onopen = () => { attempt = 0; state('open'); onOpen(); };
    source.onmessage = event => onEvent(event.data);
    source.onerror = () => {
      const gone = source.readyState === EventSource.CLOSED; // the server's answer was no event stream
      state(gone ? 'closed' : 'connecting');
      fail('link:sse', `SSE ${path}: ${gone ? 'refused by the server' : 'connection lost'}, trying again`);
      if (gone) timer = setTimeout(open, backoff(attempt++));
    };
  };
  open();
  return {
    open: () => { if (source.readyState === EventSource.CLOSED) open(); },
    close: () => { clearTimeout(timer); source.close(); state('closed'); },
  };
}

function socketStream(path, onEvent, onOpen) {
  let attempt = 0;
  const open = () => {
    status('ws', 'connecting');
    const socket = new WebSocket(wsOrigin + path);
    socket.onopen = () => { attempt = 0; status('ws', 'open'); onOpen(); };
    socket.onmessage = event => onEvent(event.data);
    socket.onclose = event => {
      const wait = backoff(attempt++);
      status('ws', 'closed', `retry in ${Math.ceil(wait / 1000)} s`);
      fail('link:ws', `WebSocket ${path}: ${event.reason || `connection closed (${event.code})`}`);
      setTimeout(open, wait);
    };
  };
  open();
}

// The text of a record, or of a message that is plain bytes (a JSON envelope holds those as numbers).
function textOf(value) {
  if (value === null || value === undefined) return '';
  if (typeof value !== 'object') return String(value);
  if (Array.isArray(value.data?.data)) return new TextDecoder().decode(Uint8Array.from(value.data.data));
  return value.value === undefined || value.value === null ? '' : String(value.value);
}
function parse(where, raw) {
  try { return JSON.parse(raw); } catch { fail(`parse:${where}`, `${where} sent what is not JSON: ${raw.slice(0, 120)}`); }
}

// ---- The sign -----------------------------------------------------------------------------------------------------

// Columns of ASCII 33 to 126, top dot in the lowest bit; any other character is drawn small and sampled.
const GLYPHS = `5f 030003 147f147f14 242a7f2a12 4326106462 3649562050 03 3e41 413e 2a1c7f1c2a 08083e0808 8060 08080808 60 6010080403
  3e615d433e 427f40 6251494946 2241494936 1814127f10 2745454539 3e49494932 0171090503 3649494936 264949493e 36 8056 08142241
  14141414 41221408 0201590906 3e415d551e 7e1111117e 7f49494936 3e41414122 7f4141413e 7f49494941 7f09090901 3e4149497a
  7f0808087f 417f41 204041413f 7f08142241 7f40404040 7f020c027f 7f0408107f 3e4141413e 7f09090906 3e4151215e 7f09192946
  2649494932 01017f0101 3f4040403f 0f3040300f 3f4038403f 6314081463 0708700807 6151494543 7f41 0304081060 417f 0402010204
  40404040 0102 2054545478 7f48444438 3844444428 384444487f 3854545418 087e0902 98a4a4a47c 7f08040478 7d 80847d 7f102844 3f40
  7c04780478 7c08040478 3844444438 fc24242418 18242424fc 7c080404 4854545424 043f4424 3c4040207c 1c2040201c 3c4030403c
  4428102844 1ca0a0a07c 4464544c44 083641 7f 413608 0804080408`.trim().split(/\s+/);

const sign = (() => {
  const canvas = $('sign-canvas'), context = canvas.getContext('2d');
  const ROWS = 11, STEP_MS = 42;
  let columns = [], cols = 84, pitch = 12, offset = 0, hold = 0, lit = true, level = 0.8, board, dot, last = 0;

  function sampled(character) {
    const small = new OffscreenCanvas(14, 8).getContext('2d', { willReadFrequently: true });
    small.font = '9px sans-serif';
    small.fillText(character, 0, 7);
    const width = Math.max(1, Math.min(14, Math.ceil(small.measureText(character).width)));
    const { data } = small.getImageData(0, 0, width, 8);
    return Array.from({ length: width }, (_, x) => Array.from({ length: 8 }, (_, y) => data[(y * width + x) * 4 + 3] / 255));
  }
  function glyph(character) {
    const code = character.codePointAt(0), hex = GLYPHS[code - 33];
    if (code === 32) return [[], [], []];
    if (!hex) return sampled(character);
    return hex.match(/../g).map(pair => Array.from({ length: 8 }, (_, y) => (parseInt(pair, 16) >> y) & 1));
  }
  const period = () => Math.max(columns.length + 28, cols); // the text follows itself round after a gap
  const rest = () => columns.length <= cols ? -Math.floor((cols - columns.length) / 2) : -3;

  function layout() {
    const width = canvas.clientWidth, ratio = devicePixelRatio || 1;
    if (!width) return;
    cols = width < 560 ? 50 : 96;
    pitch = width * ratio / cols;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(pitch * ROWS);
    canvas.style.height = `${canvas.height / ratio}px`;
    const circle = (target, x, y, radius, style) => {
      target.fillStyle = style;
      target.beginPath();
      target.arc(x, y, radius, 0, 7);
      target.fill();
    };
    board = new OffscreenCanvas(canvas.width, canvas.height);
    const under = board.getContext('2d');
    for (let x = 0; x < cols; x++) for (let y = 0; y < ROWS; y++) circle(under, (x + .5) * pitch, (y + .5) * pitch, pitch * .34, '#1c1815');
    dot = new OffscreenCanvas(Math.ceil(pitch * 2), Math.ceil(pitch * 2));
    const over = dot.getContext('2d'), glow = over.createRadialGradient(pitch, pitch, pitch * .2, pitch, pitch, pitch);
    glow.addColorStop(0, 'rgb(255 150 20 / .5)');
    glow.addColorStop(1, 'rgb(255 130 0 / 0)');
    over.fillStyle = glow;
    over.fillRect(0, 0, dot.width, dot.height);
    circle(over, pitch, pitch, pitch * .37, '#ff9f1c');
    circle(over, pitch, pitch, pitch * .22, '#ffd38a');
    offset = rest();
    draw();
  }
  function draw() {
    if (!board) return;
    context.globalAlpha = 1;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(board, 0, 0);
    if (!lit || !level) return;
    const round = period();
    for (let x = 0; x < cols; x++) (columns[(x + offset + round) % round] ?? []).forEach((on, y) => {
      if (on < .15) return;
      context.globalAlpha = Math.min(1, on * (.1 + .9 * level));
      context.drawImage(dot, (x - .5) * pitch, (y + 1.5) * pitch);
    });
  }
  function frame(now) {
    requestAnimationFrame(frame);
    if (now < hold || now - last < (calm.matches ? 3500 : STEP_MS)) return;
    last = now;
    if (calm.matches) { // pages instead of movement
      if (columns.length <= cols) return;
      offset = offset + cols >= columns.length ? rest() : offset + cols - 8;
    } else if (++offset === rest() + period()) { // once round: pause where the text reads best
      offset = rest();
      hold = now + (columns.length <= cols ? 2600 : 900);
    }
    draw();
  }
  new ResizeObserver(layout).observe(canvas);
  requestAnimationFrame(frame);
  return {
    show(text, power, brightness) {
      lit = power;
      level = brightness / 100;
      const next = [...text].flatMap(c => [...glyph(c), []]).slice(0, -1);
      if ($('sign-text').dataset.text !== text || !columns.length) {
        columns = next;
        offset = rest();
        hold = last = performance.now() + (columns.length <= cols ? 2600 : 1400);
      }
      $('sign').style.setProperty('--glow', power ? level : 0);
      $('sign').dataset.power = power ? 'on' : 'off';
      $('sign-text').dataset.text = text;
      const caption = power ? text : '';
      if ($('sign-text').textContent !== caption) $('sign-text').textContent = caption;
      draw();
    },
  };
})();

// ---- Mirrors: the sign's records as each protocol delivers them ---------------------------------------------------

const mirrors = Object.fromEntries(['sse', 'ws', 'mqtt'].map(proto =>
  [proto, { node: $(`mirror-${proto}`), fields: {}, events: 0, opened: performance.now() }]));
const clicks = new Map();   // record key → the newest write made on this page
const arrivals = new Map(); // record key and text → which protocols have delivered it, since when
const signState = Object.fromEntries(FIELDS.map(field => [field, { text: '', stamp: 0 }]));

function opened(proto) { Object.assign(mirrors[proto], { opened: performance.now(), fields: {} }); }

function flash(node) {
  node.classList.add('hit');
  clearTimeout(node.flashing);
  node.flashing = setTimeout(() => node.classList.remove('hit'), 450);
}

// Shows one event in its protocol's mirror, ranks it against the others, and lets it set the sign.
function seen(proto, raw, key, value, version) {
  const now = performance.now(), field = key.slice(SIGN.length), text = textOf(value);
  if (!key.startsWith(SIGN) || !FIELDS.includes(field)) return;
  const stamp = Date.parse(value?.updated_at) || Number(value?.updated_at) || Math.floor(version) || Infinity;
  const view = mirrors[proto], node = view.node, find = selector => node.querySelector(selector);
  const click = clicks.get(key), mine = click && click.text === text && now - click.at < 10000;
  const stored = !mine && !(field in view.fields) && now - view.opened < 1500;
  const group = `${key} ${text}`;
  let arrival = arrivals.get(group);
  if (!arrival || arrival.protocols.has(proto) || now - arrival.first > 10000) {
    arrivals.set(group, arrival = { protocols: new Set(), first: now });
    if (arrivals.size > 200) arrivals.delete(arrivals.keys().next().value);
  }
  arrival.protocols.add(proto);
  if (mine) click.seen = true;
  view.fields[field] = text;
  view.events++;

  node.dataset.value = view.fields.message ?? '';
  node.dataset.last = `${field}=${text}`;
  const message = find('.value');
  message.textContent = view.fields.message || 'no message';
  message.classList.toggle('none', !view.fields.message);
  find('.rest').textContent = `brightness ${view.fields.brightness || '–'}, power ${view.fields.power || '–'}`;
  showRaw(find('.raw'), raw, value);
  find('.rank').textContent = stored ? '' : ['1st', '2nd', '3rd'][arrival.protocols.size - 1];
  const since = now - (mine ? click.at : arrival.first);
  const when = mine ? [el('b', { textContent: ms(since) }), ' after the click']
    : stored ? ['stored record, on subscribing'] : since ? [el('b', { textContent: `+${ms(since)}` }), ' after the first'] : ['written elsewhere'];
  find('.meta').replaceChildren(`${field}: `, ...when, `, event ${view.events}`);
  if (!stored) flash(node);

  // The protocols race, so one may bring a change that another has already overtaken.
  const state = signState[field];
  if (stamp !== Infinity && stamp < state.stamp) return;
  state.text = text;
  if (stamp !== Infinity) state.stamp = stamp;
  renderSign();
}
function showRaw(node, raw, value) {
  const record = value === null ? null : JSON.stringify(value), at = record ? raw.indexOf(record) : -1;
  if (at < 0) return node.replaceChildren(raw || '(empty payload: deleted)');
  node.replaceChildren(raw.slice(0, at), el('mark', { textContent: record }), raw.slice(at + record.length));
}
function signEnvelope(proto, raw) {
  const event = parse(proto, raw);
  if (event) seen(proto, raw, String(event.id), event.type === 'delete' ? null : event.value, event.version);
}
function signMessage(topic, payload) {
  let value = payload === '' ? null : payload;
  try { value = JSON.parse(payload); } catch { /* a plain text message: shown as it is */ }
  seen('mqtt', payload, topic.replace(/^\/?(Topics\/)?/, ''), value, NaN);
}

function slide(input, value) {
  input.value = value;
  input.style.setProperty('--at', `${(input.value - input.min) / (input.max - input.min) * 100}%`);
}
function renderSign() {
  const level = signState.brightness.text === '' ? 80 : Math.max(0, Math.min(100, Number(signState.brightness.text) || 0));
  const on = signState.power.text !== 'off';
  sign.show(signState.message.text || 'tablecast', on, level);
  $('power').checked = on;
  if (performance.now() - (heldAt.get($('brightness')) ?? -1e9) > 600) {
    slide($('brightness'), level);
    $('brightness-out').value = level;
  }
}
const heldAt = new Map(); // a slider that a person is moving isn't moved by events
function held(input, render) {
  heldAt.set(input, performance.now());
  clearTimeout(input.release);
  input.release = setTimeout(() => { heldAt.delete(input); render(); }, 700);
}

async function setSign(field, text) {
  const via = checked('via'), key = SIGN + field, click = { text, at: performance.now(), seen: false };
  clicks.set(key, click);
  $('sign-ack').textContent = `Writing ${field}`;
  try {
    const answer = await write(via, 'Topics', key, { value: text });
    $('sign-ack').replaceChildren(`${field}: `, el('b', { textContent: answer }), ` in ${ms(performance.now() - click.at)}`);
    dismiss('sign');
    setTimeout(() => {
      if (click.seen || clicks.get(key) !== click) return;
      fail('sign', `${field} was acknowledged (${answer}), but no stream has delivered the change within 3 s`);
    }, 3000);
  } catch (error) {
    $('sign-ack').textContent = `${field} was not written`;
    fail('sign', error);
    renderSign();
  }
}
$('sign-form').onsubmit = event => { event.preventDefault(); setSign('message', $('sign-input').value); };
$('power').onchange = event => setSign('power', event.target.checked ? 'on' : 'off');
const dim = newestOnly(level => setSign('brightness', level));
$('brightness').oninput = ({ target }) => {
  held(target, renderSign);
  slide(target, target.value);
  $('brightness-out').value = target.value;
  dim(target.value);
};

// ---- Sensors ------------------------------------------------------------------------------------------------------

const CARDS_MAX = 300, HISTORY = 48;
const sensors = new Map(); // id → { record, history, node, touched }
const number = value => typeof value === 'number' && Number.isFinite(value) ? value : null;

function sensorEvent(raw) {
  const event = parse('SSE', raw);
  if (!event || event.id === null) return;
  const id = String(event.id);
  if (event.type === 'delete') return removeSensor(id);
  if (event.type === 'put') return putSensor(id, event.value);
  const sensor = sensors.get(id); // a message is passed on and not stored
  if (sensor?.node) sensor.note.textContent = `message: ${JSON.stringify(event.value)}`;
}
function putSensor(id, record) {
  let sensor = sensors.get(id);
  if (!sensor) sensors.set(id, sensor = { history: [], node: null });
  Object.assign(sensor, { record: record ?? {}, touched: performance.now() });
  const temp = number(sensor.record.temp);
  if (temp !== null) sensor.history = [...sensor.history, temp].slice(-HISTORY);
  if (!sensor.node && document.querySelectorAll('.sensor').length < CARDS_MAX) makeCard(id, sensor);
  if (sensor.node) { renderSensor(sensor); flash(sensor.node); }
  countSensors();
}
function removeSensor(id) {
  sensors.get(id)?.node?.remove();
  sensors.delete(id);
  countSensors();
}
function countSensors() {
  const all = sensors.size, hidden = all - document.querySelectorAll('.sensor').length;
  $('sensor-count').textContent = `${all} ${all === 1 ? 'record' : 'records'}, live over SSE${hidden ? ` (${hidden} not shown)` : ''}`;
}
function makeCard(id, sensor) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  sensor.line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  svg.setAttribute('viewBox', '0 0 100 38');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(sensor.line);
  sensor.where = el('span', { className: 'where' });
  sensor.temp = el('span', { className: 'temp' });
  sensor.note = el('p', { className: 'note' });
  sensor.slider = el('input', { type: 'range', min: 0, max: 100, step: 0.1, ariaLabel: `Temperature of sensor ${id}` });
  const send = newestOnly(temp => writeSensor(checked('sensor-via'), id, temp));
  sensor.slider.oninput = ({ target }) => {
    held(target, () => renderSensor(sensor));
    slide(target, target.value);
    send(Number(target.value));
  };
  const remove = el('button', { type: 'button', className: 'sensor-delete', ariaLabel: `Delete sensor ${id}`, textContent: '✕' });
  remove.onclick = () => write(checked('sensor-via'), 'Sensors', id, null).catch(error => fail(`sensor:${id}`, error));
  sensor.node = el('article', { className: 'panel sensor' },
    el('header', {}, el('h3', { textContent: id }), sensor.where, remove),
    el('div', { className: 'reading' }, sensor.temp, svg), sensor.slider, sensor.note);
  sensor.node.dataset.sensor = id;
  const after = [...document.querySelectorAll('.sensor')]
    .find(card => card.dataset.sensor.localeCompare(id, undefined, { numeric: true }) > 0);
  $('sensors').insertBefore(sensor.node, after ?? $('sensor-form'));
}
function renderSensor({ record, history, node, line, where, temp, slider, note }) {
  const value = number(record.temp);
  node.dataset.temp = value ?? '';
  where.textContent = record.location ?? '';
  temp.textContent = value === null ? '–' : `${value.toFixed(1)}°`;
  note.textContent = note.textContent.startsWith('message') ? '' : note.textContent;
  const low = Math.min(...history), span = Math.max(2, Math.max(...history) - low);
  const points = history.length === 1 ? [history[0], history[0]] : history;
  line.setAttribute('points', points.map((t, i) =>
    `${(i / (points.length - 1) * 100).toFixed(1)},${(35 - (t - low) / span * 32).toFixed(1)}`).join(' '));
  if (value === null || heldAt.has(slider)) return;
  if (value < slider.min) slider.min = Math.floor(value / 50) * 50;
  if (value > slider.max) slider.max = Math.ceil(value / 50) * 50;
  slide(slider, value);
}
// A put replaces the whole record, so the fields that this page doesn't edit go along.
async function writeSensor(via, id, temp, fields = {}) {
  const began = performance.now();
  try {
    const answer = await write(via, 'Sensors', id, { ...sensors.get(id)?.record, ...fields, id, temp });
    const sensor = sensors.get(id);
    if (sensor?.node) sensor.note.textContent = `${answer} in ${ms(performance.now() - began)}`;
    dismiss(`sensor:${id}`);
    return true;
  } catch (error) {
    fail(`sensor:${id}`, error);
    return false;
  }
}
// After a lost connection: what was deleted meanwhile has no event any more, so the table is read again.
async function readSensors() {
  const began = performance.now();
  try {
    const rows = JSON.parse((await rest('GET', '/Sensors/')).text), ids = new Set(rows.map(row => String(row.id)));
    for (const [id, sensor] of sensors) if (!ids.has(id) && sensor.touched < began) removeSensor(id);
    for (const row of rows) if (!sensors.has(String(row.id))) putSensor(String(row.id), row);
    countSensors();
  } catch (error) { fail('sensors', error); }
}
$('sensor-form').onsubmit = async event => {
  event.preventDefault();
  const id = $('sensor-add-id').value.trim(), place = $('sensor-add-location').value.trim();
  if (!id || /[/.?]/.test(id)) return fail('add', 'A sensor id here is plain text without slash, dot or question mark');
  dismiss('add');
  const added = await writeSensor(checked('sensor-via'), id, $('sensor-add-temp').valueAsNumber, place ? { location: place } : {});
  if (!added) return;
  $('sensor-add-id').value = $('sensor-add-location').value = '';
  $('sensor-add-id').focus();
};

let drift = null;
function simulate(on) {
  clearInterval(drift);
  drift = on ? setInterval(step, 900) : null;
  $('simulate').setAttribute('aria-pressed', String(on));
  $('simulate').textContent = on ? 'Stop drifting' : 'Simulate drift';
  if (on) step();
}
async function step() {
  const invented = [['sim-1', 21, 'greenhouse'], ['sim-2', 34, 'server room'], ['sim-3', 4, 'cold store']];
  const some = [...sensors].slice(0, 4).map(([id, { record }]) => [id, number(record.temp) ?? 20, record.location]);
  const writes = (some.length ? some : invented).map(([id, temp, location]) =>
    writeSensor('mqtt', id, Number((temp + (Math.random() - 0.5) * 1.6).toFixed(2)), location ? { location } : {}));
  if ((await Promise.all(writes)).includes(false)) simulate(false);
}
$('simulate').onclick = () => simulate(drift === null);

// ---- Commands, then connect ---------------------------------------------------------------------------------------

const at = location.hostname === 'localhost' ? '' : `-h ${location.hostname.replace(/[[\]]/g, '')} `;
for (const [what, command] of [
  ['Watch over MQTT', `mosquitto_sub ${at}-t 'Sensors/#' -v`],
  ['Watch over SSE', `curl -N -H 'Accept: text/event-stream' ${location.origin}/Sensors/101`],
  ['Write over MQTT', `mosquitto_pub ${at}-t Sensors/101 -q 1 -r -m '{"location":"lab","temp":23.5}'`],
  ['Write over REST', `curl -X PUT -H 'Content-Type: application/json' -d '{"location":"lab","temp":24.5}' ${location.origin}/Sensors/101`],
  ['Set the sign', `mosquitto_pub ${at}-t led-sign/demo/message -q 1 -r -m '{"value":"hello from a shell"}'`],
]) {
  const code = el('code', { textContent: command, tabIndex: 0 });
  const copy = el('button', { type: 'button', textContent: 'Copy', ariaLabel: `Copy: ${what}` });
  copy.onclick = async () => {
    getSelection().selectAllChildren(code); // stays selected where the clipboard is closed to the page
    try { await navigator.clipboard.writeText(command); } catch { if (!document.execCommand('copy')) return fail('copy', 'The browser refused to copy; the command is selected'); }
    copy.textContent = 'Copied';
    setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
  };
  $('commands').append(el('li', {}, el('span', { className: 'what', textContent: what }), code, copy));
}

renderSign();
const mqtt = new Mqtt(`${wsOrigin}/mqtt`, {
  message: signMessage,
  refused: () => fail('mqtt', `MQTT: the server refused the subscription to ${SIGN}+`),
  state(state, reason, wait) {
    status('mqtt', state, wait ? `retry in ${Math.ceil(wait / 1000)} s` : state);
    if (state === 'closed') fail('link:mqtt', `MQTT: ${reason}`);
    if (state === 'open') { opened('mqtt'); mqtt.subscribe(`${SIGN}+`); }
  },
});
socketStream(`/Topics/${SIGN}`, raw => signEnvelope('ws', raw), () => opened('ws'));
const streams = [
  stream('sign', `/Topics/${SIGN}`, raw => signEnvelope('sse', raw), () => opened('sse')),
  stream('sensors', '/Sensors/', sensorEvent, readSensors),
];
// REST holds no connection: a request without an answer's body tells whether it answers. A hidden page gives its two streams back, because a
// browser opens only six connections per host.
setInterval(() => { if (!document.hidden) rest('HEAD', '/Sensors/').catch(error => fail('link:rest', error)); }, 10000);
let hiding;
document.onvisibilitychange = () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => streams.forEach(s => s.close()), HIDDEN_GRACE_MS);
  else streams.forEach(s => s.open());
};
