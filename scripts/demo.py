"""A narrated tour: one profile is filled, forked and rewound, its node is killed and its disk deleted, and it is all there.

The node is a child of this program in a temporary folder, on a free port; both are gone at the end, whatever
happens. Every claim is checked. Exit 0: all of it was true; 1: something was not (the node's log follows);
130: interrupted.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memoturn import IngestItem, MemoryProfile, Memoturn, MemoturnError, RecallHit
from rich.console import Console
from rich.markup import escape
from rich.table import Table

READY_S = 30.0
LOG_LINES = 40
REPOSITORY = Path(__file__).resolve().parents[1]

# Embeddings made by hand, on the axes food, travel, work, music; a real agent asks its embedding model.
FIRST_WEEK: list[IngestItem] = [
    {
        "type": "fact",
        "topic_key": "user.diet",
        "summary": "Alice eats everything",
        "content": {"diet": "omnivore"},
        "keywords": "food dinner restaurant",
        "embedding": [1.0, 0.0, 0.0, 0.0],
    },
    {
        "type": "fact",
        "topic_key": "user.home",
        "summary": "Alice lives in Lisbon",
        "content": {"city": "Lisbon"},
        "embedding": [0.1, 0.6, 0.3, 0.0],
    },
    {"type": "instruction", "topic_key": "style.tone", "summary": "Keep answers short", "content": "short"},
    {
        "type": "event",
        "summary": "Booked a flight to Oslo",
        "content": {"day": 3},
        "embedding": [0.0, 1.0, 0.0, 0.0],
    },
    {
        "type": "event",
        "summary": "Played a concert with her band",
        "content": {"day": 4},
        "embedding": [0.0, 0.0, 0.1, 1.0],
    },
    {
        "type": "event",
        "summary": "Shipped the billing release",
        "content": {"day": 5},
        "embedding": [0.0, 0.0, 1.0, 0.0],
    },
    {
        "type": "task",
        "summary": "Remind her to renew the passport before the flight",
        "content": {"day": 6},
        "session_id": "week-1",
        "ttl": 86_400,
    },
]
NOW_VEGAN: IngestItem = {
    "type": "fact",
    "topic_key": "user.diet",
    "summary": "Alice is vegan",
    "content": {"diet": "vegan"},
    "keywords": "food dinner restaurant",
    "embedding": [0.9, 0.1, 0.0, 0.0],
}
MEAT: IngestItem = {
    "type": "fact",
    "topic_key": "user.diet",
    "summary": "Alice loves steak",
    "content": {"diet": "steak"},
    "keywords": "food dinner restaurant",
    "embedding": [1.0, 0.0, 0.0, 0.1],
}
STRANGERS: list[IngestItem] = [
    {"type": "event", "summary": f"Line {number} of somebody else's import", "content": {"line": number}}
    for number in range(50)
]


class NotAsToldError(Exception):
    """Something that the tour says did not happen."""


class Node:
    """The node that the tour owns: its process, its disk (a cache) and its bucket (the truth)."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "disk"
        self.bucket = folder / "bucket"
        self.log = folder / "node.log"
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start the node on a free port and return the seconds until it was ready. Raises NotAsToldError."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
        environment |= {
            "MEMOTURN_DATA_DIR": str(self.data),
            "MEMOTURN_OBJECT_STORE": f"file://{self.bucket}",
            "MEMOTURN_LISTEN": f"127.0.0.1:{port}",
        }
        began = time.monotonic()
        with self.log.open("ab") as log:
            # A session of its own keeps Ctrl-C for the tour, which then ends the node itself.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "memoturnd"],
                cwd=REPOSITORY,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_ready(began + READY_S)
        return time.monotonic() - began

    def kill(self) -> None:
        """Kill the node with SIGKILL, if it runs: nothing of it gets to finish anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log_tail(self) -> str:
        """Return the last lines of the node's log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def _wait_until_ready(self, deadline_s: float) -> None:
        process = self._process
        with Memoturn(self.url, timeout_s=2) as client:
            while time.monotonic() < deadline_s:
                if process is None or process.poll() is not None:
                    raise NotAsToldError("the node stopped while it was starting")
                try:
                    client.ready()
                except MemoturnError:
                    time.sleep(0.02)
                else:
                    return
        raise NotAsToldError(f"the node was not ready within {READY_S:g} s")


