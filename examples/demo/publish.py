"""Publishes some messages as any program would: JSON and a Redis client, nothing of mailgate.

Usage: python publish.py [REDIS-URL]       (default: redis://127.0.0.1:6379/0)

Messages go onto the stream ``mailgate:inbox``, one JSON document in the field
``message``; one goes onto the list ``mailgate:inbox:list``, for clients that know
only lists. The same documents work on RabbitMQ, in the queue ``mailgate.inbox``.
"""

import json
import sys

import redis

SITE = "https://harbour.example"
HARBOUR = {"name": "Harbour", "url": SITE, "address": "Pier 4, Old Harbour"}

MESSAGES = [
    {
        "id": "demo-welcome",
        "producer": "accounts",
        "from": {"email": "hello@harbour.example", "name": "Harbour"},
        "to": [{"email": "ann@example.com", "name": "Ann Bell"}],
        "template": "welcome",
        "data": {
            "name": "Ann",
            "url": f"{SITE}/start",
            "steps": [
                {"title": "Name your boat", "text": "Length and draught help us to find a berth."},
                {"title": "Choose a berth", "text": "The map shows what is free, and from when."},
                {"title": "Invite your crew"},
            ],
            "support_email": "help@harbour.example",
            "product": HARBOUR,
        },
    },
    {
        "id": "demo-activation",
        "producer": "accounts",
        "from": {"email": "hello@harbour.example", "name": "Harbour"},
        "to": ["ben@example.com"],
        "template": "account_activation",
        "stream": "codes",
        "data": {
            "name": "Ben",
            "url": f"{SITE}/activate?token=7f3c5c0e9b7d4f21",
            "code": "482 913",
            "expires_minutes": 1440,
            "product": HARBOUR,
        },
    },
    {
        "id": "demo-reset",
        "producer": "accounts",
        "from": {"email": "security@harbour.example", "name": "Harbour security"},
        "to": ["ann@example.com"],
        "template": "password_reset",
        "stream": "codes",
        "sensitive": True,
        "data": {
            "name": "Ann",
            "url": f"{SITE}/reset?token=91ac4e7720f1d6b8",
            "expires_minutes": 30,
            "requested_at": "20 November, 09:41 UTC",
            "device": "Firefox on Linux",
            "product": HARBOUR,
        },
    },
    {
        "id": "demo-reminder",
        "producer": "calendar",
        "from": {"email": "calendar@harbour.example", "name": "Harbour calendar"},
        "to": ["ben@example.com"],
        "template": "reminder",
        "data": {
            "name": "Ben",
            "title": "Mooring inspection",
            "when": "Thursday, 26 November, 10:00 to 10:30",
            "where": "Pier 4, berth 12",
            "details": "Please have the lines ready to be looked at.",
            "button": {"text": "Change the time", "url": f"{SITE}/appointments/112"},
            "product": HARBOUR,
        },
    },
    # One private message for each recipient, each with words of its own.
    {
        "id": "demo-digest",
        "producer": "blog",
        "from": {"email": "digest@harbour.example", "name": "Harbour weekly"},
        "template": "weekly_digest",
        "stream": "bulk",
        "recipients": [
            {"email": "ann@example.com", "name": "Ann Bell", "data": {"name": "Ann"}},
            {"email": "zoe@bücher.example", "name": "Zoë", "data": {"name": "Zoë"}},
        ],
        "data": {
            "period": "16 to 22 November",
            "posts": [
                {
                    "title": "How tides are predicted",
                    "url": f"{SITE}/posts/tides",
                    "summary": "A brass machine, forty wheels, and a curve for each day.",
                    "author": "Mira Holm",
                    "date": "16 November",
                    "topic": "Science",
                },
                {
                    "title": "A rope for every purpose",
                    "url": f"{SITE}/posts/ropes",
                    "summary": "Which one stretches, which one floats, and which one to avoid.",
                    "author": "Jon Vik",
                    "date": "18 November",
                    "topic": "Craft",
                },
                {
                    "title": "What our readers asked in October",
                    "url": f"{SITE}/posts/october",
                    "date": "20 November",
                },
            ],
            "more_url": f"{SITE}/posts",
            "product": HARBOUR,
        },
    },
    # A form on a site: to its administrators, answers go to whoever wrote.
    {
        "id": "demo-feedback",
        "producer": "website",
        "from": {"email": "website@harbour.example", "name": "Harbour website"},
        "to": ["office@harbour.example", "master@harbour.example"],
        "reply_to": ["carla@example.org"],
        "template": "contact_feedback",
        "data": {
            "name": "Carla Núñez",
            "email": "carla@example.org",
            "subject_line": "Opening hours",
            "message": "Are you open on Sundays?\n\nThe page says two different things.",
            "page": f"{SITE}/contact",
            "product": HARBOUR,
        },
    },
    # No template: the words come ready.
    {
        "id": "demo-plain",
        "producer": "backup",
        "from": "backup@harbour.example",
        "to": ["office@harbour.example"],
        "subject": "Backup finished",
        "text": "The nightly backup took 4 minutes and 12 seconds.\n",
    },
]

# The smallest that is useful: whom, which template, what to say.
SMALLEST = {
    "to": "office@harbour.example",
    "template": "notice",
    "data": {
        "title": "The café closes at four today",
        "body": "A pipe has burst. We open again tomorrow at eight.",
        "button": {"text": "Opening hours", "url": f"{SITE}/cafe"},
    },
}


def main(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        for message in MESSAGES:
            client.xadd("mailgate:inbox", {"message": json.dumps(message, ensure_ascii=False)})
        client.lpush("mailgate:inbox:list", json.dumps(SMALLEST))
    print(f"published {len(MESSAGES) + 1} messages to {url}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379/0")
