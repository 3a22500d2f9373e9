"""The route of verification: its answer is a line of JSON for every event, as it happens."""

from memoturnd.errors import InvalidRequestError
from memoturnd.http.addresses import database_of
from memoturnd.http.call import Call
from memoturnd.http.describe import LINES as EVENT_LINES
from memoturnd.http.describe import Value, described
from memoturnd.http.envelope import LINES, Answer

SEED_CHARACTERS = 64


@described(
    gives={200: EVENT_LINES},
    values=(
        Value("deep", bool, "Read every object whole."),
        Value("seed", str, "Which samples are looked at, where not all are."),
    ),
)
async def verify(call: Call) -> Answer:
    """Verify a database, or the branch that `{db}` names, and answer with events.

    Raises DatabaseNotFoundError, BranchNotFoundError, InvalidRequestError, OverloadedError.
    """
    name, branch = database_of(call)
    seed = call.text("seed")
    if seed is not None and not (0 < len(seed) <= SEED_CHARACTERS and seed.isascii() and seed.isalnum()):
        raise InvalidRequestError(f"`seed` takes 1 to {SEED_CHARACTERS} letters and digits")
    lines = await call.node.verifications.begin(
        name, branch if "@" in call.params["db"] else None, deep=call.flag("deep"), seed=seed
    )
    return Answer(200, headers=[LINES], stream=lines)
