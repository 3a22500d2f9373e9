"""`python -m bench.recall_quality --data FILE`: how much of what answers a question recall finds, without a language model.

The data is LoCoMo's (six conversations are enough; fields `sample_id`, `conversation`, `qa`). Each turn is a memory
with its session's date and its speaker, in a profile per conversation; a second profile has each session as one
memory. A question's haystack is its own conversation. R@k is the share of a question's evidence among the first
k, averaged over the questions whose evidence is there; MRR is of the first piece found. Sessions of turns are
ranked by their best turn. The second witness is bench/paraphrases.py, where no word of a question is in what answers it.

Weights were chosen on the conversations of CHOSEN_ON. Whoever changes them looks at those alone, and then here.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import machine, report
from bench.nodes import node_here, temporary_folder
from bench.paraphrases import PARAPHRASES
from bench.stats import Table
from memoturnd.config import Settings
from memoturnd.core import names
from memoturnd.embedders.open import open_embedder
from memoturnd.node import Node
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.embedder import Kind
from memoturnd.seams.profile import Profile
from memoturnd.surfaces import memories
from memoturnd.surfaces import recall as recalls

CHOSEN_ON: Final = ("conv-26", "conv-41", "conv-43")
_RESULTS: Final = Path(__file__).parent / "RESULTS-recall.md"
_BATCH: Final = 200
_DEEP: Final = 100
_CATEGORIES: Final = {1: "multi-hop", 2: "temporal", 3: "open inference", 4: "single-hop", 5: "adversarial"}
_NAMESPACE: Final = "quality"


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the places of the turns that answer it, and what kind it is of."""

    text: str
    evidence: tuple[int, ...]
    category: int


