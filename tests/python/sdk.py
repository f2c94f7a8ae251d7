"""Make calls with the vendor's unmodified Python SDKs.

The first line of standard input says how (a JSON object), each further line is a call, or several
to be made at once. Each line is answered by one line of standard output.
"""

import asyncio
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor

VERSION = "2020-04-20"
REGION = "cn-hangzhou"
# Long, for machines under load.
TIMEOUT_MS = 60_000


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Current:
    """`alibabacloud-onsmqtt20200420`: signature 3, or 1 if it is told so."""

    def __init__(self, job):
        from alibabacloud_onsmqtt20200420 import models
        from alibabacloud_onsmqtt20200420.client import Client
        from alibabacloud_tea_openapi import models as open_api
        from darabonba.policy.retry import RetryCondition, RetryOptions
        from darabonba.runtime import ExtendsParameters, RuntimeOptions

        config = open_api.Config(
            access_key_id=job["access_key_id"],
            access_key_secret=job["access_key_secret"],
            region_id=REGION,
            endpoint=job["endpoint"],
            protocol=job["protocol"],
            read_timeout=TIMEOUT_MS,
            connect_timeout=TIMEOUT_MS,
            signature_algorithm="v2" if job["client"] == "python_v1" else None,
            ca=job["ca_in_config"],
        )
        if job["retries"]:
            condition = RetryCondition(
                max_attempts=job["retries"], exception=["ThrottlingException"]
            )
            config.retry_options = RetryOptions(retryable=True, retry_condition=[condition])
        self.models, self.open_api, self.runtime = models, open_api, RuntimeOptions
        self.extends = ExtendsParameters
        self.ca, self.headers = job["ca_in_runtime"], job["headers"]
        self.asynchronous = job["client"] == "python_async"
        self.client = Client(config)

    def call(self, operation, arguments):
        """An awaitable of the outcome, or the outcome."""
        options = {}
        if self.ca:
            options["ca"] = self.ca
        if self.headers:
            options["extends_parameters"] = self.extends(headers=self.headers)
        request = getattr(self.models, operation + "Request", None)
        if request is None:  # no such operation: what every operation is made of
            parameters = self.open_api.Params(
                action=operation,
                version=VERSION,
                protocol="HTTPS",
                pathname="/",
                method="POST",
                auth_type="AK",
                style="RPC",
                req_body_type="formData",
                body_type="json",
            )
            method = "call_api"
            given = [parameters, self.open_api.OpenApiRequest(query=arguments)]
        else:
            method = snake(operation)
            given = [request(**{snake(name): value for name, value in arguments.items()})]
        if options or request is None:
            method += "_with_options" if request else ""
            given.append(self.runtime(**options))
        if self.asynchronous:
            method += "_async"
        return getattr(self.client, method)(*given)

    def body(self, answer):
        if isinstance(answer, dict):
            return {"ok": answer["body"], "status": answer["statusCode"]}
        return {"ok": answer.body.to_map(), "status": answer.status_code}

    def refusal(self, error):
        # Some transport failures are plain Python exceptions; they have no code.
        data = getattr(error, "data", None)
        return {
            "kind": type(error).__name__,
            "code": getattr(error, "code", None),
            "message": getattr(error, "message", None) or str(error),
            "status": getattr(error, "status_code", None) or (data or {}).get("statusCode"),
            "request_id": getattr(error, "request_id", None),
            "retry_after": getattr(error, "retry_after", None),
            "data": json.loads(json.dumps(data, default=str)),
        }


class Core:
    """`aliyun-python-sdk-core`: CommonRequest and, with `core_typed`, RpcRequest."""

    asynchronous = False

    def __init__(self, job):
        from aliyunsdkcore import client, request
        from aliyunsdkcore.http import protocol_type

        self.client = client.AcsClient(
            job["access_key_id"],
            job["access_key_secret"],
            REGION,
            timeout=TIMEOUT_MS // 1000,
            connect_timeout=TIMEOUT_MS // 1000,
            verify=job["ca_in_config"],
        )
        self.request, self.job = request, job
        # It is compared by identity.
        self.protocol = protocol_type.HTTPS if job["protocol"] == "https" else protocol_type.HTTP

    def call(self, operation, arguments):
        style = self.job["client"]
        if style == "core_typed":
            call = self.request.RpcRequest("onsmqtt", VERSION, operation)
            call.set_endpoint(self.job["endpoint"])
        else:
            call = self.request.CommonRequest(
                domain=self.job["endpoint"], version=VERSION, action_name=operation
            )
        call.set_protocol_type(self.protocol)
        reads = operation.startswith(("Get", "List"))
        gets = style == "core_get" or style == "core_typed" and reads
        call.set_method("GET" if gets else "POST")
        # Half in the query and half in the body, to see them merged.
        for place, (name, value) in enumerate(arguments.items()):
            if style == "core_form" and place % 2 == 0:
                call.add_body_params(name, value)
            else:
                call.add_query_param(name, value)
        return self.client.do_action_with_exception(call)

    def body(self, answer):
        return {"ok": json.loads(answer), "status": 200}

    def refusal(self, error):
        return {
            "kind": type(error).__name__,
            "code": getattr(error, "error_code", None),
            "message": getattr(error, "message", None) or str(error),
            "status": getattr(error, "http_status", None),
            "request_id": getattr(error, "request_id", None),
        }


def outcome(sdk, call):
    try:
        return sdk.body(sdk.call(call["operation"], call["arguments"]))
    except Exception as error:  # every failure is an outcome for the caller to judge
        return {"error": sdk.refusal(error)}


async def outcome_async(sdk, call):
    try:
        return sdk.body(await sdk.call(call["operation"], call["arguments"]))
    except Exception as error:
        return {"error": sdk.refusal(error)}


async def main():
    job = json.loads(sys.stdin.readline())
    sdk = (Core if job["client"].startswith("core") else Current)(job)
    with ThreadPoolExecutor(max_workers=32) as pool:
        for line in sys.stdin:
            asked = json.loads(line)
            calls = asked if isinstance(asked, list) else [asked]
            if sdk.asynchronous:
                answers = await asyncio.gather(*(outcome_async(sdk, call) for call in calls))
            elif len(calls) == 1:
                answers = [outcome(sdk, calls[0])]
            else:
                answers = list(pool.map(lambda call: outcome(sdk, call), calls))
            answer = answers if isinstance(asked, list) else answers[0]
            print(json.dumps(answer), flush=True)


asyncio.run(main())
