"""Subscriber: sseclient-py over a streaming response of requests."""

import contract
import requests
import sseclient

args = contract.arguments()
session = requests.Session()
session.trust_env = False
headers = {"Accept": "text/event-stream"} | contract.auth_headers(args)
try:
    response = session.get(args.http.rstrip("/") + "/" + args.path, stream=True, headers=headers, timeout=(10, None))
except requests.RequestException as e:
    contract.fail(e)
kind = response.headers.get("Content-Type", "")
if response.status_code != 200 or not kind.startswith("text/event-stream"):
    contract.fail(f"{response.status_code} {kind}", status=response.status_code)
contract.ready()
contract.when_stdin_closes(lambda: None)
try:
    for event in sseclient.SSEClient(response).events():
        if event.event != "message":
            contract.emit({"error": f"event {event.event}: {event.data}", "code": None})
            continue
        contract.envelope_message(event.data.encode(), "json", event.id or None)
except requests.RequestException as e:
    contract.closed(e)
contract.closed("end of stream")
