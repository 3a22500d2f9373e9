"""Maps over runs against a plain dict."""

from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core import keyed
from memoturnd.core.keyed import RunRef

QUICK = settings(max_examples=200, deadline=None, derandomize=True)
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "flush", "late flush"]), st.integers(0, 30)), max_size=60
)


class Keyed:
    """A map as a document keeps it, with its runs in a dict."""

    def __init__(self):
        self.recent, self.runs, self.stored = {}, (), {}

    def plan(self):
        flush = keyed.plan_flush(self.recent, self.runs)
        merged = keyed.join(flush, [self.stored[ref] for ref in flush.joined], self.recent)
        ref = RunRef("b1", len(merged), f"{len(self.stored):032d}", 1)
        if merged:
            self.stored[ref] = merged
        return flush, ref if merged else None

    def land(self, flush, ref):
        done = keyed.flushed(self.recent, self.runs, flush, ref)
        if done is not None:
            self.recent, self.runs = done

    def all(self):
        return keyed.live([self.recent, *[self.stored[ref] for ref in self.runs]])


@QUICK
@given(steps=STEPS)
def test_map_over_runs_is_a_plain_dict(steps):
    model, made, waiting = {}, Keyed(), []
    for step, (kind, n) in enumerate(steps):
        if kind == "put":
            model[f"k{n}"] = step
            made.recent = {**made.recent, f"k{n}": step}
        elif kind == "delete":
            model.pop(f"k{n}", None)
            made.recent = keyed.without(made.recent, made.runs, f"k{n}")
        elif kind == "flush":
            made.land(*made.plan())
        else:  # planned now, landed after whatever comes in between
            for plan in waiting:
                made.land(*plan)
            waiting = [made.plan()]
        assert made.all() == model


def test_runs_stay_few_and_each_name_is_written_again_only_so_often():
    made, written = Keyed(), 0
    for n in range(20_000):
        made.recent[f"{n:06d}"] = n
        if keyed.flush_due(made.recent):
            made.land(*made.plan())
            written += made.runs[0].count
    assert len(made.recent) < keyed.RECENT_LIMIT
    assert len(made.runs) <= 7
    assert written < 20_000 * 10
    assert len(made.all()) == 20_000


def test_names_that_are_gone_are_forgotten_with_the_last_run():
    made = Keyed()
    made.recent = {"a": 1}
    made.land(*made.plan())
    made.recent = keyed.without(made.recent, made.runs, "a")
    assert made.recent == {"a": None}

    made.land(*made.plan())

    assert (made.recent, made.runs) == ({}, ())
