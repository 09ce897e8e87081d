"""The contract as JSON Schema, for validators and generators that are not ours.

Owns what the model alone cannot say in a schema: the other spellings of fields
and which fields exclude each other. Published as ``docs/contract.schema.json``.
"""

from __future__ import annotations

import json
from typing import Any

from mailgate.contract.rules import ALIASES
from mailgate.contract.submission import Submission

SCHEMA_ID = "urn:mailgate:contract:1"


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one message as a producer writes it.

    What it accepts mailgate may still refuse (addresses, header names, sizes in
    bytes, order of dates); what mailgate accepts it accepts.
    """
    schema = Submission.model_json_schema(by_alias=True, mode="validation")
    for name in ("Recipient", "Submission"):
        top = name == "Submission"
        holder = schema if top else schema["$defs"][name]
        place = "#" if top else f"#/$defs/{name}"
        properties = holder["properties"]
        rules = []
        for alias, field in ALIASES.items():
            if field in properties:
                properties[alias] = {"$ref": f"{place}/properties/{field}"}
        for field in dict.fromkeys(ALIASES.values()):
            if field in properties:
                names = [field, *(a for a, f in ALIASES.items() if f == field)]
                rules += [
                    {"not": {"required": [one, other]}}
                    for i, one in enumerate(names)
                    for other in names[i + 1 :]
                ]
        holder["allOf"] = rules
    schema["anyOf"] = [{"required": ["to"]}, {"required": ["recipients"]}]
    title = {"title": "A message for mailgate", "$id": SCHEMA_ID}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **title, **schema} | title


def as_text() -> str:
    """The published file's text."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
