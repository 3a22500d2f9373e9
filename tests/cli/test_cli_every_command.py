"""Every command against a node that asks for credentials: a new one without a story here fails the first test."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from memoturn import Memoturn
from memoturn.cli.lazy import load
from memoturn.cli.table import COMMANDS

PLATFORM_KEY = "platform-key-of-the-tests"
ELSEWHERE = {
    "erase verify": "test_cli_erase.py",
    "mcp": "test_mcp_install.py",
    "mcp install": "test_mcp_install.py",
    "shell": "test_cli_shell.py",
    "init": "test_cli_init.py",
    "doctor": "test_cli_doctor.py",
}


@dataclass
class Step:
    """A command line, and what it has to say on stdout or stderr. `{name}` stands for what an earlier step kept."""

    line: str
    says: tuple[str, ...] = ()
    code: int = 0
    who: str = "admin"
    stdin: str = ""
    keeps: dict[str, str] = field(default_factory=dict)


def step(line: str, *says: str, **options: Any) -> Step:
    """`keeps` are names, and where their values are in the answer with --json: `results.0.id`."""
    return Step(line, says=says, **options)


P, W, R = {"who": "platform"}, {"who": "write"}, {"who": "read"}

STORIES: dict[str, list[Step]] = {
    "memory": [
        step(
            'memory ingest {ns} ann --topic diet --summary "Ann eats all" --session s1 --pin --importance 0.5',
            keeps={"old": "results.0.id"},
            **W,
        ),
        step(
            'memory ingest {ns} ann --topic diet --summary "Ann is vegan" --reason "she said so"',
            keeps={"new": "results.0.id"},
        ),
        step('memory ingest {ns} ann --summary "secret" --type task --session s1', who="read", code=1),
        step('memory ingest {ns} ann --summary "call her" --type task --session s1', "created", **W),
        step("memory ingest {ns} ann --summary half --importance 2", code=2),
        step('memory recall {ns} ann "is Ann vegan?" --min-score 0.1 --half-life 3600', "Ann is vegan", **R),
        step("memory recall {ns} ann vegan --since 2100-01-01T00:00:00Z", "nothing recalled", **R),
        step("memory recall {ns} ann vegan --since yesterday", "is no time", code=2),
        step("memory get {ns} ann {new}", "Ann is vegan", **R),
        step("memory get {ns} ann mem_nothing", "has no memory", code=3),
        step("memory list {ns} ann --type fact --include-superseded", "Ann eats all (superseded)", **R),
        step("memory list {ns} ann --order sideways", "takes one of", code=2),
        step("memory patch {ns} ann {new} --importance 0.9 --keywords plants", "plants", **W),
        step("memory patch {ns} ann {new}", "give --pin", code=2),
        step("memory history {ns} ann {new}", "she said so", "Ann eats all", **R),
        step("memory history {ns} ann mem_nothing", code=3),
        step("memory topics {ns} ann --prefix di", "diet\tfact\t2", **R),
        step("memory topic {ns} ann diet", "Ann is vegan", **R),
        step("memory topic {ns} ann nothing", "has no topic nothing", code=3),
        step("memory undo {ns} ann {new} --dry-run", "would bring back Ann eats all"),
        step("memory undo {ns} ann {new}", "is active again, as version 3", **W),
        step("memory undo {ns} ann {new}", "error:", code=4),
        step("memory sessions {ns} ann", "s1", **R),
        step("memory end-session {ns} ann s1 --turns --dry-run", "1 tasks, 0 turns", "nothing was changed"),
        step("memory end-session {ns} ann s1", "ended session s1", **W),
        step("memory sessions {ns} ann", "has no sessions", **R),
        step("memory forget {ns} ann {new} --dry-run", "would forget fact 'Ann is vegan'"),
        step("memory get {ns} ann {new}", "Ann is vegan"),
        step("memory forget {ns} ann {new}", "forgot {new}", **W),
        step("memory forget {ns} ann {new} --dry-run", code=3),
        step("memory forget-many {ns} ann", "give ids, or filters, or --all", code=2),
        step("memory forget-many {ns} ann --topic diet --dry-run", "would forget 1 memories"),
        step("memory forget-many {ns} ann --all --dry-run", "would forget 1 memories"),
        step("memory forget-many {ns} ann {old}", "forgot 1 memories", **W),
        step("memory list {ns} ann", "no memory matches"),
        step("memory profiles {ns}", "ann", **R),
        step("memory models {ns} ann", "the node embeds with", **R),
        step("memory reembed {ns} ann --only-missing --wait", "state\tdone", **W),
        step("memory reembed {ns} ann --status", "state\tdone", **R),
        step("memory reembed {ns} ann --cancel", "cancelled", **W),
        step("memory drop-model {ns} ann nothing --dry-run", "has no model nothing", code=3),
        step("memory drop-model {ns} ann nothing", "has no model nothing", code=3),
        step("memory drop-model {ns} ann nothing", "does not cover", who="write", code=1),
        step(
            "memory extract {ns} eve --session s2 --dry-run",
            "the moon is far",
            stdin='[{"role": "user", "content": "fact moon: the moon is far"}]',
        ),
        step("memory list {ns} eve", "no memory matches"),
        step(
            "memory extract {ns} eve --session s2",
            "created",
            stdin='{"role": "user", "content": "fact moon: the moon is far"}\n{"role": "user", "content": "hi"}\n',
            **W,
        ),
        step("memory extract {ns} eve", "not valid JSON", stdin="{", code=2),
        step('ask {ns} eve "where is the moon?"', "the moon is far.", "from mem_", **R),
        step("ask {ns} nobody anything", "nothing is known of that", **R),
        step("memory export {ns} eve {tmp}/eve.jsonl", "saved {ns}/eve", **R),
        step("memory export {ns} eve {tmp}/eve.jsonl", "exists; choose another name", code=2),
        step("memory import {ns} eva {tmp}/eve.jsonl --dry-run", "would store them"),
        step("memory import {ns} eva {tmp}/eve.jsonl", "2 memory", **W),
        step("memory import {ns} eva {tmp}/eve.jsonl --dry-run", "would be refused"),
        step("memory import {ns} eva {tmp}/eve.jsonl", "error:", code=4),
        step("memory import {ns} eva {tmp}/eve.jsonl --replace", "2 memory", **W),
        step("memory models {ns} eva", keeps={"model": "models.0.name"}),
        step("memory drop-model {ns} eva {model} --dry-run", "would drop {model}: vectors of"),
        step("memory drop-model {ns} eva {model}", "dropped {model}"),
        step("memory erase {ns} eva --topic moon --dry-run", "1 memories"),
        step("memory erase {ns} eva --dry-run", "names nothing", code=1),
        step("memory erase {ns} eva --topic moon", "pending", keeps={"erasure": "erasure_id"}, **W),
        step("memory erasures {ns} eva", "pending", **R),
        step("memory erasures {ns} eva {erasure}", "moon", **R),
        step("memory erasures {ns} eva era_nothing", code=3),
    ],
    "directory": [
        step("db create {name}", "{name}", **P),
        step("db create {name}", "Choose another name", code=4, **P),
        step("db create {name}", "does not cover", code=1),
        step("db list --prefix {name}", "{name}", **P),
        step("db delete {name} --dry-run", "would delete database {name}", "nothing was changed", **P),
        step("db delete {name}-none --dry-run", "there is no database", code=3, **P),
        step("db list --prefix {name}", "{name}", **P),
        step("db delete {name}", "deleted database {name}", **P),
        step("db list --prefix {name} --deleted", "{name}", **P),
        step("db undelete {name}", "is there again", **P),
        step("db undelete {name}", code=4, **P),
        step("db undelete {name}-none", code=3, **P),
        step("namespaces", **P),
        step(
            "settings set {name} docs/orders=durable default=local --dry-run", "does not cover", **P, code=1
        ),
        step("usage {name}", **P),
        step("cluster", "{node}", **P),
        step("cluster", "does not cover", code=1),
        step("placement {ns}--ann2", code=3, **P),
        step("placement {name}", "branch id", **P),
        step("tenant create {tenant}", "{tenant}", **P),
        step("tenant list", "{tenant}", **P),
        step("db create orders --tenant {tenant}", "orders", **P),
        step("tenant delete {tenant} --dry-run", "would be refused: {tenant} has 1 databases", **P),
        step("tenant delete {tenant}", code=4, **P),
        step("tenant delete {tenant}-none --dry-run", code=3, **P),
        step("tenant list", "does not cover", code=1),
    ],
    "branches": [
        step("sql {db} 'create table t(a); insert into t values (1)'", "1 rows affected"),
        step("kv put {db} n k v1"),
        step("branch checkpoint {db} main monday", "checkpoint monday names txid"),
        step("kv put {db} n k v2"),
        step("branch checkpoints {db} main", "monday"),
        step("branch create {db} what-if --at monday", "{db}@what-if"),
        step("branch create {db} what-if", code=4),
        step("branch create {db} no", "does not cover", code=1, **W),
        step("branch list {db}", "what-if"),
        step("branch restore-points {db} main --limit 2", "commit", **R),
        step("branch rewind {db} main monday --dry-run", "would bring back txid", "nothing was changed"),
        step("kv get {db} n k", "v2", **R),
        step("branch rewind {db} main nothing --dry-run", code=3),
        step("branch undo {db} main --dry-run", "it was never rewound", code=4),
        step("branch rewind {db} main monday", "is as it was at txid"),
        step("kv get {db} n k", "v1"),
        step("branch undo {db} main --dry-run", "would bring back txid"),
        step("branch undo {db} main", "is as it was at txid"),
        step("kv get {db} n k", "v2"),
        step("branch delete-checkpoint {db} main monday --dry-run", "which names txid"),
        step("branch delete-checkpoint {db} main monday", "dropped checkpoint"),
        step("branch delete-checkpoint {db} main monday --dry-run", code=3),
        step("branch delete {db} what-if --dry-run", "would delete {db}@what-if with 0 checkpoints"),
        step("branch delete {db} what-if", "deleted branch"),
        step("branch delete {db} what-if --dry-run", "would do nothing"),
        step("branch list {db} --deleted", "what-if"),
        step("branch graph {db}", "main", "what-if  deleted", "undo, as at txid", "+-'"),
        step("branch undelete {db} what-if", "is there again"),
        step("branch graph {db}", "what-if  txid"),
        step("branch graph {db}", "does not cover", code=1, **R),
        step("changes {db} --since 0", "kv/n +k", "sql +t", "go on with --since", **R),
        step("changes {db}", "go on with --since", **R),
        step("changes {db} --surface nothing", "takes one of", code=2),
        step("sync {db}", "in object storage", **W),
        step("sync {db}", "does not cover", code=1, **R),
        step("export {db} {tmp}/state.db", "saved {db}"),
        step("import {tmp}/state.db {db}-2", "begins with", **P),
        step("verify {db}", "clean"),
        step("backup {ns} {tmp}/backup", "saved"),
        step("restore-backup {tmp}/backup --into {ns}-back", "brought back", who="both"),
        step("sql {db} 'select a from t'", "1\n", **R),
        step("sql {db} 'insert into t values (2)'", code=1, **R),
        step("settings set {db} kv=durable sql=local --dry-run", "would replace {{}}"),
        step("settings get {db}", "nothing is set"),
        step("settings set {db} kv=durable", "set"),
        step("settings set {db} kv=never", "is not as in", code=2),
        step("settings get {db}", "kv\tdurable"),
        step("settings set {db}", "taken back"),
        step("usage {ns} --ns", who="platform"),
        step("usage {ns} --ns --from 2100-01-01", "error:", code=1, **P),
    ],
    "key-values": [
        step("kv put {db} n a 1 --metadata '{{\"m\": 1}}' --ttl 3600", keeps={"etag": "etag"}, **W),
        step("kv put {db} n a 2 --if-absent", "error:", code=4),
        step("kv put {db} n a 2 --if-match {etag}", "set n/a"),
        step("kv put {db} n a 3 --if-match {etag}", code=4),
        step("kv put {db} n b - ", "3 bytes", stdin="\x00ab"),
        step("kv put {db} n c x --metadata 3", "takes a JSON object", code=2),
        step("kv get {db} n a", "2", **R),
        step("kv get {db} n a --details", "etag", "bytes", **R),
        step("kv get {db} n nothing", "has no key", code=3),
        step("kv list {db} n", "a\nb\n", **R),
        step("kv list {db} n --details --prefix b", "b\t3", **R),
        step("kv increment {db} n count 5", "5", **W),
        step("kv increment {db} n count 1", "6"),
        step("kv increment {db} n b", code=4),
        step(
            "kv batch {db} n",
            "a\tfound",
            "z\tstored",
            "b\tdeleted",
            stdin='{"gets": ["a"], "puts": [{"key": "z", "value": "y"}], "deletes": ["b"]}',
            **W,
        ),
        step("kv batch {db} n '{{\"got\": []}}'", "takes lists named", code=2),
        step(
            "kv batch {db} n --dry-run",
            "would replace 1 values, remove 1, and set 1 new ones",
            stdin='{"puts": [{"key": "z", "value": "1"}, {"key": "new", "value": "2"}], "deletes": ["z", {"key": "y"}]}',
        ),
        step("kv delete {db} n z --dry-run", "would remove n/z, 1 bytes"),
        step("kv delete {db} n y --dry-run", "which is not there"),
        step("kv get {db} n z", "y"),
        step("kv delete {db} n z", "removed", **W),
        step("kv delete {db} n a", "does not cover", code=1, **R),
        step('erase request {db} \'{{"kv": {{"ns": "n", "key": "a"}}}}\' --dry-run', "1 keys"),
        step("kv get {db} n a", "2"),
        step(
            'erase request {db} \'{{"kv": {{"ns": "n", "key": "a"}}}}\'',
            "pending",
            keeps={"erasure": "erasure_id"},
            **W,
        ),
        step("erase list {db}", "pending", **R),
        step("erase show {db} {erasure}", "kv", **R),
        step("erase verify {tmp}/no-such", code=1),
        step("kv get {db} n a", code=3),
    ],
    "documents": [
        step('docs insert {db} people \'{{"_id": "ann", "age": 30, "name": "Ann"}}\'', "ann", **W),
        step(
            "docs insert {db} people", "bob\ncid\n", stdin='{"_id":"bob","age":5}\n{"_id":"cid","age":40}\n'
        ),
        step("docs insert {db} people '[1]'", "takes JSON objects", code=2),
        step('docs insert {db} people \'{{"_id": "ann"}}\'', code=1),
        step("docs collections {db}", "people\t3\t0", **R),
        step("docs get {db} people ann", '"age": 30', **R),
        step("docs get {db} people eve", "has no document", code=3),
        step(
            'docs find {db} people --filter \'{{"age": {{"$gte": 18}}}}\' --sort \'{{"age": -1}}\' --fields age',
            '{{"_id": "cid", "age": 40}}\n',
            **R,
        ),
        step("docs find {db} people --filter '{{\"age\": 1}}'", "no document matches", **R),
        step("docs find {db} people --filter x", "not valid JSON", code=2),
        step("docs count {db} people", "3", **R),
        step("docs distinct {db} people name", "Ann", **R),
        step("docs create-index {db} people name --unique", "indexed name", **W),
        step("docs indexes {db} people", "name\tunique", **R),
        step("docs drop-index {db} people name --dry-run", "would drop 1 index"),
        step("docs drop-index {db} people name", "dropped the index", **W),
        step('docs update {db} people \'{{"_id": "ann"}}\' \'{{"$inc": {{"age": 1}}}}\'', "updated 1", **W),
        step(
            'docs update {db} people \'{{"_id": "dan"}}\' \'{{"$set": {{"age": 1}}}}\' --upsert',
            "inserted dan",
        ),
        step(
            'docs delete {db} people \'{{"age": {{"$lt": 18}}}}\' --dry-run', "would delete 1 of 2 documents"
        ),
        step('docs delete {db} people \'{{"age": {{"$lt": 18}}}}\' --multi', "deleted 2 documents", **W),
        step("docs drop {db} people --dry-run", "2 documents, 0 indexes"),
        step("docs drop {db} people", "does not cover", code=1, **R),
        step("docs drop {db} people", "dropped people", **W),
        step("docs collections {db}", "has no collections"),
    ],
    "vectors": [
        step("vectors upsert {db} pages p1 '[1, 0]' --metadata '{{\"lang\": \"en\"}}'", "created p1", **W),
        step("vectors upsert {db} pages p2 '[1]'", code=1),
        step("vectors upsert {db} pages p2 x", "not valid JSON", code=2),
        step("vectors load {db} pages", "p2\tcreated", stdin='{"id": "p2", "embedding": [0, 1]}'),
        step("vectors collections {db}", "pages\t2\t2", **R),
        step("vectors get {db} pages p1", "[1.0, 0.0]", **R),
        step("vectors get {db} pages p9", "has no vector", code=3),
        step("vectors list {db} pages", 'p1\t{{"lang": "en"}}', **R),
        step("vectors search {db} pages '[1, 0]' --k 1 --metadata", 'p1\t0.000000\t{{"lang": "en"}}', **R),
        step("vectors search {db} pages '[1, 0]' --filter '{{\"lang\": \"de\"}}'", "nothing was found", **R),
        step("vectors delete {db} pages p1 p9 --dry-run", "would delete 1 of 2 vectors"),
        step('vectors delete {db} pages --filter \'{{"lang": "en"}}\' --dry-run', "would delete the vectors"),
        step("vectors delete {db} pages", "give ids, or --filter", code=2),
        step("vectors delete {db} pages p1 p9", "deleted 1 vectors", **W),
        step("vectors drop {db} pages --dry-run", "with 1 vectors"),
        step("vectors drop {db} pages", "dropped pages", **W),
    ],
    "turns": [
        step('turns append {db} s1 user "I am vegan"', "turn 1 of s1", **W),
        step("turns append {db} s1 tool - --value", "turn 2", stdin='{"a": 1}'),
        step("turns append {db} s1 tool x --value", "not valid JSON", code=2),
        step(
            "turns load {db} s1",
            "turns 3 to 4",
            stdin='[{"role":"user","content":"a"},{"role":"user","content":"b"}]',
        ),
        step("turns list {db} s1 --last 2", "3\t", "4\t", **R),
        step("turns list {db} s1 --after 1 --limit 1", "2\t", '{{"a": 1}}', **R),
        step("turns get {db} s1 1", "I am vegan", **R),
        step("turns get {db} s1 9", "has no turn 9", code=3),
        step("turns search {db} vegan", "I am vegan", **R),
        step("turns search {db} vegan --session s1 --mode keyword --role user", "s1\t1", **R),
        step("turns search {db} vegan --mode sideways", "takes keyword", code=2),
        step("turns search {db}", "give a QUERY", code=2),
        step("turns delete {db} s1 --from 3 --dry-run", "would delete 2 turns"),
        step("turns delete {db} s1", "give a SEQ", code=2),
        step("turns delete {db} s1 --from 3", "deleted 2 turns", **W),
        step("turns delete {db} s1 1", "deleted turn 1"),
        step("turns delete {db} s1 1", "has no turn 1", code=3),
        step("turns delete {db} s1 --all", "deleted 1 turns"),
        step("turns list {db} s1", "has no turns"),
    ],
    "timelines": [
        step("timelines append {db} calls search '{{\"ms\": 10}}' --time 1000", "appended 1 row", **W),
        step(
            "timelines load {db} calls",
            "appended 2 rows",
            stdin='[{"key":"b","at":2000,"data":{"ms":20}},{"key":"b"}]',
        ),
        step("timelines append {db} calls search x", "not valid JSON", code=2),
        step("timelines list {db}", "calls\t3\t2", "everything", **R),
        step("timelines show {db} calls", "rows\t3", **R),
        step("timelines show {db} none", "has no timeline", code=3),
        step(
            "timelines query {db} calls --key search --until 1970-01-01T00:00:02Z",
            'search\t1\t{{"ms": 10}}',
            **R,
        ),
        step('timelines query {db} calls --filter \'{{"ms": {{"$gt": 15}}}}\'', "b\t", **R),
        step("timelines aggregate {db} calls ms --by-key --oldest-first", "b\t2\t20", **R),
        step(
            "timelines aggregate {db} calls --window 1s --limit 1 --oldest-first",
            "1970-01-01 00:00:01Z\t1",
            **R,
        ),
        step("timelines aggregate {db} calls --window never", "takes a time", code=2),
        step("timelines retain {db} calls --rows 1 --dry-run", "which holds 3 rows"),
        step("timelines retain {db} calls --rows 1", "keeps 1 rows a key", **W),
        step("timelines show {db} calls", "rows\t2"),
        step("timelines delete {db} calls --dry-run", "with 2 rows"),
        step("timelines delete {db} calls", "deleted calls", **W),
        step("timelines list {db}", "has no timelines"),
    ],
    "credentials": [
        step("db create {name}", **P),
        step(
            "token create {name} --scope read --ttl 60 --subject bot",
            keeps={"id": "id", "made": "token"},
            **P,
        ),
        step("token create {name} --scope all", "takes read, write or admin", code=2, **P),
        step("token create {name}-none", code=3, **P),
        step(
            "token create-ns {ns} --scope write --profile ann --surface memory --writes-per-s 5 --ttl 60",
            "eyJ",
        ),
        step("token create-ns {ns} --scope admin", "does not cover", code=1, **W),
        step("token list {name}", "{id}", "bot", "good", **P),
        step("token list {ns} --ns", "profiles ann", "writes_per_s 5"),
        step("token revoke {name} {id} --dry-run", "would revoke 1 tokens", **P),
        step("token list {name}", "good", **P),
        step("token revoke {name}", "give an ID", code=2, **P),
        step("token revoke {name} {id}", "revoked {id}", **P),
        step("token revoke {name} {id} --dry-run", "has no good token", code=3, **P),
        step("token list {name}", "revoked", **P),
        step(
            "token revoke {name} --token-stdin --dry-run",
            "has no good token {id}",
            stdin="{made}",
            code=3,
            **P,
        ),
        step("token revoke {name} --token-stdin --dry-run", "is no token", stdin="x", code=2, **P),
        step(
            "token revoke - --tenant-wide --token-stdin --dry-run",
            "would revoke the token {id}",
            stdin="{made}",
            **P,
        ),
        step("token revoke - --tenant-wide --all --dry-run", "every token of the whole tenant", **P),
        step("token create {name} --scope read --ttl 60", keeps={"made2": "token"}, **P),
        step("token revoke {name} --token-stdin --dry-run", "would revoke 1 tokens", stdin="{made2}", **P),
        step("token revoke {name} --token-stdin", "revoked the token", stdin="{made2}", **P),
        step("token revoke {name} --token-stdin", "revoked the token", stdin="{made}", **P),
        step("token revoke {name} --all --dry-run", "would revoke 0 tokens", **P),
        step("token revoke {name} --all", "revoked every token", **P),
        step("key list", "signing", **P),
        step("key list", "does not cover", code=1),
        step("key rotate --dry-run", "would make a key", **P),
        step("key rotate", "signs from", **P),
        step("key list", "verifying", **P),
    ],
    "governing": [
        step("policy get {ns}", "has no policy", code=3, **P),
        step(
            "policy set {ns} --dry-run",
            "would replace null",
            stdin='{"memory": {"task_ttl_max_secs": 600}}',
            **P,
        ),
        step("policy set {ns}", "at revision 1", stdin='{"memory": {"task_ttl_max_secs": 600}}', **P),
        step("policy set {ns} --if-revision 9", "error:", stdin="{}", code=4, **P),
        step("policy set {ns}", "takes a JSON object", stdin="[]", code=2, **P),
        step("policy get {ns}", "600", **P),
        step("policy set {ns} --profile ann", "at revision 2", stdin='{"memory": {"task_ttl_max_secs": 60}}'),
        step("policy get {ns} --profile ann", '"task_ttl_max_secs": 60', **R),
        step("policy clear {ns} --profile ann --dry-run", "would clear"),
        step("policy clear {ns} --profile ann", "cleared, at revision 3"),
        step("policy clear {ns}", "cleared", **P),
        step("quota get {ns}", "memories", **P),
        step("quota set {ns} --memories 5 --dry-run", "would replace", **P),
        step("quota set {ns} --memories 5 --writes-per-s 50", "memories\t5\t5", **P),
        step("quota set {ns} --memories many", code=2, **P),
        step("quota set {ns}", "memories\t\t", **P),
        step("quota get default --of-tenant", "databases", **P),
        step("quota set default --of-tenant --dry-run", "would replace", **P),
        step("audit query {ns} --from 24h", **P),
        step("audit query {ns} --from yesterday", code=2, **P),
        step("audit verify {ns}", **P),
        step("audit export {ns} {tmp}/audit", "exported", **P),
        step("audit export {ns} {tmp}/audit2 --action memory.", "without filters", code=2, **P),
        step("audit export {ns} --from 24h --action policy.", '"action": "policy.', **P),
        step("audit export {ns} --action nothing.", **P),
    ],
    "by itself": [
        step("version", "memoturn 0."),
        step("completions bash", "_MEMOTURN_COMPLETE=complete_bash"),
        step("completions zsh", "#compdef memoturn"),
        step("completions fish", "complete --command memoturn"),
        step("completions tcsh", "takes bash, zsh or fish", code=2),
    ],
}


def leaves() -> dict[str, Any]:
    """Every command by its words."""

    def walk(words: tuple[str, ...], command: Any) -> Any:
        below = getattr(command, "commands", None)
        if not below or getattr(command, "invoke_without_command", False):
            yield " ".join(words), command
        for name, one in (below or {}).items():
            yield from walk((*words, name), one)

    return dict(pair for entry in COMMANDS for pair in walk((entry.name,), load(entry.name)))


def called(line: str) -> str:
    """The command that a line calls."""
    words = line.split()
    known = leaves()
    return next(name for size in (2, 1) if (name := " ".join(words[:size])) in known)


def test_every_command_has_a_story_or_a_file_of_tests_of_its_own():
    told = {called(one.line) for story in STORIES.values() for one in story if one.code == 0}
    assert set(leaves()) - told - set(ELSEWHERE) == set()
    assert set(ELSEWHERE) <= set(leaves())
    here = Path(__file__).parents[1]
    for command, name in ELSEWHERE.items():
        (file,) = here.rglob(name)
        assert command.split()[-1] in file.read_text()


@pytest.mark.parametrize("name", leaves())
def test_the_help_of_a_command_says_what_it_does_and_shows_an_example(command, name):
    outcome = command(*name.split(), "--help")

    assert outcome.code == 0
    shown = outcome.text
    assert re.search(rf"^  .*memoturn {name}\b", shown, flags=re.MULTILINE), shown
    assert "Global options such as --json" in shown
    assert "Usage: memoturn" in shown


@pytest.mark.parametrize("name", leaves())
def test_every_example_of_a_help_is_a_line_that_the_command_takes(command, name):
    """The options that it names exist, and it has as many arguments as it takes."""
    found = leaves()[name]
    shown = command(*name.split(), "--help").text
    options = {option for parameter in found.params for option in parameter.opts + parameter.secondary_opts}
    options |= {"--json", "--url", "--token", "--durable", "--tenant"}
    lines = re.findall(rf"^  .*?(memoturn {name}\b.*)$", shown, flags=re.MULTILINE)
    deeper = tuple(other for other in leaves() if other.startswith(f"{name} "))
    for line in lines:
        if line.removeprefix("memoturn ").startswith(deeper or "-"):
            continue  # an example of a command below
        own = re.split(r" [|<>] |\)\"$", line)[0]
        for word in shlex.split(own.partition(" -- ")[0])[1 + len(name.split()) :]:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, line


def test_destroying_commands_can_say_beforehand_what_would_go():
    """Whatever asks before it acts has a dry run."""
    for name, command in leaves().items():
        options = {option for parameter in command.params for option in parameter.opts}
        if "--yes" in options:
            assert "--dry-run" in options, name


@dataclass(frozen=True)
class World:
    """Where a story plays: names that are nobody else's, and a token for each scope."""

    url: str
    values: dict[str, str]
    tokens: dict[str, str]

    def credentials(self, who: str) -> list[str]:
        if who == "platform":
            return ["--platform-key", PLATFORM_KEY]
        if who == "both":
            return ["--token", self.tokens["back"], "--platform-key", PLATFORM_KEY]
        return ["--token", self.tokens[who]]


