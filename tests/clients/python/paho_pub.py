"""Publisher: paho-mqtt, over TCP or (--websocket) over WebSocket. One connection for all commands."""

import queue
import threading

import contract
import paho_client
from paho.mqtt.packettypes import PacketTypes

args = contract.arguments()
client = paho_client.client(args)
connected = threading.Event()
acks = queue.Queue()


def on_connect(_c, _userdata, _flags, reason, _properties):
    if reason.is_failure:
        contract.fail(f"connection refused: {reason}", status=reason.value)
    connected.set()


def on_disconnect(_c, _userdata, _flags, reason, _properties):
    acks.put((None, reason))


client.on_connect = on_connect
client.on_publish = lambda _c, _userdata, mid, reason, _properties: acks.put((mid, reason))
client.on_disconnect = on_disconnect
paho_client.connect(client, args)
client.loop_start()
if not connected.wait(15):
    contract.fail("no CONNACK")
contract.ready()


def handle(command):
    op = command["op"]
    if op not in ("put", "message", "delete"):
        return {"ok": False, "status": None, "error": f"MQTT has no {op}"}
    payload, content_type = (b"", None) if op == "delete" else contract.payload_of(command)
    properties = None
    if args.mqtt_version == 5 and content_type in ("application/cbor", "application/x-msgpack"):
        properties = paho_client.properties(PacketTypes.PUBLISH, ContentType=content_type)
    qos = command.get("qos", 1)
    sent = client.publish(command["path"], payload, qos=qos, retain=op != "message", properties=properties)
    while True:
        mid, reason = acks.get(timeout=15)
        if mid is None:
            return {"ok": False, "status": None, "error": f"disconnected: {reason}"}
        if mid == sent.mid:
            break
    status = reason.value
    if status >= 0x80:
        return {"ok": False, "status": status, "error": str(reason)}
    return {"ok": True, "status": status}


contract.commands(handle)
client.on_disconnect = None
client.disconnect()
client.loop_stop()
