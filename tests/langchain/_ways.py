"""The ways to ask a model, and what a run of a tracer tells."""

from __future__ import annotations

WAYS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"]
FAST = {"wait": 0.001}


async def asked(way, model, config=None, question="hello"):
    """The answer, however it is asked for."""
    if way == "invoke":
        return model.invoke(question, config)
    if way == "ainvoke":
        return await model.ainvoke(question, config)
    if way == "stream":
        return added(list(model.stream(question, config)))
    if way == "astream":
        return added([piece async for piece in model.astream(question, config)])
    if way == "batch":
        return model.batch([question], config)[0]
    return (await model.abatch([question], config))[0]


def added(pieces):
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    return whole


def seen(run):
    """What a run's metadata says of its attempt, and its own tags."""
    metadata = run.extra.get("metadata", {})
    return (metadata["seawall_attempt"], metadata["seawall_alternative"], metadata["ls_model_name"], run.tags)


def failed(run):
    return run.error is not None


def tokens(run):
    return sum(event["name"] == "new_token" for event in run.events)


def usage(run):
    """Tokens that a run says were used."""
    messages = [made["message"]["kwargs"] for made in (run.outputs or {}).get("generations", [[]])[0]]
    return sum((message.get("usage_metadata") or {}).get("total_tokens", 0) for message in messages)