@pytest.fixture
def world(guarded, request, tmp_path) -> World:
    name = re.sub(r"\W", "-", request.node.callspec.params["story"])
    ns = f"every-{name}"
    values = {
        "ns": ns,
        "db": f"{ns}--ann",
        "name": f"db-{name}",
        "tenant": f"tenant-{name}",
        "tmp": str(tmp_path),
        "node": "node",
    }
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY) as operator:
        tokens = {
            scope: operator.create_namespace_token(ns, scope)["token"] for scope in ("read", "write", "admin")
        }
        tokens["back"] = operator.create_namespace_token(f"{ns}-back", "admin")["token"]
    with Memoturn(guarded.url, token=tokens["admin"]) as client:
        client.memory(ns, "ann").ingest([{"type": "event", "summary": "It began"}])
        if name == "memory":
            client.memory(ns, "ann").forget_many(all=True)
    return World(guarded.url, values, tokens)


@pytest.mark.parametrize("story", STORIES)
def test_story(command, world, story):
    for one in STORIES[story]:
        arguments = [word.format(**world.values) for word in shlex.split(one.line)]
        common = ["--url", world.url, *world.credentials(one.who)]
        stdin = re.sub(r"\{(made2?)\}", lambda named: world.values[named[1]], one.stdin).encode()
        as_json = ["--json"] if one.keeps else []

        outcome = command(*arguments, *common, *as_json, stdin=stdin)

        shown = outcome.stdout.decode(errors="replace") + outcome.stderr
        told = f"memoturn {' '.join(arguments)} ({one.who})\n{shown}"
        assert outcome.code == one.code, told
        assert "Traceback" not in shown, told
        for words in one.says:
            assert words.format(**world.values) in " ".join([shown, " ".join(shown.split())]), told
        if one.code:
            assert outcome.stdout == b"" or one.line.startswith("mcp"), told
        for name, path in one.keeps.items():
            value = outcome.json
            for part in path.split("."):
                value = value[int(part)] if part.isdigit() else value[part]
            world.values[name] = str(value)


