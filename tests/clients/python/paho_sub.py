"""Subscriber: paho-mqtt, over TCP or (--websocket) over WebSocket."""

import contract
import paho_client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.subscribeoptions import SubscribeOptions

args = contract.arguments()
client = paho_client.client(args)


def on_connect(c, _userdata, _flags, reason, _properties):
    if reason.is_failure:
        contract.fail(f"connection refused: {reason}", status=reason.value)
    if args.mqtt_version == 5:
        chosen = paho_client.properties(PacketTypes.SUBSCRIBE, UserProperty=("format", args.format))
        c.subscribe(args.filter, options=SubscribeOptions(qos=args.qos), properties=chosen)
    else:
        c.subscribe(args.filter, args.qos)


def on_subscribe(_c, _userdata, _mid, reasons, _properties):
    if reasons[0].is_failure:
        contract.fail(f"subscription refused: {reasons[0]}", status=reasons[0].value)
    contract.ready()


def on_message(_c, _userdata, m):
    content_type = getattr(m.properties, "ContentType", None)
    contract.mqtt_message(args, m.topic, m.payload, m.retain, m.qos, content_type)


def on_disconnect(_c, _userdata, _flags, reason, _properties):
    if not args.reconnect:
        contract.closed(reason)


client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
client.on_disconnect = on_disconnect
paho_client.connect(client, args)


def end():
    client.on_disconnect = None
    client.disconnect()
    client.loop_stop()


client.loop_start()
contract.when_stdin_closes(end)
client._thread.join()
contract.closed("the network loop ended")