@dataclass(slots=True)
class Conversation:
    """A conversation: one text per turn, the session of each, and questions; `vectors` are those of the texts."""

    name: str
    texts: list[str]
    sessions: list[int]
    questions: list[Question]
    vectors: Any = None
    session_vectors: Any = None
    question_vectors: Any = None

    def session_texts(self) -> list[str]:
        """Return the text of every session, in order."""
        return [
            "\n".join(t for t, of in zip(self.texts, self.sessions, strict=True) if of == session)
            for session in sorted(set(self.sessions))
        ]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to ask: with or without words and vector, and what else a recall says."""

    name: str
    words: bool = True
    vector: bool = True
    more: dict[str, Any] = field(default_factory=dict)


WAYS: Final = (
    Way("FTS5 BM25 alone", vector=False, more={"fusion": "reference"}),
    Way("vector alone", words=False),
    Way("`fusion: reference` (equal ranks, k = 60)", more={"fusion": "reference"}),
    Way("default, without vectors", vector=False),
    Way("**default**"),
)


def read_conversations(path: Path) -> list[Conversation]:
    """Return the conversations of a file as LoCoMo has them."""
    return [_conversation(sample) for sample in json.loads(path.read_text())]


def _conversation(sample: dict[str, Any]) -> Conversation:
    talk = sample["conversation"]
    texts: list[str] = []
    sessions: list[int] = []
    place: dict[str, int] = {}
    numbers = sorted(
        int(name.removeprefix("session_"))
        for name, turns in talk.items()
        if isinstance(turns, list) and name.removeprefix("session_").isdigit()
    )
    for number in numbers:
        for turn in talk[f"session_{number}"]:
            place[turn["dia_id"]] = len(texts)
            texts.append(f"{talk[f'session_{number}_date_time']} {turn['speaker']}: {turn['text']}")
            sessions.append(number)
    questions = []
    for asked in sample["qa"]:
        named = [name for given in asked.get("evidence", []) for name in _names(given)]
        evidence = tuple(dict.fromkeys(place[name] for name in named if name in place))
        if evidence:
            questions.append(Question(asked["question"], evidence, asked["category"]))
    return Conversation(sample["sample_id"], texts, sessions, questions)


def _names(given: str) -> list[str]:
    """Return the turns that a piece of evidence names: some name several."""
    return given.replace(";", " ").replace(",", " ").split()


# ---- the node


async def _embed(conversations: Sequence[Conversation]) -> Any:
    """Embed all that is stored and asked with the local model; return vectors of the paraphrases."""
    embedder = open_embedder(Settings.from_env({"MEMOTURN_EMBED_PROVIDER": "local"}), SystemClock())
    if embedder is None:
        raise RuntimeError("the local embedder is not there")
    await embedder.start()
    try:

        async def vectors(texts: list[str], kind: Kind) -> Any:
            parts = [
                await embedder.embed(texts[at : at + _BATCH], kind=kind)
                for at in range(0, len(texts), _BATCH)
            ]
            return np.concatenate(parts)

        for c in conversations:
            c.vectors = await vectors(c.texts, Kind.DOCUMENT)
            c.session_vectors = await vectors(c.session_texts(), Kind.DOCUMENT)
            c.question_vectors = await vectors([q.text for q in c.questions], Kind.QUERY)
            print(f"{c.name}: {len(c.texts)} turns, {len(c.questions)} questions", flush=True)
        stored = [memory for memory, _, _ in PARAPHRASES] + [decoy for _, _, decoy in PARAPHRASES]
        return (
            stored,
            await vectors(stored, Kind.DOCUMENT),
            await vectors([q for _, q, _ in PARAPHRASES], Kind.QUERY),
        )
    finally:
        await embedder.close()


async def _store(
    node: Node, name: str, texts: Sequence[str], vectors: Any, sessions: Sequence[int] | None
) -> tuple[Profile, dict[str, int]]:
    """Store texts as events; return the profile and the place of each id."""
    await node.databases.ensure_profile(names.profile_database(_NAMESPACE, name))
    profile = await node.profile(f"{_NAMESPACE}--{name}")
    places: dict[str, int] = {}
    for start in range(0, len(texts), _BATCH):
        items = [
            {
                "type": "event",
                "summary": texts[at],
                "content": {"at": at},
                "embedding": vectors[at].tolist(),
                "session_id": None if sessions is None else f"session-{sessions[at]}",
            }
            for at in range(start, min(start + _BATCH, len(texts)))
        ]
        written = await memories.ingest(profile, memories.parse_items({"memories": items}))
        places |= {row["id"]: start + n for n, row in enumerate(written.value)}
    return profile, places


async def _ask(
    profile: Profile, places: dict[str, int], way: Way, text: str, vector: Any, k: int
) -> list[int]:
    """Return the places of what is recalled, best first."""
    body: dict[str, Any] = {"k": k, **way.more}
    if way.words:
        body["query"] = text
    if way.vector:
        body["embedding"] = vector.tolist()
    seen = await recalls.recall(profile, recalls.parse_query(body))
    return [places[hit["id"]] for hit in seen.value["memories"]]


# ---- the measures


def share(found: Sequence[int], wanted: Sequence[int], k: int) -> float:
    """Return the share of `wanted` among the first k."""
    top = set(found[:k])
    return sum(place in top for place in wanted) / len(wanted)


def first_rank(found: Sequence[int], wanted: Sequence[int]) -> float:
    """Return 1 over the rank of the first that is wanted, 0 where none is."""
    return next((1 / rank for rank, place in enumerate(found, 1) if place in wanted), 0.0)


@dataclass(slots=True)
class Scores:
    """What every question of some conversations scored, by measure."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def mean(self, measure: str, *, category: int | None = None) -> float:
        """Return the mean of a measure, NaN where no question has it."""
        values = [row[measure] for row in self.rows if category is None or row["category"] == category]
        return float(np.mean(values)) if values else float("nan")


async def _measure(node: Node, conversation: Conversation, ways: Sequence[Way]) -> dict[str, Scores]:
    c = conversation
    turns = await _store(node, f"{c.name}-turns", c.texts, c.vectors, c.sessions)
    whole = await _store(node, f"{c.name}-sessions", c.session_texts(), c.session_vectors, None)
    numbers = sorted(set(c.sessions))
    found: dict[str, Scores] = {}
    for way in ways:
        scores = found.setdefault(way.name, Scores())
        for question, vector in zip(c.questions, c.question_vectors, strict=True):
            ranked = await _ask(*turns, way, question.text, vector, _DEEP)
            wanted = sorted({c.sessions[place] for place in question.evidence})
            rolled = list(dict.fromkeys(c.sessions[place] for place in ranked))
            direct = [numbers[p] for p in await _ask(*whole, way, question.text, vector, 10)]
            scores.rows.append(
                {
                    "category": question.category,
                    **{f"turn@{k}": share(ranked, question.evidence, k) for k in (5, 10, 20)},
                    "mrr": first_rank(ranked, question.evidence),
                    **{f"session@{k}": share(rolled, wanted, k) for k in (5, 10)},
                    **{f"whole@{k}": share(direct, wanted, k) for k in (5, 10)},
                }
            )
    return found