DRY = [
    "memory forget {ns} ann {id}",
    "memory forget-many {ns} ann --all",
    "memory end-session {ns} ann s1 --turns",
    "memory erase {ns} ann --memory-id {id}",
    "memory undo {ns} ann {id}",
    "memory import {ns} ann {tmp}/x --replace",
    "branch rewind {db} main 1",
    "branch delete {db} fork",
    "branch delete-checkpoint {db} main here",
    "kv delete {db} n k",
    """kv batch {db} n '{{"puts": [{{"key": "k", "value": "w"}}], "deletes": ["k"]}}'""",
    """docs update {db} c {{}} '{{"$unset": {{"a": 1}}}}' --multi""",
    "docs delete {db} c {{}} --multi",
    "docs drop {db} c",
    "docs drop-index {db} c a",
    "vectors delete {db} v a",
    "vectors drop {db} v",
    "turns delete {db} s1 --all",
    "timelines delete {db} t",
    "timelines retain {db} t --rows 0",
    """erase request {db} '{{"kv": {{"ns": "n", "key": "k"}}}}' '{{"session_id": "s1", "turns": true}}'""",
]


@pytest.mark.parametrize("story", ["dry-runs"])
def test_a_dry_run_commits_nothing(command, world, story):
    """Nothing of the branch moves, and no erasure is begun."""
    del story
    common = ["--url", world.url, "--token", world.tokens["admin"]]
    (Path(world.values["tmp"]) / "x").write_text("{}")
    for line in (
        "kv put {db} n k v",
        "docs insert {db} c '{{\"a\": 1}}'",
        "docs create-index {db} c a",
        "vectors upsert {db} v a '[1]'",
        "turns append {db} s1 user hello",
        "timelines append {db} t k",
        "branch create {db} fork",
        "branch checkpoint {db} main here",
    ):
        outcome = command(*(word.format(**world.values) for word in shlex.split(line)), *common)
        assert outcome.code == 0, outcome.stderr
    listed = command("memory", "list", world.values["ns"], "ann", "--json", *common)
    world.values["id"] = listed.json["memories"][0]["id"]

    def standing() -> list[str]:
        points = command("branch", "restore-points", world.values["db"], "main", "--limit", "1", *common)
        gone = command("branch", "list", world.values["db"], "--deleted", *common)
        there = command("branch", "list", world.values["db"], *common)
        erased = command("erase", "list", world.values["db"], *common)
        return [points.text, gone.text, there.text, erased.text]

    before = standing()
    for line in DRY:
        words = [word.format(**world.values) for word in shlex.split(line)]
        outcome = command(*words, "--dry-run", *common)
        assert outcome.code == 0, f"{line}\n{outcome.stderr}"
        assert re.search("would .*nothing was changed", outcome.text, flags=re.DOTALL), line
        assert command(*words, "--dry-run", "--json", *common).json["dry_run"] is True
    assert standing() == before


READS = [
    one
    for story in ("documents", "vectors", "turns", "timelines")
    for one in STORIES[story]
    if one.who == "read" and one.code == 0 and not one.stdin
]


@pytest.mark.parametrize("one", READS, ids=lambda one: one.line.split(" {db}")[0])
def test_what_reads_prints_json_on_request(command, guarded, admin_token, one):
    """On a profile that is there and empty: what is not found says so and prints nothing."""
    values = {"db": "every-json--ann"}
    arguments = [word.format(**values) for word in shlex.split(one.line)]

    outcome = command(*arguments, "--url", guarded.url, "--token", admin_token, "--json")

    assert outcome.code in {0, 3}, outcome.stderr
    for line in [outcome.text] if not one.line.startswith("docs find") else outcome.text.splitlines():
        assert outcome.code == 3 or json.loads(line) is not None


@pytest.fixture(scope="session")
def admin_token(guarded) -> str:
    with Memoturn(guarded.url, platform_key=PLATFORM_KEY) as operator:
        token = operator.create_namespace_token("every-json", "admin")["token"]
    with Memoturn(guarded.url, token=token) as client:
        client.memory("every-json", "ann").ingest([{"type": "event", "summary": "It began"}])
    return token
