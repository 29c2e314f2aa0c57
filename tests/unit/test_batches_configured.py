"""What a configuration says of batches reaches the calls, beside what servers tell."""

from __future__ import annotations

import json

from tests.fakes import profiles
from tests.fakes.upstream import FakeUpstream
from tests.lib.gateway import gateway


async def test_the_least_configured_batch_cuts_a_request(upstream: FakeUpstream) -> None:
    """G29: the model's, or that of any of its providers."""
    name = profiles.tei(upstream)
    provider = {"type": "tei", "url": upstream.url, "model_name": name, "max_batch": 3}
    model = {
        "name": "e",
        "type": "text-embeddings-inference",
        "max_batch": 5,
        "providers": [provider],
    }
    async with gateway(json.dumps({"models": [model]})) as gate:
        inputs = [f"text {number}" for number in range(7)]
        answer = await gate.rest.post("/v1/embeddings", json={"model": "e", "input": inputs})
        assert answer.status_code == 200
        assert [item["index"] for item in answer.json()["data"]] == list(range(7))
    sent = [one.json()["input"] for one in upstream.requests if one.method == "POST"]
    assert sorted(map(len, sent)) == [1, 3, 3]
    assert sorted(text for part in sent for text in part) == inputs
