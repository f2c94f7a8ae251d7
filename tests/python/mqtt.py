"""Be MQTT clients with the unmodified paho.

The first line of standard input says where the broker is and with which certificate to go there (a
JSON object), each further line is something that one of the clients does. Each line is answered by
one line of standard output: {"ok": ...} or {"error": "..."}.
"""

import json
import queue
import ssl
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

# Long, for machines under load.
TIMEOUT_S = 30


def properties(kind, given):
    """Properties for a packet; names are those of paho."""
    if not given:
        return None
    made = Properties(kind)
    for name, value in given.items():
        if name == "CorrelationData":
            value = value.encode()
        if name == "UserProperty":
            value = [tuple(pair) for pair in value]
        setattr(made, name, value)
    return made


def shown(given):
    """Properties as JSON."""
    found = {} if given is None else given.json()
    if "CorrelationData" in found:
        found["CorrelationData"] = bytes.fromhex(found["CorrelationData"]).decode()
    return found


class Client:
    """One client; what happens to it waits in queues, one for each kind of event."""

    def __init__(self, job, given):
        self.version = given.get("version", 5)
        clean = {"clean_session": given.get("clean", True)} if self.version == 4 else {}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, given.get("id", ""), protocol=self.version,
            reconnect_on_failure=False, manual_ack=given.get("manual_ack", False), **clean)
        tls = ssl.create_default_context(cafile=job["ca"])
        tls.load_cert_chain(given.get("cert", job["cert"]), given.get("key", job["key"]))
        self.client.tls_set_context(tls)
        self.events = {name: queue.Queue() for name in (
            "connect", "disconnect", "subscribe", "unsubscribe", "publish", "message")}
        put = lambda name, value: self.events[name].put(value)
        self.client.on_connect = lambda _c, _u, flags, code, found: put("connect", {
            "session_present": flags.session_present, "code": code.value,
            "properties": shown(found)})
        self.client.on_disconnect = lambda _c, _u, flags, code, found: put("disconnect", {
            "by_server": flags.is_disconnect_packet_from_server, "code": code.value,
            "properties": shown(found)})
        self.client.on_subscribe = lambda _c, _u, mid, codes, found: put("subscribe", {
            "codes": [code.value for code in codes], "properties": shown(found)})
        self.client.on_unsubscribe = lambda _c, _u, mid, codes, found: put("unsubscribe", {
            "codes": [code.value for code in codes], "properties": shown(found)})
        self.client.on_publish = lambda _c, _u, mid, code, found: put("publish", {
            "code": code.value, "properties": shown(found)})
        self.client.on_message = lambda _c, _u, message: put("message", {
            "topic": message.topic, "payload": message.payload.decode(), "qos": message.qos,
            "retain": message.retain, "dup": message.dup, "mid": message.mid,
            "properties": shown(getattr(message, "properties", None))})
        if will := given.get("will"):
            extra = {"properties": properties(PacketTypes.WILLMESSAGE, will.get("properties"))}
            self.client.will_set(will["topic"], will["payload"], will.get("qos", 0),
                                 will.get("retain", False), **(extra if self.version == 5 else {}))

    def wait(self, name):
        return self.events[name].get(timeout=TIMEOUT_S)

    def connect(self, job, given):
        extra = {}
        if self.version == 5:
            extra = {"clean_start": given.get("clean", True),
                     "properties": properties(PacketTypes.CONNECT, given.get("properties"))}
        self.client.connect(job["host"], job["port"], given.get("keep_alive", 60), **extra)
        self.client.loop_start()
        return self.wait("connect")

    def subscribe(self, given):
        filters, extra = [], {}
        if self.version == 5:
            filters = [(name, SubscribeOptions(**options)) for name, options in given["filters"]]
            extra = {"properties": properties(PacketTypes.SUBSCRIBE, given.get("properties"))}
        else:
            filters = [(name, options.get("qos", 0)) for name, options in given["filters"]]
        self.client.subscribe(filters, **extra)
        return self.wait("subscribe")

    def unsubscribe(self, given):
        self.client.unsubscribe(given["filters"])
        return self.wait("unsubscribe")

    def publish(self, given):
        extra = {}
        if self.version == 5:
            extra["properties"] = properties(PacketTypes.PUBLISH, given.get("properties"))
        payload = bytes.fromhex(given["hex"]) if "hex" in given else given.get("payload", "")
        self.client.publish(given["topic"], payload, given.get("qos", 1),
                            given.get("retain", False), **extra)
        return self.wait("publish")

    def receive(self, given):
        return [self.wait("message") for _ in range(given["count"])]

    def acknowledge(self, given):
        return self.client.ack(given["mid"], given["qos"])

    def waiting(self, _given):
        return self.events["message"].qsize()

    def disconnect(self, given):
        extra = {}
        if self.version == 5:
            if code := given.get("reason"):
                extra["reasoncode"] = mqtt.ReasonCode(PacketTypes.DISCONNECT, identifier=code)
            extra["properties"] = properties(PacketTypes.DISCONNECT, given.get("properties"))
        self.client.disconnect(**extra)
        return self.wait("disconnect")

    def vanish(self, _given):
        self.client.socket().shutdown(2)
        return self.wait("disconnect")

    def ended(self, _given):
        return self.wait("disconnect")


def main():
    job = json.loads(sys.stdin.readline())
    clients = {}
    for line in sys.stdin:
        given = json.loads(line)
        try:
            if given["do"] == "connect":
                clients[given["client"]] = Client(job, given)
                answer = {"ok": clients[given["client"]].connect(job, given)}
            else:
                answer = {"ok": getattr(clients[given["client"]], given["do"])(given)}
        except Exception as error:  # whatever it is, the test hears of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
