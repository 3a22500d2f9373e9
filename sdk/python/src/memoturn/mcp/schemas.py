"""JSON schemas that cost a model few tokens: what pydantic writes, without what says nothing."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

STRING: Final[dict[str, Any]] = {"type": "string"}
INTEGER: Final[dict[str, Any]] = {"type": "integer"}
BOOLEAN: Final[dict[str, Any]] = {"type": "boolean"}
OBJECT: Final[dict[str, Any]] = {"type": "object"}


_UNSAID: Final = frozenset(
    {"title", "$defs", "additionalProperties", "minLength", "maxLength", "minItems", "maxItems"}
)


class Arguments(BaseModel):
    """What a tool takes. An argument that is not known is refused, so that a misspelt one does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def input_schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a tool's arguments."""
    schema = arguments.model_json_schema()
    return dict(_compact(schema, schema.get("$defs", {})))


def array(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an array of `items`."""
    return {"type": "array", "items": dict(items)}


def output_schema(**properties: Any) -> dict[str, Any]:
    """Return the schema of an answer, which always has the txid. Other properties may be there too: answers grow."""
    return {"type": "object", "properties": {**properties, "txid": INTEGER}, "required": ["txid"]}


def _compact(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_compact(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if reference := schema.get("$ref"):
        schema = {
            **definitions[reference.rpartition("/")[2]],
            **{k: v for k, v in schema.items() if k != "$ref"},
        }
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        schema = {**choices[0], **{k: v for k, v in schema.items() if k != "anyOf"}}
        return _compact(schema, definitions)
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            out[key] = {name: _compact(part, definitions) for name, part in value.items()}
        elif (
            key in _UNSAID
            or (key == "default" and value is None)
            or (key == "description" and "properties" in schema)
        ):
            continue
        else:
            out[key] = _compact(value, definitions)
    return out
