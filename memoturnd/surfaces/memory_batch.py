"""Batches of memories to ingest: all of them or none, or with `on_error: "skip"` those that can be stored."""

from dataclasses import dataclass, field
from typing import Any, Final

from memoturnd.errors import InvalidRequestError
from memoturnd.surfaces import fields, memories
from memoturnd.surfaces.memories import Item

ON_ERROR: Final = ("fail", "skip")


@dataclass(frozen=True, slots=True)
class Batch:
    """Memories to ingest. Where those that cannot be stored are skipped, `places` are the places of `items` in the
    request, and `refused` says of the others what is wrong with each.
    """

    items: list[Item]
    places: tuple[int, ...] | None = None
    refused: dict[int, str] = field(default_factory=dict)

    def results(self, stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a result for each memory of the request, from those of `items`."""
        if self.places is None:
            return stored
        of_place = dict(zip(self.places, stored, strict=True))
        of_place |= {place: memories.refused(error) for place, error in self.refused.items()}
        return [of_place[place] for place in sorted(of_place)]


def parse_batch(payload: Any) -> Batch:
    """Return the batch of `{memories: [...], on_error?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    on_error = fields.optional_text(body.get("on_error"), "on_error")
    if on_error not in {None, *ON_ERROR}:
        raise InvalidRequestError(f"on_error is {str(on_error)[:32]!a}: it takes {' or '.join(ON_ERROR)}")
    if on_error != "skip":
        return Batch(memories.parse_items(body))
    items: dict[int, Item] = {}
    refused: dict[int, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for place, value in enumerate(memories.batch_of(body)):
        try:
            item = memories.parse_item(value, f"memories[{place}]")
            memories.check_size(sizes, item, place)
        except InvalidRequestError as error:
            refused[place] = str(error)
        else:
            items[place] = item
    return Batch(list(items.values()), tuple(items), refused)
