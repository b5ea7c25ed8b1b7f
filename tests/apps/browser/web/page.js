// What tests/browser.rs calls and asks for. Everything is the browser's own: fetch, EventSource, WebSocket.

const seen = { opened: 0, lost: 0, events: [], ids: [] };
const source = new EventSource('/Sensors/');
source.onopen = () => (seen.opened += 1);
source.onerror = () => (seen.lost += 1);
source.onmessage = ({ data, lastEventId }) => {
  seen.events.push(JSON.parse(data));
  seen.ids.push(lastEventId);
};

const socket = { state: 'none', messages: [], close: null };
let webSocket;
function openSocket() {
  webSocket = new WebSocket(`ws://${location.host}/Sensors/?duplex`);
  Object.assign(socket, { state: 'opening', messages: [], close: null });
  webSocket.onopen = () => (socket.state = 'open');
  webSocket.onmessage = ({ data }) => socket.messages.push(JSON.parse(data));
  webSocket.onclose = ({ code, wasClean }) => Object.assign(socket, { state: 'closed', close: { code, wasClean } });
}
const say = (message) => webSocket.send(JSON.stringify(message));

async function request(method, path, body, headers = {}) {
  const json = body === undefined ? {} : { 'Content-Type': 'application/json' };
  const options = { method, headers: { ...json, ...headers }, cache: 'no-store' };
  const response = await fetch(path, body === undefined ? options : { ...options, body: JSON.stringify(body) });
  const text = await response.text();
  return {
    status: response.status,
    type: response.headers.get('Content-Type'),
    etag: response.headers.get('ETag'),
    location: response.headers.get('Location'),
    value: text === '' ? null : JSON.parse(text),
  };
}
