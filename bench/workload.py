"""The one workload that every side gets: 1 KB of JSON in, a 10 to 13 kB mail out.

Owns the messages. Never knows who delivers them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE = "orders"
SENDER = "orders@shop.example"
#: Destination domains, as one mailing has them.
DOMAINS = 20


def message(number: int, run: str) -> dict[str, Any]:
    """Message ``number`` of a run, no two alike; its subject ends in the number."""
    items = [
        {
            "title": title,
            "detail": detail,
            "count": 1 + (number + i) % 4,
            "price": f"{(number * 7 + i * 1300) % 9000 / 100 + 5:.2f}",
            "url": f"https://shop.example/p/{1000 + (number * 5 + i) % 700}",
        }
        for i, (title, detail) in enumerate(
            (
                ("Brass lantern", "Weatherproof, with a hook and a spare glass."),
                ("Coil of rope", "Forty metres, hemp, twelve millimetres thick."),
                ("Oilskin coat", "Yellow, size M & long; dries overnight."),
                ("Signal flags", "The international set, sewn and not printed."),
                ("Café mug", "Enamel, three decilitres, made to be dropped."),
            )
        )
    ]
    order = f"HS-{run}-{number}"
    return {
        "id": f"{run}-{number}",
        "to": [f"customer{number}@d{number % DOMAINS}.example"],
        "template": TEMPLATE,
        "data": {
            "order": order,
            "name": f"Customer {number}",
            "items": items,
            "total": f"{number % 900 + 40:.2f}",
            "url": f"https://shop.example/orders/{order}",
        },
    }


def bodies(count: int, run: str) -> list[bytes]:
    """``count`` messages as a producer publishes them."""
    return [json.dumps(message(n, run), ensure_ascii=False).encode() for n in range(count)]
