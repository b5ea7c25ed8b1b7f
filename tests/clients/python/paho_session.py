"""A paho client that does as it is told: one JSON command a line, one JSON event a line (the contract is that of
tests/mqtt_sessions/foreign.rs). For sessions, wills, topic aliases and flow control."""

import json
import socket
import sys

import contract
import paho.mqtt.client as paho
import paho_client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.subscribeoptions import SubscribeOptions

args = contract.arguments()
v5 = args.mqtt_version == 5
client = None
connection = {}


def said(properties):
    """What the tests look at, under the names of mqtt.js."""
    names = {
        "SessionExpiryInterval": "sessionExpiryInterval",
        "ReceiveMaximum": "receiveMaximum",
        "TopicAliasMaximum": "topicAliasMaximum",
        "AssignedClientIdentifier": "assignedClientIdentifier",
        "MessageExpiryInterval": "messageExpiryInterval",
        "ContentType": "contentType",
        "ResponseTopic": "responseTopic",
        "SubscriptionIdentifier": "subscriptionIdentifier",
    }
    found = {ours: getattr(properties, theirs) for theirs, ours in names.items() if hasattr(properties, theirs)}
    if hasattr(properties, "UserProperty"):
        found["user"] = [list(pair) for pair in properties.UserProperty]
    return found


def on_connect(_c, _userdata, flags, reason, properties):
    contract.emit(
        {"event": "connected", "present": bool(flags.session_present), "code": reason.value, "properties": said(properties)}
    )


def on_disconnect(_c, _userdata, _flags, reason, _properties):
    contract.emit({"event": "disconnected", "code": reason.value})


def on_subscribe(_c, _userdata, _mid, reasons, _properties):
    contract.emit({"event": "subscribed", "codes": [reason.value for reason in reasons]})


def on_publish(_c, _userdata, mid, reason, _properties):
    contract.emit({"event": "published", "id": mid, "code": reason.value})


def on_message(_c, _userdata, m):
    contract.emit(
        {
            "event": "message",
            "topic": m.topic,
            "payload": m.payload.decode(),
            "qos": m.qos,
            "retain": bool(m.retain),
            "dup": bool(m.dup),
            "id": m.mid,
            "properties": said(m.properties) if v5 else {},
        }
    )


def properties_of(kind, command, names):
    found = {theirs: command[ours] for ours, theirs in names.items() if ours in command}
    properties = paho_client.properties(kind, **found) if v5 else None
    for pair in command.get("user", []):
        properties.UserProperty = tuple(pair)
    return properties


def connect(command):
    global client, connection
    clean = command.get("clean", True)
    session = {} if v5 else {"clean_session": clean}
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        client_id=command["id"],
        protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=command.get("manual", False),
        **session,
    )
    client.max_inflight_messages_set(1000)
    client.on_connect, client.on_disconnect = on_connect, on_disconnect
    client.on_subscribe, client.on_publish, client.on_message = on_subscribe, on_publish, on_message
    will = command.get("will")
    if will:
        names = {"delay": "WillDelayInterval", "contentType": "ContentType"}
        properties = properties_of(PacketTypes.WILLMESSAGE, will, names)
        client.will_set(will["topic"], will["payload"], will.get("qos", 0), will.get("retain", False), properties)
    connection = {"keepalive": 60}
    if v5:
        names = {"expiry": "SessionExpiryInterval", "receiveMaximum": "ReceiveMaximum", "aliasMaximum": "TopicAliasMaximum"}
        connection |= {"clean_start": clean, "properties": properties_of(PacketTypes.CONNECT, command, names)}
    host, port = contract.host_port(args.mqtt)
    client.connect(host, port, **connection)
    client.loop_start()


def handle(command):
    op = command["op"]
    if op == "connect":
        connect(command)
    elif op == "again":  # the same client, with what it still has to send
        client.loop_stop()
        if v5:
            connection["clean_start"] = False
        client._clean_start = False
        client.reconnect()
        client.loop_start()
    elif op == "subscribe":
        if v5:
            filters = [(name, SubscribeOptions(qos=qos)) for name, qos in command["filters"]]
            names = {"number": "SubscriptionIdentifier"}
            client.subscribe(filters, properties=properties_of(PacketTypes.SUBSCRIBE, command, names))
        else:
            client.subscribe([(name, qos) for name, qos in command["filters"]])
    elif op == "publish":
        names = {"alias": "TopicAlias", "expiry": "MessageExpiryInterval", "contentType": "ContentType"}
        properties = properties_of(PacketTypes.PUBLISH, command, names)
        retain = command.get("retain", False)
        client.publish(command["topic"], command["payload"], command.get("qos", 0), retain, properties)
    elif op == "ack":
        client.ack(command["id"], command["qos"])
    elif op == "disconnect":
        client.disconnect()
        client.loop_stop()
    elif op == "drop":
        client.socket().shutdown(socket.SHUT_RDWR)
    else:
        contract.fail(f"what is {op}?")


contract.ready()
for line in sys.stdin:
    handle(json.loads(line))
