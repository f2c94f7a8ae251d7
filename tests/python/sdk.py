"""Make calls with the vendor's unmodified SDK: JSON on standard input, JSON on standard output."""

import asyncio
import json
import re
import sys

from alibabacloud_onsmqtt20200420 import models
from alibabacloud_onsmqtt20200420.client import Client
from alibabacloud_tea_openapi.models import Config


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def outcome_of_error(error):
    # Some transport failures are plain Python exceptions; they have no code.
    data = getattr(error, "data", None)
    return {
        "error": {
            "kind": type(error).__name__,
            "code": getattr(error, "code", None),
            "message": getattr(error, "message", None) or str(error),
            "status": getattr(error, "status_code", None) or (data or {}).get("statusCode"),
            "data": json.loads(json.dumps(data, default=str)),
        }
    }


async def main():
    job = json.load(sys.stdin)
    client = Client(
        Config(
            access_key_id=job["access_key_id"],
            access_key_secret=job["access_key_secret"],
            region_id="cn-hangzhou",
            endpoint=job["endpoint"],
            protocol="http",
        )
    )
    outcomes = []
    for call in job["calls"]:
        request = getattr(models, call["operation"] + "Request")(**call["arguments"])
        method = getattr(client, snake(call["operation"]) + ("_async" if job["style"] == "async" else ""))
        try:
            answer = method(request)
            if job["style"] == "async":
                answer = await answer
            outcomes.append({"ok": answer.body.to_map(), "status": answer.status_code})
        except Exception as error:  # every failure is an outcome for the caller to judge
            outcomes.append(outcome_of_error(error))
    json.dump(outcomes, sys.stdout)


asyncio.run(main())
