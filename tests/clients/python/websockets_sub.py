"""Subscriber: the websockets package, as its users write it (compression offered, keep-alive pings on)."""

import contract
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

args = contract.arguments()
headers = contract.auth_headers(args)
if args.format != "json":
    headers["Accept"] = contract.CONTENT_TYPES[args.format]
url = "ws" + args.http.removeprefix("http").rstrip("/") + "/" + args.path
try:
    socket = connect(url, additional_headers=headers, proxy=None)
except (OSError, InvalidHandshake) as e:
    response = getattr(e, "response", None)
    contract.fail(e, status=response.status_code if response else None)
contract.ready()
contract.when_stdin_closes(socket.close)
try:
    while True:
        frame = socket.recv()
        if isinstance(frame, str):
            contract.envelope_message(frame.encode(), "json")
        else:
            contract.envelope_message(frame, args.format)
except ConnectionClosed as e:
    contract.closed(e)