async def _paraphrases(node: Node, embedded: Any, ways: Sequence[Way]) -> Table:
    stored, vectors, asked = embedded
    profile = await _store(node, "paraphrases", stored, vectors, None)
    table = Table(
        f"Paraphrases: {len(PARAPHRASES)} questions without a word of their answer, each with a decoy that has some",
        ("way", "hit@1", "hit@5", "MRR"),
    )
    for way in ways:
        ranks = []
        for at, (_, question, _) in enumerate(PARAPHRASES):
            found = await _ask(*profile, way, question, asked[at], 20)
            ranks.append(found.index(at) + 1 if at in found else 0)
        hits = [np.mean([0 < rank <= k for rank in ranks]) for k in (1, 5)]
        reciprocal = np.mean([1 / rank if rank else 0.0 for rank in ranks])
        table.rows.append([way.name, *(f"{value:.3f}" for value in (*hits, reciprocal))])
    return table


def _table(title: str, scores: dict[str, Scores]) -> Table:
    measures = ("turn@5", "turn@10", "turn@20", "mrr", "session@5", "session@10", "whole@5", "whole@10")
    titles = (
        "turn R@5", "turn R@10", "turn R@20", "turn MRR", "session R@5", "session R@10", "as memories R@5", "R@10",
    )  # fmt: skip
    table = Table(title, ("way", *titles))
    for name, found in scores.items():
        table.rows.append([name, *(f"{found.mean(measure):.3f}" for measure in measures)])
    return table


def _categories(scores: dict[str, Scores]) -> Table:
    table = Table("Turn R@10 by kind of question, all conversations", ("way", *_CATEGORIES.values()))
    for name, found in scores.items():
        table.rows.append([name, *(f"{found.mean('turn@10', category=c):.3f}" for c in _CATEGORIES)])
    return table


def _together(parts: Sequence[dict[str, Scores]]) -> dict[str, Scores]:
    return {name: Scores([row for part in parts for row in part[name].rows]) for name in parts[0]}


async def measure(conversations: Sequence[Conversation], ways: Sequence[Way] = WAYS) -> list[Table]:
    """Return the tables: chosen-on, checked-on and all conversations, by kind of question, and the paraphrases."""
    embedded = await _embed(conversations)
    with temporary_folder() as folder:
        async with node_here(folder, sync="normal") as node:
            parts = {c.name: await _measure(node, c, ways) for c in conversations}
            paraphrases = await _paraphrases(node, embedded, ways)
    tables = []
    chosen = [part for name, part in parts.items() if name in CHOSEN_ON]
    others = [part for name, part in parts.items() if name not in CHOSEN_ON]
    if chosen:
        tables.append(
            _table(f"Conversations that the constants were chosen on ({len(chosen)})", _together(chosen))
        )
    if others:
        tables.append(
            _table(f"Conversations that they were not chosen on ({len(others)})", _together(others))
        )
    if parts:
        everything = _together(list(parts.values()))
        questions = sum(len(c.questions) for c in conversations)
        tables += [_table(f"All conversations: {questions} questions", everything), _categories(everything)]
    return [*tables, paraphrases]


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.recall_quality", description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="LoCoMo's conversations; without them the paraphrases alone"
    )
    parser.add_argument(
        "--output", type=Path, default=_RESULTS, help=f"where the report goes ({_RESULTS.name})"
    )
    given = parser.parse_args()
    conversations = [] if given.data is None else read_conversations(given.data)
    tables = asyncio.run(measure(conversations))
    for table in tables:
        print(table.text(), flush=True)
    taken = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{' '.join(['python -m bench.recall_quality', *sys.argv[1:]])}`"
    ]
    if given.data is not None:
        given.output.write_text(report.render(machine.describe(Path("/tmp")), taken, tables))
        print(f"written to {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
