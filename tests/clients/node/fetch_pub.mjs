// Publisher: fetch. put, patch and delete are the HTTP methods of the name; message is POST to the record's URL.

import { args, authHeaders, commands, payloadOf, ready, urlOf } from './contract.mjs';

const METHODS = { put: 'PUT', patch: 'PATCH', delete: 'DELETE', message: 'POST' };
const a = args();
ready();
await commands(async (command) => {
  const init = { method: METHODS[command.op], headers: authHeaders(a), signal: AbortSignal.timeout(15_000) };
  if (command.op !== 'delete') [init.body, init.headers['Content-Type']] = payloadOf(command);
  const response = await fetch(urlOf(a, command.path), init);
  const text = await response.text();
  const answer = { ok: response.ok, status: response.status };
  return response.ok ? answer : { ...answer, error: text };
});
process.exit(0);
