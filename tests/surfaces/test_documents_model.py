"""Collections against a plain Python model: whatever is inserted, updated, deleted and indexed, queries agree with it."""

import itertools

import document_model as model
import msgspec
from conftest import FakeProfile
from document_model import RefusedError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memoturnd.errors import ConflictError, InvalidRequestError
from memoturnd.surfaces import collections, document_queries, documents

NAMES = ["c", "C", "a-b", "a_b"]
IDS = st.one_of(st.none(), st.sampled_from(["1", "2", "a", "é", "\U0001f600", '"', "z'"]))


def spelled(value):
    return msgspec.json.encode(value)


class Collections(RuleBasedStateMachine):
    """Four collections whose names look alike, in one file."""

    def __init__(self):
        super().__init__()
        self.profile = FakeProfile()
        self.conn = self.profile.conn
        self.docs = {name: [] for name in NAMES}
        self.indexes = {name: {} for name in NAMES}

    def teardown(self):
        self.conn.close()

    def write(self, op):
        """Apply an op as the engine does; what raises leaves nothing behind."""
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            value, _ = op(self.profile.now_ms)
        except BaseException:
            self.conn.execute("ROLLBACK")
            raise
        self.conn.execute("COMMIT")
        return value

    def breaks_unique(self, name, docs):
        for path, unique in self.indexes[name].items():
            ranks = [r for r in (model.sort_rank(doc, path) for doc in docs) if r != (0, 0)]
            if unique and any(one == other for one, other in itertools.combinations(ranks, 2)):
                return True
        return False

    @initialize(
        indexes=st.lists(st.tuples(st.sampled_from(NAMES), model.field_paths, st.booleans()), max_size=5)
    )
    def begin(self, indexes):
        for name, path, unique in indexes:
            self.index(name, path, unique)

    @rule(name=st.sampled_from(NAMES), docs=st.lists(st.tuples(IDS, model.documents), max_size=6))
    def insert(self, name, docs):
        sent = [doc if key is None else {**doc, "_id": key} for key, doc in docs]
        parsed = documents.parse_insert({"docs": sent})
        try:
            ids = self.write(lambda now: documents.apply_insert(self.conn, now, name, parsed, random=5))
        except InvalidRequestError:
            keys = [doc["_id"] for doc in (*self.docs[name], *sent) if "_id" in doc]
            assert len(keys) > len(set(keys))
            return
        except ConflictError:
            assert self.breaks_unique(name, [*self.docs[name], *sent])
            return
        made = [doc if "_id" in doc else {"_id": key, **doc} for key, doc in zip(ids, sent, strict=True)]
        assert [doc["_id"] for doc in made] == ids
        self.docs[name] += made
        assert not self.breaks_unique(name, self.docs[name])

    @rule(
        name=st.sampled_from(NAMES),
        filter_=model.filters,
        update=model.updates,
        sort=model.sorts,
        multi=st.booleans(),
        upsert=st.booleans(),
    )
    def update(self, name, filter_, update, sort, multi, upsert):
        body = {"filter": filter_, "update": update, "sort": sort, "multi": multi, "upsert": upsert}
        parsed = documents.parse_update(body)
        found = [doc for doc in model.in_order(self.docs[name], sort) if model.matches(doc, filter_)]
        found = found if multi else found[:1]
        try:
            changed = {doc["_id"]: model.updated(doc, update) for doc in found}
        except RefusedError:
            changed = None
        before = self.docs[name]
        after = None if changed is None else [changed.get(doc["_id"], doc) for doc in before]
        try:
            done = self.write(lambda now: documents.apply_update(self.conn, now, name, parsed, random=5))
        except InvalidRequestError:
            assert changed is None or (upsert and not found)
            return
        except ConflictError:
            assert upsert or multi or self.breaks_unique(name, after)
            return
        assert after is not None
        assert done["modified"] == len(found)
        self.docs[name] = after
        if done["upserted_id"] is not None:
            assert upsert
            assert not found
            (new,) = document_queries.read_find(
                self.conn, name, document_queries.parse_find({"filter": {"_id": done["upserted_id"]}})
            )["docs"]
            equal = {path: value for path, value in parsed.filter.equal.items() if path != "_id"}
            expected = model.updated({"_id": done["upserted_id"]}, {"$set": equal})
            expected = model.updated(expected, update)
            assert bytes(new) == spelled(expected)
            self.docs[name].append(expected)
        else:
            assert found or not upsert

    @rule(name=st.sampled_from(NAMES), filter_=model.filters, sort=model.sorts, multi=st.booleans())
    def delete(self, name, filter_, sort, multi):
        parsed = documents.parse_delete({"filter": filter_, "sort": sort, "multi": multi})
        found = [doc for doc in model.in_order(self.docs[name], sort) if model.matches(doc, filter_)]
        found = found if multi else found[:1]

        assert self.write(lambda _: documents.apply_delete(self.conn, name, parsed)) == len(found)
        gone = {doc["_id"] for doc in found}
        self.docs[name] = [doc for doc in self.docs[name] if doc["_id"] not in gone]

    @rule(name=st.sampled_from(NAMES), path=model.field_paths, unique=st.booleans())
    def index(self, name, path, unique):
        index = collections.parse_index({"path": path, "unique": unique})
        known = self.indexes[name].get(path)
        try:
            self.write(lambda _: collections.apply_create_index(self.conn, name, index))
        except ConflictError:
            if known is None:
                self.indexes[name][path] = unique
                assert self.breaks_unique(name, self.docs[name])
                del self.indexes[name][path]
            else:
                assert known != unique
            return
        self.indexes[name][path] = unique
        assert known in (None, unique)
        assert not self.breaks_unique(name, self.docs[name])

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def drop_index(self, name, data):
        if self.indexes[name]:
            path = data.draw(st.sampled_from(sorted(self.indexes[name])))
            self.write(lambda _: collections.apply_drop_index(self.conn, name, path))
            del self.indexes[name][path]

    @rule(name=st.sampled_from(NAMES))
    def drop(self, name):
        if collections.exists(self.conn, name):
            self.write(lambda _: collections.apply_drop(self.conn, name))
        self.docs[name], self.indexes[name] = [], {}

    @rule(
        name=st.sampled_from(NAMES),
        filter_=model.filters,
        sort=model.sorts,
        limit=st.integers(1, 5),
        skip=st.integers(0, 3),
        projection=model.projections,
    )
    def find(self, name, filter_, sort, limit, skip, projection):
        expected = [doc for doc in model.in_order(self.docs[name], sort) if model.matches(doc, filter_)]
        body = {"filter": filter_, "sort": sort, "limit": limit}
        if projection is not None:
            body["projection"] = projection
        shown = [spelled(model.projected(doc, projection or {})) for doc in expected]

        found = self.found(name, {**body, "skip": skip})
        assert [spelled(doc) for doc in found["docs"]] == shown[skip : skip + limit]
        assert (found["next_cursor"] is None) == (skip + limit >= len(shown))

        pages, cursor = [], None
        while True:
            page = self.found(name, {**body, "cursor": cursor})
            pages += [spelled(doc) for doc in page["docs"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert pages == shown

    def found(self, name, body):
        return document_queries.read_find(self.conn, name, document_queries.parse_find(body))

    @rule(name=st.sampled_from(NAMES), filter_=model.filters, path=st.sampled_from([*model.PATHS, "_id"]))
    def count_and_distinct(self, name, filter_, path):
        matching = [doc for doc in self.docs[name] if model.matches(doc, filter_)]
        parsed = document_queries.parse_count({"filter": filter_})
        assert document_queries.read_count(self.conn, name, parsed) == len(matching)

        wanted = document_queries.parse_distinct({"path": path, "filter": filter_})
        values, has_more = document_queries.read_distinct(self.conn, name, wanted)
        scalars = [model.at(doc, path) for doc in matching]
        expected = {
            (model.rank(model.scalar(v)), isinstance(v, bool))
            for v in scalars
            if v not in (None, model.MISSING) and not isinstance(v, list | dict)
        }
        assert [(model.rank(model.scalar(v)), isinstance(v, bool)) for v in values] == sorted(expected)
        assert not has_more

    @invariant()
    def the_file_holds_the_model(self):
        listed = {row["name"]: row for row in collections.read_collections(self.conn)}
        for name in NAMES:
            docs = self.docs[name]
            if name in listed:
                assert (listed[name]["count"], listed[name]["indexes"]) == (
                    len(docs),
                    len(self.indexes[name]),
                )
                found = collections.read_indexes(self.conn, name)
                assert {row["path"]: row["unique"] for row in found} == self.indexes[name]
            else:
                assert (docs, self.indexes[name]) == ([], {})
            stored = self.found(name, {})["docs"]
            assert [bytes(doc) for doc in stored] == [spelled(doc) for doc in model.in_order(docs, {})]


Collections.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestCollections = Collections.TestCase
