"""Runs the cases of the Autobahn WebSocket test suite against a server, and prints the result of each as a line of JSON.

    autobahn_cases.py ws://127.0.0.1:9926/ [--cases 1,2,6.4] [--at-once 32]

The package `autobahntestsuite` is written for Python 2, its runner does not start on Python 3. So its case classes (what
is sent, what is expected, how the end is judged) run here as they are, on a client of our own that does what autobahn's
does: see `Client`. A text of Python 2 is a string of bytes: here it is a `str` of the characters 0 to 255.
"""

import argparse
import asyncio
import base64
import builtins
import codecs
import importlib.abc
import importlib.util
import json
import os
import random
import re
import struct
import sys
import time
import types
from urllib.parse import urlsplit

CLOSE_HANDSHAKE_S = 1  # autobahn's defaults: for the answer to a Close frame,
SERVER_DROP_S = 1  # and for the server to end the connection after it


# --- The case classes -------------------------------------------------------------------------------------------------


class Cases2to3(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules of the suite's folder of cases, whose few lines that are no Python 3 it changes."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, ("__init__" if name == "cases" else name) + ".py")

    def find_spec(self, name, path=None, target=None):
        known = name == "cases" or (name.startswith("case") and os.path.exists(self.path(name)))
        return importlib.util.spec_from_loader(name, self) if known else None

    def exec_module(self, module):
        with open(self.path(module.__name__), encoding="latin-1") as file:
            text = file.read()
        text = re.sub(r"(?m)^( *)print\b.*$", r"\1pass", text)
        text = text.replace("(object, Case, )", "(Case, )").replace(") / self", ") // self")
        # Of no use here, and in no list of cases: it needs Twisted.
        text = text.replace("from case9_9_1 import *", "")
        exec(compile(text, self.path(module.__name__), "exec"), module.__dict__)


class Utf8Validator:
    """What autobahn's class of this name tells of a whole text: valid, and at the end of a character."""

    def reset(self):
        pass

    def validate(self, text):
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            decoder.decode(text.encode("latin-1"))
        except UnicodeDecodeError:
            return (False, False)
        return (True, decoder.getstate()[0] == b"")


def load_cases():
    """The case classes in the suite's order, by their number: `6.4.1`."""
    # Not imported: the package's own `__init__` is no Python 3.
    package = os.path.dirname(importlib.util.find_spec("autobahntestsuite").origin)

    def module(name, **members):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(members)

    anything = type("Anything", (), {"__init__": lambda *_, **__: None, "__getattr__": lambda *_: None})
    compress = ["Offer", "OfferAccept", "Response", "ResponseAccept"]
    module("autobahn")
    module("autobahn.websocket")
    module("autobahn.websocket.protocol", WebSocketProtocol=Client)
    module("autobahn.websocket.utf8validator", Utf8Validator=Utf8Validator)
    module("autobahn.websocket.compress", **{"PerMessageDeflate" + name: anything for name in compress})
    module("pkg_resources", resource_filename=lambda _, path: os.path.join(package, path))
    builtins.xrange = range
    real = sys.modules["binascii"]
    module("binascii", b2a_hex=lambda text: text.encode("latin-1").hex())
    sys.meta_path.insert(0, Cases2to3(os.path.join(package, "case")))
    cases = importlib.import_module("cases").Cases
    sys.modules["binascii"] = real
    # It compares pickled forms, in which Python 3 shares what is the same object.
    sys.modules["case"].Case.compare = lambda self, one, other: one == other
    return {".".join(case.__name__[len("Case") :].split("_")): case for case in cases}


# --- The client -------------------------------------------------------------------------------------------------------


def masked(payload, mask):
    length = len(payload)
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


class Client(asyncio.Protocol):
    """A connection on which one case runs; what cases call is named as in autobahn's WebSocketClientProtocol. A server
    that breaks the rules is failed as autobahn does it: with a Close frame."""

    STATE_CLOSED, STATE_CONNECTING, STATE_CLOSING, STATE_OPEN = range(4)
    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007
    factory = types.SimpleNamespace(isServer=False)

    def __init__(self, case, number, url):
        self.url = url
        self.offers_deflate = number.startswith(("12.", "13."))
        self.loop = asyncio.get_running_loop()
        self.done = self.loop.create_future()
        self.state = Client.STATE_CONNECTING
        self.connectionWasOpen = False
        self.closedByMe = self.failedByMe = self.droppedByMe = self.wasClean = False
        self.localCloseReason = self.remoteCloseCode = None
        self.autoFragmentSize = 0
        self.createWirelog = False
        self.txFrameStats = {}
        self.trafficStats = None
        self._perMessageCompress = None
        self.timers = []
        self.received = bytearray()
        self.message = None  # what has come of a fragmented one: opcode, fragments
        self.sending = None  # the task that sends, if something waits: pieces must not be overtaken
        self.waiting = []
        self.case = case(self)

    # The connection.

    def connection_made(self, transport):
        self.transport = transport
        key = base64.b64encode(random.randbytes(16)).decode()
        extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if self.offers_deflate else ""
        transport.write(
            f"GET {self.url.path or '/'} HTTP/1.1\r\nHost: {self.url.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{extension}\r\n".encode()
        )

    def data_received(self, data):
        self.received += data
        if self.state == Client.STATE_CONNECTING:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.dropConnection()
                return
            self.received = rest
            self._perMessageCompress = True if b"permessage-deflate" in head else None
            self.state = Client.STATE_OPEN
            self.connectionWasOpen = True
            self.case.onOpen()
        at = 0
        while self.state != Client.STATE_CLOSED and (taken := self.frame(at)):
            at += taken
        del self.received[:at]

    def connection_lost(self, _):
        self.state = Client.STATE_CLOSED
        for timer in self.timers:
            timer.cancel()
        if self.sending:
            self.sending.cancel()
        self.case.onClose(self.wasClean, self.remoteCloseCode, None)
        self.case.onConnectionLost(self.failedByMe)
        self.done.set_result(None)

    def dropConnection(self):
        if self.state != Client.STATE_CLOSED:
            self.droppedByMe = True
            self.state = Client.STATE_CLOSED
            self.transport.abort()

    def failConnection(self, code=1001):
        if self.state == Client.STATE_CLOSED:
            return
        self.failedByMe = True
        if self.state == Client.STATE_CLOSING:
            self.dropConnection()
        else:
            self.sendCloseFrame(code)

    def later(self, seconds, action):
        self.timers.append(self.loop.call_later(seconds, lambda: self.state != Client.STATE_CLOSED and action()))

    # What the server says.

    def frame(self, at):
        """Takes the frame that begins at `at`; tells how long it is, 0 if it has not come whole."""
        head = self.received[at : at + 10]
        if len(head) < 2:
            return 0
        length, size = head[1] & 0x7F, 2
        if length == 126:
            length, size = int.from_bytes(head[2:4], "big"), 4
        elif length == 127:
            length, size = int.from_bytes(head[2:10], "big"), 10
        if len(self.received) < at + size + length:
            return 0
        fin, opcode = head[0] >> 7, head[0] & 0x0F
        payload = bytes(self.received[at + size : at + size + length])
        if head[0] & 0x70 or head[1] & 0x80 or opcode not in (0, 1, 2, 8, 9, 10):
            self.failConnection(1002)
        elif opcode >= 8 and (length > 125 or not fin):
            self.failConnection(1002)
        elif opcode == 8:
            self.close_frame(payload)
        elif opcode == 9:
            self.sendFrame(10, payload)
            self.case.onPing(payload.decode("latin-1"))
        elif opcode == 10:
            self.case.onPong(payload.decode("latin-1"))
        elif (opcode == 0) != (self.message is not None):
            self.failConnection(1002)
        else:
            self.message = self.message or (opcode, [])
            self.message[1].append(payload)
            if fin:
                (opcode, parts), self.message = self.message, None
                self.whole_message(opcode, b"".join(parts))
        return size + length

    def whole_message(self, opcode, payload):
        if opcode == 1:
            try:
                payload.decode("utf-8")
            except UnicodeDecodeError:
                self.failConnection(1007)
                return
        self.case.onMessage(payload.decode("latin-1"), opcode == 2)

    def close_frame(self, payload):
        code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else None
        unknown = code is not None and (code < 1000 or code in (1004, 1005, 1006) or 1012 < code < 3000 or code > 4999)
        if len(payload) == 1 or unknown:
            self.failConnection(1002)
            return
        self.remoteCloseCode = 1000 if code is None else code
        self.wasClean = True
        if self.state == Client.STATE_OPEN:
            self.sendCloseFrame(1000, isReply=True)
        self.later(SERVER_DROP_S, self.server_drop_timeout)

    def server_drop_timeout(self):
        self.wasClean = False
        self.dropConnection()

    def close_handshake_timeout(self):
        if not self.wasClean:
            self.dropConnection()

    # What cases call.

    def sendFrame(self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        if self.state == Client.STATE_CLOSED:
            return
        payload = as_bytes(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        mask = mask or random.randbytes(4)
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", fin << 7 | rsv << 4 | opcode, 0x80 | length)
        elif length < 1 << 16:
            head = struct.pack("!BBH", fin << 7 | rsv << 4 | opcode, 0x80 | 126, length)
        else:
            head = struct.pack("!BBQ", fin << 7 | rsv << 4 | opcode, 0x80 | 127, length)
        self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1
        self.send(head + mask + masked(payload, mask), chopsize, sync)

    def send(self, data, chopsize=None, sync=False):
        """Sends at once, or in pieces of so many bytes; `sync`: what comes next is a piece of its own."""
        if not chopsize and not sync and not self.waiting:
            self.transport.write(data)
            return
        step = chopsize or len(data)
        self.waiting.extend(data[at : at + step] for at in range(0, len(data), step))
        if not self.sending:
            self.sending = self.loop.create_task(self.send_pieces())

    async def send_pieces(self):
        at = 0
        while at < len(self.waiting) and self.state != Client.STATE_CLOSED:
            self.transport.write(self.waiting[at])
            at += 1
            await asyncio.sleep(0)
        self.waiting.clear()
        self.sending = None

    def sendMessage(self, payload, isBinary=False, fragmentSize=None):
        size = fragmentSize or self.autoFragmentSize
        opcode = 2 if isBinary else 1
        if not size or len(payload) <= size:
            return self.sendFrame(opcode, payload)
        # autobahn's: an empty last fragment, where the others fill the message.
        for at in range(0, len(payload) + 1, size):
            self.sendFrame(opcode if at == 0 else 0, payload[at : at + size], fin=at + size > len(payload))

    def beginMessage(self, isBinary=False):
        self.streamed = 2 if isBinary else 1

    def beginMessageFrame(self, length):
        # A streaming client frames a message of one frame as a fragment and an empty end.
        self.stream_mask, self.stream_at = random.randbytes(4), 0
        self.transport.write(struct.pack("!BB", self.streamed, 0x80 | length) + self.stream_mask)
        self.streamed = 0

    def sendMessageFrameData(self, payload):
        payload = as_bytes(payload)
        turned = (self.stream_mask * 2)[self.stream_at % 4 :][:4]
        self.stream_at += len(payload)
        self.transport.write(masked(payload, turned))

    def endMessage(self):
        self.sendFrame(0)

    def sendClose(self, code=None, reason=None):
        if code is not None and code != 1000 and not 3000 <= code <= 4999:
            raise ValueError(f"a case closes with {code}")
        self.sendCloseFrame(code, reason and reason.encode("utf-8")[:123])

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        if self.state != Client.STATE_OPEN:
            return
        payload = (b"" if code is None else struct.pack("!H", code)) + as_bytes(reasonUtf8 or b"")
        self.sendFrame(8, payload)
        self.state = Client.STATE_CLOSING
        self.closedByMe = not isReply
        self.localCloseReason = reasonUtf8
        if not isReply:
            self.later(CLOSE_HANDSHAKE_S, self.close_handshake_timeout)

    def continueLater(self, delay, action, tag=None):
        self.later(delay, action)

    def killAfter(self, delay):
        self.later(delay, self.failConnection)

    def closeAfter(self, delay):
        self.later(delay, self.sendClose)

    def enableWirelog(self, enable):
        self.createWirelog = enable


# --- The run ----------------------------------------------------------------------------------------------------------


async def run(number, case, url):
    began = time.monotonic()
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(case, number, url), url.hostname, url.port or 80)
    await client.done
    result = {
        "case": number,
        "behavior": client.case.behavior,
        "behaviorClose": client.case.behaviorClose,
        "closeCode": client.remoteCloseCode,
        "milliseconds": round(1000 * (time.monotonic() - began)),
        "result": client.case.result,
        "resultClose": client.case.resultClose,
    }
    print(json.dumps(result), flush=True)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--cases", default="", help="prefixes of their numbers, with commas between them; default: all")
    parser.add_argument("--at-once", type=int, default=32)
    arguments = parser.parse_args()
    wanted = [prefix.split(".") for prefix in arguments.cases.split(",") if prefix]
    url = urlsplit(arguments.url)

    def is_wanted(number):
        return not wanted or any(number.split(".")[: len(prefix)] == prefix for prefix in wanted)

    cases = [(number, case) for number, case in load_cases().items() if is_wanted(number)]
    free = asyncio.Semaphore(arguments.at_once)

    async def limited(number, case):
        async with free:
            await run(number, case, url)

    # Those of category 9 take the time: one after the other, at the end.
    heavy = [one for one in cases if one[0].startswith("9.")]
    await asyncio.gather(*(limited(*one) for one in cases if one not in heavy))
    for number, case in heavy:
        await run(number, case, url)
    print(json.dumps({"done": len(cases)}), flush=True)


asyncio.run(main())
