"""Questions and transcripts for a language model through both clients."""

import pytest
from fake_model import Status, Text
from memoturn import MemoturnError, ServerError, UnauthorizedError

SAID = [{"role": "user", "content": "fact user.diet: is vegan"}, {"role": "user", "content": "went hiking"}]


@pytest.fixture
async def ann(api):
    return await api.of_namespace("write", "memory", "turns", source="chat")


@pytest.fixture(autouse=True)
def obedient(language_model):
    """The model goes on as by default, whatever a test made of it."""
    yield language_model
    language_model.script.clear()


async def test_a_transcript_becomes_memories(ann):
    proposed = await ann.extract(SAID, dry_run=True)
    extracted = await ann.extract(SAID, session_id="s")

    assert [memory["type"] for memory in proposed["proposed"]] == ["fact", "event"]
    assert proposed["dropped"] == []
    assert [row["status"] for row in extracted["results"]] == ["created", "created"]
    assert extracted["txid"] > 0
    (fact,) = [memory async for memory in ann.iter_memories(types=["fact"])]
    assert (fact["topic_key"], fact["source"], fact["session_id"]) == ("user.diet", "chat", "s")


async def test_stored_turns_are_extracted_from(ann):
    await ann.ingest([{"type": "task", "summary": "makes the profile"}])
    await ann.session("stored").append_turns(SAID)

    extracted = await ann.extract(session_id="stored", from_seq=2, to_seq=2)

    (memory,) = [memory async for memory in ann.iter_memories(types=["event"])]
    assert memory["id"] == extracted["results"][0]["id"]
    assert memory["source_turns"] == {"session_id": "stored", "from_seq": 2, "to_seq": 2}


async def test_nothing_found_is_nothing_written(ann, language_model):
    await ann.ingest([{"type": "event", "summary": "x"}])
    language_model.script.append(Text({"memories": []}))

    extracted = await ann.extract(SAID)

    assert (extracted["results"], extracted["txid"]) == ([], ann.last_txid)


async def test_a_question_is_answered_from_memories(ann):
    await ann.ingest([{"type": "fact", "summary": "Ann is vegan"}])

    answer = await ann.ask("what does Ann eat?", types=["fact"], k=3)
    nothing = await ann.ask("what?", session_id="none")

    assert answer["answer"] == "what does Ann eat? Ann is vegan."
    assert answer["sources"] == [memory["id"] for memory in answer["memories"]]
    assert answer["txid"] == ann.last_txid
    assert (nothing["answer"], nothing["memories"]) == (None, [])


async def test_an_answer_is_streamed_as_it_is_written(ann):
    await ann.ingest([{"type": "fact", "summary": "Ann is vegan"}])

    events = [event async for event in ann.ask_stream("what does Ann eat?", k=3)]

    assert events[0]["event"] == "memories"
    assert events[0]["memories"][0]["summary"] == "Ann is vegan"
    deltas = [event["text"] for event in events[1:-1]]
    assert len(deltas) > 1
    assert events[-1]["answer"] == "".join(deltas) == "what does Ann eat? Ann is vegan."
    assert events[-1]["sources"] == [events[0]["memories"][0]["id"]]
    assert set(events[0]) == {"event", "memories", "txid"}
    assert set(events[-1]) == {"event", "answer", "sources", "unknown_sources", "txid"}


async def test_a_stream_may_be_left(ann):
    await ann.ingest([{"type": "fact", "summary": "Ann is vegan"}])

    stream = ann.ask_stream("what does Ann eat?")
    async for event in stream:
        assert event["event"] == "memories"
        break
    await stream.aclose()

    assert (await ann.ask("what does Ann eat?"))["answer"] is not None


async def test_a_model_that_fails_in_the_midst_raises(ann, language_model):
    await ann.ingest([{"type": "fact", "summary": "Ann is vegan"}])
    language_model.script += ["error event"] * 5
    seen = []

    async def listen():
        async for event in ann.ask_stream("what does Ann eat?"):
            seen.append(event["event"])  # noqa: PERF401 - what came before the error counts

    with pytest.raises(ServerError):
        await listen()
    assert seen[0] == "memories"
    assert set(seen) <= {"memories", "delta"}


async def test_a_bad_credential_raises_before_the_first_event(api, ann):
    stranger = api.client(token="nobody").memory(api.name, "ann")

    with pytest.raises(UnauthorizedError):
        await anext(stranger.ask_stream("what?"))


async def test_a_provider_that_refuses_is_not_blamed_on_the_caller(api, language_model):
    ann = await api.of_namespace("write", "memory", retries=0)
    await ann.ingest([{"type": "fact", "summary": "Ann is vegan"}])
    language_model.script += [Status(400)] * 8

    with pytest.raises(MemoturnError) as caught:
        await ann.ask("what does Ann eat?")

    assert caught.value.status in {500, 502}
