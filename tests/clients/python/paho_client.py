"""The paho client both paho programs connect: TCP or WebSocket, MQTT 3.1.1 or 5."""

import contract
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def client(args):
    v5 = args.mqtt_version == 5
    kwargs = {} if v5 else {"clean_session": not args.keep_session}
    if not v5 and args.keep_session and not args.client_id:
        contract.fail("--keep-session needs --client-id", 2)
    c = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        client_id=args.client_id,
        protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
        transport="websockets" if args.websocket else "tcp",
        **kwargs,
    )
    if args.websocket:
        chosen = contract.CONTENT_TYPES[args.format]
        headers = {"Accept": chosen, "Content-Type": chosen} if args.format != "json" else {}
        c.ws_set_options(path=args.ws_path, headers=headers | contract.auth_headers(args))
    if args.username is not None:
        c.username_pw_set(args.username, args.password)
    c.reconnect_delay_set(1, 1)
    return c


def connect(c, args):
    host, port = contract.host_port(contract.authority(args.http) if args.websocket else args.mqtt)
    kwargs = {}
    if args.mqtt_version == 5:
        kwargs["clean_start"] = not args.keep_session
        if args.keep_session:
            kwargs["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=3600)
    try:
        c.connect(host, port, keepalive=60, **kwargs)
    except OSError as e:
        contract.fail(f"connect: {e}")


def properties(packet_type, **values):
    p = Properties(packet_type)
    for name, value in values.items():
        setattr(p, name, value)
    return p