class Tour:
    """The tour, chapter by chapter."""

    def __init__(self, node: Node, console: Console, *, pace: float) -> None:
        self.node = node
        self.console = console
        self.pace = pace if console.is_terminal else 0.0
        self.chapters = 0
        self.checks = 0
        self.client = Memoturn(node.url)
        self.alice = self.client.memory("demo", "alice")
        self.old_diet = ""
        self.new_diet = ""

    def run(self) -> None:
        """Go through all chapters. Raises NotAsToldError, MemoturnError."""
        self.start()
        self.ingest()
        self.supersede()
        self.recall()
        self.fork()
        self.rewind()
        self.lose_the_disk()
        self.console.rule("[bold green]The end")
        self.say(f"All {self.checks} claims were checked against the node, and held.")

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def start(self) -> None:
        """Start the node."""
        self.chapter("A node, with nothing to configure")
        seconds = self.node.start()
        self.connect()
        self.say(f"A node is ready after {seconds:.1f} s, at {self.node.url}.")
        self.say("Its disk is a cache; the truth is in a bucket, here a folder beside it.")
        self.claim(
            self.client.memory("demo", "alice").recall("anything")["txid"] == 0,
            "alice does not exist yet: txid 0",
        )

    def ingest(self) -> None:
        """Fill the profile."""
        self.chapter("A week of memories")
        self.shell("memory ingest demo alice --topic user.diet --summary 'Alice eats everything'")
        result = self.alice.ingest(FIRST_WEEK)
        table = Table("type", "topic", "summary", box=None, padding=(0, 2))
        for item in FIRST_WEEK:
            table.add_row(item["type"], item.get("topic_key") or "", item["summary"])
        self.console.print(table)
        self.old_diet = result["results"][0]["id"]
        statuses = [outcome["status"] for outcome in result["results"]]
        self.claim(
            statuses == ["created"] * len(FIRST_WEEK),
            f"{len(statuses)} memories in one commit, txid {result['txid']}",
        )
        again = self.alice.ingest(FIRST_WEEK[:1])["results"][0]
        self.claim(
            again == {"id": self.old_diet, "status": "duplicate", "superseded": []},
            "the same fact again is a duplicate: ids come from content",
        )

    def supersede(self) -> None:
        """Replace a fact and walk its chain."""
        self.chapter("People change: a fact is superseded, not overwritten")
        outcome = self.alice.ingest([NOW_VEGAN])["results"][0]
        self.new_diet = outcome["id"]
        self.claim(
            outcome["superseded"] == [self.old_diet], "“Alice is vegan” replaces “Alice eats everything”"
        )
        new, old = self.memory(self.new_diet), self.memory(self.old_diet)
        self.shell(f"memory get demo alice {self.new_diet}")
        self.console.print(
            f"  [bold]{escape(new['summary'])}[/]  supersedes  [dim]{escape(old['summary'])}[/]"
        )
        chained = new["supersedes"] == [self.old_diet] and old["superseded_by"] == self.new_diet
        self.claim(chained, "the chain can be walked both ways")

    def recall(self) -> None:
        """Find memories through every channel."""
        self.chapter("Recall: words, topics and vectors, fused")
        words = [hit["summary"] for hit in self.hits("dinner flights", k=4)]
        self.claim("Alice is vegan" in words, "“dinner” finds a fact by its keywords")
        self.claim("Booked a flight to Oslo" in words, "“flights” finds “flight”: words are stemmed")
        self.claim("Alice eats everything" not in words, "what was superseded stays out")
        topic = self.hits(topic_key="user.diet")
        self.claim([hit["id"] for hit in topic] == [self.new_diet], "a topic finds its active fact")
        vector = self.hits(embedding=[0.0, 0.1, 0.0, 0.9], k=2)
        self.claim("concert" in vector[0]["summary"], "a vector near “music” finds the concert")
        fused = self.hits("flight", topic_key="user.home", embedding=[0.0, 0.9, 0.1, 0.0], k=4, explain=True)
        self.shell("memory recall demo alice flight --topic user.home --embedding '[0,0.9,0.1,0]' --explain")
        self.show(fused)
        channels = {channel for hit in fused for channel in hit["channels"]}
        self.claim(
            channels == {"topic", "keyword", "vector"},
            "all three channels together; explain says who ranked what where",
        )

    def fork(self) -> None:
        """Checkpoint, fork, and change the fork only."""
        self.chapter("Fork: try something without touching main")
        self.shell("branch checkpoint demo--alice main monday")
        checkpoint = self.alice.checkpoint("monday")
        self.shell("branch create demo--alice what-if --at monday")
        fork = self.alice.fork("what-if", at="monday")
        self.claim(
            fork["fork_txid"] == checkpoint["txid"], f"a fork at txid {fork['fork_txid']}; no data was copied"
        )
        what_if = self.alice.on_branch("what-if")
        what_if.ingest(
            [
                {
                    "type": "fact",
                    "topic_key": "user.home",
                    "summary": "Alice lives in Oslo",
                    "content": {"city": "Oslo"},
                }
            ]
        )
        self.claim(what_if.forget(self.new_diet), "on the fork she moves to Oslo, and her diet is forgotten")
        self.claim(
            self.home(what_if) == "Alice lives in Oslo" and what_if.get(self.new_diet) is None,
            "the fork sees that",
        )
        self.claim(
            self.home(self.alice) == "Alice lives in Lisbon" and self.diet() == "Alice is vegan",
            "main does not",
        )

    def rewind(self) -> None:
        """Make a mistake, rewind it, undo that, rewind again."""
        self.chapter("Rewind: a mistake, taken back")
        mistake = self.alice.ingest([MEAT, *STRANGERS])
        self.claim(
            self.diet() == "Alice loves steak",
            f"an import goes wrong in txid {mistake['txid']}: {1 + len(STRANGERS)} memories of somebody else",
        )
        self.shell("branch rewind demo--alice main monday")
        rewound = self.alice.rewind("monday")
        clean = self.diet() == "Alice is vegan" and not self.hits("import")
        self.claim(clean, f"main is as it was at txid {rewound['rewound_to']}")
        self.claim(
            rewound["txid"] > mistake["txid"],
            f"and that is a new commit, txid {rewound['txid']}: txids only grow",
        )
        self.shell("branch undo demo--alice main")
        undone = self.alice.undo_rewind()
        self.claim(
            self.diet() == "Alice loves steak", f"so even a rewind can be undone, txid {undone['txid']}"
        )
        final = self.alice.rewind("monday")
        self.claim(self.diet() == "Alice is vegan", f"and done again, txid {final['txid']}")

    def lose_the_disk(self) -> None:
        """Kill the node, delete its disk, start again, compare."""
        self.chapter("Lose the node, lose its disk")
        self.client.db("demo--alice").kv.put("avatars", "alice.png", bytes(range(256)))
        self.shell("sync demo--alice")
        durable = self.client.db("demo--alice").sync()
        self.client.db("demo--alice@what-if").sync()
        self.say(f"Object storage has everything up to txid {durable}.")
        before, last = self.everything(), max(self.alice.last_txid, durable)
        self.node.kill()
        self.say("[bold red]kill -9[/] the node ...")
        size = sum(1 for path in self.node.data.rglob("*") if path.is_file())
        shutil.rmtree(self.node.data)
        self.say(f"[bold red]rm -rf[/] its disk, {size} files ...")
        self.claim(not self.node.data.exists(), "nothing is left but the bucket")
        seconds = self.node.start()
        self.connect()
        self.say(f"A new node is ready on the empty disk after {seconds:.1f} s.")
        began = time.monotonic()
        self.claim(
            self.diet() == "Alice is vegan",
            f"Alice is back, {(time.monotonic() - began) * 1000:.0f} ms from bucket to answer",
        )
        self.claim(
            self.everything() == before,
            "every memory, the chain, the session, the fork, the checkpoint, the key-value: equal",
        )
        written = self.alice.ingest(
            [{"type": "event", "summary": "Came back from the bucket"}], durability="durable"
        )
        self.claim(
            written["txid"] > last,
            f"the next commit is txid {written['txid']}, above {last}: no txid is used twice",
        )
        self.claim(
            written["durable_txid"] >= written["txid"],
            "and it was in object storage before it was acknowledged",
        )

    # -- what the chapters are made of

    def connect(self) -> None:
        """Point the client at the node as it runs now."""
        self.client.close()
        self.client = Memoturn(self.node.url)
        self.alice = self.client.memory("demo", "alice")

    def memory(self, memory_id: str) -> dict[str, Any]:
        """Return a memory that must be there."""
        memory = self.alice.get(memory_id)
        if memory is None:
            raise NotAsToldError(f"memory {memory_id} is missing")
        return dict(memory)

    def hits(self, query: str | None = None, **options: Any) -> list[RecallHit]:
        """Recall on main, seeing at least everything that this client has seen."""
        return self.alice.recall(query, min_txid=self.alice.last_txid, **options)["memories"]

    def home(self, profile: MemoryProfile) -> str:
        """Return where Alice lives on a branch."""
        return profile.recall(topic_key="user.home")["memories"][0]["summary"]

    def diet(self) -> str:
        """Return what Alice eats on main."""
        return self.hits(topic_key="user.diet")[0]["summary"]

    def everything(self) -> dict[str, Any]:
        """Return what must survive, as the clients see it."""
        db = self.client.db("demo--alice")
        words = "alice flight concert release passport answers"
        return {
            "memories": self.hits(words, k=100, include_superseded=True),
            "chain": [self.memory(self.old_diet), self.memory(self.new_diet)],
            "sessions": self.alice.sessions(),
            "branches": db.branch.list(),
            "checkpoints": db.branch.checkpoints(),
            "fork": self.alice.on_branch("what-if").recall(words, k=100)["memories"],
            "avatar": db.kv.get("avatars", "alice.png"),
        }

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        self.chapters += 1
        self.console.print()
        self.console.rule(f"[bold]{self.chapters}. {title}", align="left")
        self.pause(1.2)

    def say(self, text: str) -> None:
        """Tell something."""
        self.console.print(f"  {text}")
        self.pause(1.0)

    def shell(self, command: str) -> None:
        """Show the command line that does the same."""
        self.console.print(f"  [dim]$ memoturn {escape(command)}[/]", highlight=False)
        self.pause(0.6)

    def claim(self, holds: bool, text: str) -> None:
        """Tell something that was checked. Raises NotAsToldError when it does not hold."""
        if not holds:
            raise NotAsToldError(text)
        self.checks += 1
        self.console.print(f"  [green]✓[/] {escape(text)}", highlight=False)
        self.pause(1.3)

    def show(self, hits: Sequence[RecallHit]) -> None:
        """Show recalled memories with their ranks."""
        table = Table("score", "summary", "found by", box=None, padding=(0, 2))
        for hit in hits:
            found_by = " + ".join(f"{channel} #{how['rank']}" for channel, how in hit["explain"].items())
            table.add_row(f"{hit['score']:.4f}", escape(hit["summary"]), found_by)
        self.console.print(table)
        self.pause(1.5)

    def pause(self, seconds: float) -> None:
        """Leave time to read, where somebody reads."""
        if self.pace:
            time.sleep(seconds * self.pace)


def main() -> int:
    """Run the tour and return the exit code."""
    parser = argparse.ArgumentParser(description="A narrated tour of Memoturn against a node of its own.")
    parser.add_argument("--fast", action="store_true", help="leave no time to read")
    pace = 0.0 if parser.parse_args().fast else 1.0
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="memoturn-demo-") as folder:
        node = Node(Path(folder))
        tour = Tour(node, console, pace=pace)
        try:
            tour.run()
        except KeyboardInterrupt:
            console.print("\n  Interrupted; the node and its folder are gone.")
            return 128 + signal.SIGINT
        except (NotAsToldError, MemoturnError) as error:
            console.print(
                f"\n  [bold red]✗ not as told:[/] {escape(str(error))}\n\n[bold]The node's log ends:[/]"
            )
            console.print(node.log_tail(), markup=False, soft_wrap=True)
            return 1
        finally:
            tour.close()
            node.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
