"""What nodes ask of a branch's owner: to ship, to give the branch back, to do a chore. Paths and bodies of the internal routes."""

from typing import Annotated, Final, Literal

import msgspec

from memoturnd.core.bounds import INTEGER_MAX

RELEASE: Final = "/internal/branches/{uuid}/{branch_id}/release"
SHIP: Final = "/internal/branches/{uuid}/{branch_id}/ship"
CHORE: Final = "/internal/branches/{uuid}/{branch_id}/chore"

Count = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]


class Durable(msgspec.Struct, frozen=True):
    """That all the owner has committed, up to `durable_txid`, is in object storage."""

    durable_txid: Count


class Asked(msgspec.Struct, frozen=True):
    """The chore of the branch that its owner is to do."""

    kind: Literal["retention", "sweep", "reembed"]


class Done(msgspec.Struct, frozen=True):
    """That the chore was done; `due_at` (unix ms) is when it is due again, null where it is not."""

    due_at: Count | None
