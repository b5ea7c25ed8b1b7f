// Subscriber: the eventsource package (onmessage, as its users write it).

import { EventSource } from 'eventsource';
import { args, authHeaders, closed, emit, envelopeMessage, fail, ready, urlOf, whenStdinCloses } from './contract.mjs';

const a = args();
const source = new EventSource(urlOf(a), {
  fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...authHeaders(a) } }),
});
source.onopen = ready;
source.onmessage = (event) => envelopeMessage(Buffer.from(event.data), 'json', event.lastEventId || null);
source.addEventListener('harper-error', (event) => emit({ error: event.data, code: null }));
source.onerror = (event) => {
  if (source.readyState === EventSource.CLOSED) fail(event.message ?? 'closed', event.code ?? null);
  if (!a.reconnect) closed(event.message ?? 'the stream ended');
};
whenStdinCloses(() => source.close());
