"""Time travel: why did the agent say that? Read what it knew when it said it.

    MEMOTURN_URL=http://127.0.0.1:8080 python examples/python/time_travel.py

Every answer carries the txid of the state that it shows. Keep it beside what the agent did, and any read can be repeated
as of that moment: `at=txid`, a time, a checkpoint, or `head~3`.
"""

import os

from memoturn import Memoturn

QUESTION = "which city does the customer live in"


def main() -> None:
    """Answer, learn better, and look at what the first answer was made of."""
    with Memoturn(
        os.environ.get("MEMOTURN_URL", "http://127.0.0.1:8080"), token=os.environ.get("MEMOTURN_TOKEN")
    ) as memoturn:
        customer = memoturn.memory("support", "customer-7")
        customer.ingest(
            [{"type": "fact", "topic_key": "city", "summary": "The customer lives in the city of Oslo"}]
        )
        told = customer.recall(QUESTION)
        print(f"said at txid {told['txid']}: {told['memories'][0]['summary']}")

        customer.ingest(
            [
                {
                    "type": "fact",
                    "topic_key": "city",
                    "summary": "The customer lives in the city of Bergen",
                    "reason": "moved in May",
                }
            ]
        )
        print(f"known now: {customer.recall(QUESTION)['memories'][0]['summary']}")

        then = customer.recall(QUESTION, at=told["txid"])
        print(f"known then: {then['memories'][0]['summary']}")
        history = customer.topic("city")
        for version in history["chains"][0]["versions"] if history else []:
            print(f"  version {version['version']}: {version['summary']}")


if __name__ == "__main__":
    main()
