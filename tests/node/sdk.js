"use strict";

// Make calls with the vendor's unmodified Node SDKs. The first line of standard input says how (a
// JSON object), each further line is a call, or several to be made at once. Each line is answered
// by one line of standard output.

const fs = require("fs");
const readline = require("readline");

const VERSION = "2020-04-20";
// Long, for machines under load.
const TIMEOUT_MS = 60000;

/** `@alicloud/pop-core`: signature 1. */
function popCore(job) {
  const { RPCClient } = require("@alicloud/pop-core");
  const client = new RPCClient({
    accessKeyId: job.access_key_id,
    accessKeySecret: job.access_key_secret,
    endpoint: `${job.protocol}://${job.endpoint}`,
    apiVersion: VERSION,
    opts: { timeout: TIMEOUT_MS },
  }, true);
  if (job.ca_in_config) {
    const { Agent } = require("https");
    client.opts.agent = new Agent({ keepAlive: true, ca: fs.readFileSync(job.ca_in_config) });
  }
  const method = job.client === "pop_get" ? "GET" : "POST";
  return {
    call: async (operation, given) => {
      const [body, entry] = await client.request(operation, given, { method });
      return { ok: body, status: entry.response.statusCode };
    },
    refusal: (error) => ({
      status: error.entry?.response?.statusCode,
      request_id: error.data?.RequestId,
    }),
  };
}

/** `@alicloud/openapi-client`: signature 3. */
function openApi(job) {
  const OpenApi = require("@alicloud/openapi-client");
  const { RuntimeOptions } = require("@alicloud/tea-util");
  const client = new OpenApi.default(new OpenApi.Config({
    accessKeyId: job.access_key_id,
    accessKeySecret: job.access_key_secret,
    regionId: "cn-hangzhou",
    endpoint: job.endpoint,
    protocol: job.protocol,
    readTimeout: TIMEOUT_MS,
    connectTimeout: TIMEOUT_MS,
    ca: job.ca_in_config ? fs.readFileSync(job.ca_in_config, "utf8") : undefined,
  }));
  return {
    call: async (operation, given) => {
      const params = new OpenApi.Params({
        action: operation,
        version: VERSION,
        protocol: "HTTPS",
        pathname: "/",
        method: /^(Get|List)/.test(operation) ? "GET" : "POST",
        authType: "AK",
        style: "RPC",
        reqBodyType: "formData",
        bodyType: "json",
      });
      const request = new OpenApi.OpenApiRequest({ query: given, headers: job.headers });
      const answer = await client.callApi(params, request, new RuntimeOptions({}));
      return { ok: answer.body, status: answer.statusCode };
    },
    refusal: (error) => ({
      status: error.data?.statusCode,
      request_id: error.data?.RequestId,
      data: error.data,
    }),
  };
}

async function outcome(sdk, { operation, arguments: given }) {
  try {
    return await sdk.call(operation, given);
  } catch (error) { // every failure is an outcome for the caller to judge
    const { name, code, message } = error;
    return { error: { kind: name, code, message, ...sdk.refusal(error) } };
  }
}

async function main() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const job = JSON.parse((await lines.next()).value);
  const sdk = job.client.startsWith("pop") ? popCore(job) : openApi(job);
  for await (const line of lines) {
    const asked = JSON.parse(line);
    const calls = Array.isArray(asked) ? asked : [asked];
    const answers = await Promise.all(calls.map((call) => outcome(sdk, call)));
    process.stdout.write(`${JSON.stringify(Array.isArray(asked) ? answers : answers[0])}\n`);
  }
  process.exit(0); // without waiting for connections that are kept
}

main();
