"""How large a mail is, and its parts.

Owns the numbers of the size tab. Pure.
"""

from __future__ import annotations

from email import policy
from email.parser import BytesParser
from typing import Any

#: Gmail cuts the HTML of a mail off after 102 KB and shows a link to the rest.
CLIP = 102 * 1024


def measure(content: bytes) -> dict[str, Any]:
    """Bytes of the whole mail on the wire, of its HTML and text, and of each part."""
    parts: list[dict[str, Any]] = []
    sizes = {"text/html": 0, "text/plain": 0}
    message = BytesParser(policy=policy.compat32).parsebytes(content)
    for part in message.walk():
        if part.is_multipart():
            continue
        raw = part.get_payload(decode=True)
        size = len(raw) if isinstance(raw, bytes) else 0
        wire = part.get_payload()
        kind = part.get_content_type()
        if kind in sizes and part.get_filename() is None:
            sizes[kind] += size
        parts.append(
            {
                "type": kind,
                "name": part.get_filename(),
                "encoding": str(part.get("Content-Transfer-Encoding", "7bit")),
                "bytes": size,
                "wire": len(wire) if isinstance(wire, str) else 0,
            }
        )
    return {
        "mail": len(content),
        "html": sizes["text/html"],
        "text": sizes["text/plain"],
        "clip": CLIP,
        "parts": parts,
    }
