"use strict";

// Be MQTT clients with the unmodified MQTT.js.
//
// The first line of standard input says where the broker is and with which certificate to go there
// (a JSON object), each further line is something that one of the clients does. Each line is
// answered by one line of standard output: {"ok": ...} or {"error": "..."}. Properties have the
// names that paho gives them, so that scenarios can be told in one language.

const fs = require("fs");
const readline = require("readline");
const mqtt = require("mqtt");

// Long, for machines under load.
const TIMEOUT_MS = 30000;

/** Properties for a packet. */
function properties(given) {
  const made = {};
  for (const [name, value] of Object.entries(given ?? {})) {
    if (name === "UserProperty") {
      made.userProperties = {};
      for (const [key, one] of value) {
        (made.userProperties[key] ??= []).push(one);
      }
    } else {
      const key = name[0].toLowerCase() + name.slice(1);
      made[key] = name === "CorrelationData" ? Buffer.from(value) : value;
    }
  }
  return made;
}

/** Properties as JSON. Pairs of one name stand together: MQTT.js does not keep their order. */
function shown(given) {
  const found = {};
  for (const [key, value] of Object.entries(given ?? {})) {
    if (key === "userProperties") {
      found.UserProperty = Object.entries(value)
        .flatMap(([name, some]) => [some].flat().map((one) => [name, one]));
    } else {
      const name = key[0].toUpperCase() + key.slice(1);
      found[name] = Buffer.isBuffer(value) ? value.toString() : value;
    }
  }
  return found;
}

/** One client; what happens to it waits in queues, one for each kind of event. */
class Client {
  constructor(job, given) {
    this.queues = {};
    this.waiters = {};
    this.version = given.version ?? 5;
    const will = given.will && {
      qos: 0, retain: false, ...given.will, properties: properties(given.will.properties),
    };
    this.client = mqtt.connect({
      protocol: "mqtts", host: job.host, port: job.port,
      ca: fs.readFileSync(job.ca),
      cert: fs.readFileSync(given.cert ?? job.cert), key: fs.readFileSync(given.key ?? job.key),
      protocolVersion: this.version, clientId: given.id ?? "", clean: given.clean ?? true,
      keepalive: given.keep_alive ?? 60, properties: properties(given.properties), will,
      reconnectPeriod: 0, resubscribe: false, connectTimeout: TIMEOUT_MS,
      autoAssignTopicAlias: given.alias ?? false,
    });
    // The packets as they came, before the library makes errors or nothing of them.
    this.client.on("packetreceive", (packet) => {
      const code = packet.reasonCode ?? packet.returnCode ?? 0;
      const found = shown(packet.properties);
      switch (packet.cmd) {
        case "connack":
          this.put("connect", { session_present: packet.sessionPresent, code, properties: found });
          break;
        case "suback":
          this.put("subscribe", { codes: packet.granted, properties: found });
          break;
        case "unsuback":
          this.put("unsubscribe", { codes: packet.granted ?? [], properties: found });
          break;
        case "disconnect":
          this.end = { by_server: true, code, properties: found };
          break;
        case "puback":
        case "pubcomp":
          this.put("publish", { code, properties: found });
          break;
        case "pubrec":
          if (code >= 0x80) {
            this.put("publish", { code, properties: found });
          }
          break;
        case "publish":
          this.put("raw", { dup: packet.dup, mid: packet.messageId, alias: found.TopicAlias });
          break;
      }
    });
    this.client.on("message", (topic, payload, packet) => this.put("message", {
      topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain,
      dup: packet.dup, mid: packet.messageId ?? 0, properties: shown(packet.properties),
    }));
    this.client.on("close", () => this.put("disconnect",
      this.end ?? { by_server: false, code: 0, properties: {} }));
    this.client.on("error", (error) => { this.fault = error; });
    if (given.unacknowledged) {
      this.client.handleMessage = () => {}; // and the library never says that it has it
    }
  }

  put(name, value) {
    const waiter = (this.waiters[name] ??= []).shift();
    if (waiter) {
      waiter(value);
    } else {
      (this.queues[name] ??= []).push(value);
    }
  }

  wait(name) {
    const queue = (this.queues[name] ??= []);
    if (queue.length) {
      return queue.shift();
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${name}; ${this.fault}`)), TIMEOUT_MS);
      (this.waiters[name] ??= []).push((value) => {
        clearTimeout(timer);
        resolve(value);
      });
    });
  }

  connect() {
    return this.wait("connect");
  }

  subscribe({ filters, properties: given }) {
    const wanted = {};
    for (const [filter, options] of filters) {
      wanted[filter] = {
        qos: options.qos ?? 0, nl: options.noLocal ?? false,
        rap: options.retainAsPublished ?? false, rh: options.retainHandling ?? 0,
      };
    }
    this.client.subscribe(wanted, { properties: properties(given) }, () => {});
    return this.wait("subscribe");
  }

  unsubscribe({ filters }) {
    this.client.unsubscribe(filters, () => {});
    return this.wait("unsubscribe");
  }

  publish(given) {
    const options = {
      qos: given.qos ?? 1, retain: given.retain ?? false, properties: properties(given.properties),
    };
    const payload = given.hex === undefined ? given.payload ?? "" : Buffer.from(given.hex, "hex");
    return new Promise((resolve, reject) => {
      const sent = (error) => {
        if (options.qos === 0 && !error) {
          resolve({ code: 0, properties: {} });
        } else if (error && error.code === undefined) {
          reject(error); // it never left
        }
      };
      this.client.publish(given.topic, payload, options, sent);
      if (options.qos > 0) {
        Promise.resolve(this.wait("publish")).then(resolve, reject);
      }
    });
  }

  async receive({ count }) {
    const messages = [];
    while (messages.length < count) {
      messages.push(await this.wait("message"));
    }
    return messages;
  }

  /** What PUBLISH said that the library keeps to itself. */
  raw() {
    return this.wait("raw");
  }

  disconnect(given) {
    this.client.end(false, { reasonCode: given.reason ?? 0, properties: properties(given.properties) });
    return this.wait("disconnect");
  }

  vanish() {
    this.client.stream.destroy();
    return this.wait("disconnect");
  }

  ended() {
    return this.wait("disconnect");
  }
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const job = JSON.parse((await lines.next()).value);
  const clients = {};
  for await (const line of lines) {
    const given = JSON.parse(line);
    let answer;
    try {
      if (given.do === "connect") {
        clients[given.client] = new Client(job, given);
      }
      answer = { ok: (await clients[given.client][given.do](given)) ?? null };
    } catch (error) { // whatever it is, the test hears of it
      answer = { error: String(error.stack ?? error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  process.exit(0); // without waiting for connections that are kept
}

main();
