"""What every Python client of the end-to-end tests shares: the command line, the JSON lines and the codecs.

A subscriber prints {"ready":true} once its subscription is live, then one JSON line for each message, and ends when
its standard input closes. A publisher reads one JSON command a line and answers each with one JSON line.
"""

import argparse
import base64
import datetime
import json
import os
import sys
import threading

CONTENT_TYPES = {"json": "application/json", "cbor": "application/cbor", "msgpack": "application/x-msgpack"}
_out_lock = threading.Lock()


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--http", default="http://127.0.0.1:9926", help="base URL of the HTTP port")
    p.add_argument("--mqtt", default="127.0.0.1:1883", help="HOST:PORT of the MQTT port")
    p.add_argument("--path", default="", help="resource path, without the leading slash")
    p.add_argument("--filter", default="", help="MQTT topic filter")
    p.add_argument("--table", default=None, help="exported path of the table, to take the id out of a topic")
    p.add_argument("--format", default="json", choices=sorted(CONTENT_TYPES))
    p.add_argument("--qos", type=int, default=0)
    p.add_argument("--mqtt-version", type=int, default=4, choices=[4, 5])
    p.add_argument("--websocket", action="store_true", help="MQTT over WebSocket on the HTTP port")
    p.add_argument("--ws-path", default="/mqtt")
    p.add_argument("--client-id", default="")
    p.add_argument("--keep-session", action="store_true")
    p.add_argument("--reconnect", action="store_true")
    p.add_argument("--username", default=None)
    p.add_argument("--password", default=None)
    args, unknown = p.parse_known_args()
    if unknown:
        fail(f"unknown arguments: {unknown}", 2)
    return args


def host_port(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def authority(url):
    """HOST:PORT of a URL of an HTTP base."""
    return url.split("://", 1)[1].split("/", 1)[0]


def auth_headers(args):
    if args.username is None:
        return {}
    pair = f"{args.username}:{args.password or ''}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def jsonable(value):
    """Bytes as Node's Buffer does it, times as ISO 8601, map keys as text: what JSON.stringify would print."""
    if isinstance(value, (bytes, bytearray)):
        return {"type": "Buffer", "data": list(value)}
    if isinstance(value, datetime.datetime):
        utc = value.astimezone(datetime.timezone.utc)
        return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def emit(line):
    with _out_lock:
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stdout.flush()


def ready():
    emit({"ready": True})


def fail(reason, code=1, status=None):
    emit({"error": str(reason), "code": status})
    os._exit(code)


def closed(reason, code=3):
    emit({"closed": str(reason)})
    os._exit(code)


def when_stdin_closes(then):
    def wait():
        while sys.stdin.buffer.read(4096):
            pass
        try:
            then()
        finally:
            sys.stdout.flush()
            os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def encode(value, fmt):
    if fmt == "cbor":
        import cbor2

        return cbor2.dumps(value)
    if fmt == "msgpack":
        import msgpack

        return msgpack.packb(value)
    return json.dumps(value).encode()


def decode(raw, fmt):
    """The decoded value, or None if the bytes are no such thing."""
    try:
        if fmt == "cbor":
            import io

            import cbor2

            stream = io.BytesIO(raw)
            value = cbor2.load(stream)
            return value if stream.tell() == len(raw) else None
        if fmt == "msgpack":
            import msgpack

            return msgpack.unpackb(raw, timestamp=3, strict_map_key=False)
        return json.loads(raw)
    except Exception:
        return None


def format_of(content_type, otherwise):
    """A content type's codec; without a content type `otherwise`; None for a type without a codec."""
    if not content_type:
        return otherwise
    bare = content_type.split(";")[0].strip().lower()
    return next((f for f, t in CONTENT_TYPES.items() if t == bare), None)


def id_of(topic, args):
    table = args.table
    if table is None:
        first = args.filter.split("/", 1)[0]
        table = "" if first in ("", "+", "#", "$share") else first
    if table and topic == table:
        return None
    if table and topic.startswith(table + "/"):
        return topic[len(table) + 1 :]
    return topic.removeprefix("/")


def mqtt_message(args, topic, raw, retain, qos, content_type):
    fmt = format_of(content_type, args.format if args.mqtt_version == 5 or args.websocket else "json")
    value = decode(raw, fmt) if raw and fmt else None
    emit(
        {
            "topic": topic,
            "id": id_of(topic, args),
            "type": None,
            "retain": bool(retain),
            "qos": qos,
            "sse_id": None,
            "value": jsonable(value),
            "raw_base64": base64.b64encode(raw).decode(),
            "envelope": False,
            "content_type": content_type,
        }
    )


def envelope_message(raw, fmt, sse_id=None):
    event = decode(raw, fmt)
    wrapped = isinstance(event, dict) and "id" in event and "type" in event
    emit(
        {
            "topic": None,
            "id": jsonable(event["id"]) if wrapped else None,
            "type": event["type"] if wrapped else None,
            "retain": None,
            "qos": None,
            "sse_id": sse_id,
            "value": jsonable(event.get("value") if wrapped else event),
            "raw_base64": base64.b64encode(raw).decode(),
            "envelope": wrapped,
            "content_type": CONTENT_TYPES[fmt],
        }
    )


def payload_of(command):
    """The bytes of a command and the content type they are sent with."""
    if command.get("raw_base64") is not None:
        return base64.b64decode(command["raw_base64"]), "application/octet-stream"
    fmt = command.get("format") or "json"
    return encode(command.get("value"), fmt), CONTENT_TYPES[fmt]


def commands(handle):
    """Answers each command line with what `handle(command)` returns, until standard input closes."""
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            emit(handle(json.loads(line)))
        except Exception as e:
            emit({"ok": False, "status": None, "error": f"{type(e).__name__}: {e}"})
