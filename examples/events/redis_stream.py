"""Read events from Redis: python redis_stream.py redis://localhost:6379/0 shop

Remembers where it stopped in a file, so that it goes on there when it starts again.
"""

import json
import sys
from pathlib import Path

import redis

url, producer = sys.argv[1:]
stream = f"mailgate:events:{producer}"
bookmark = Path(f"{producer}.position")
position = bookmark.read_text() if bookmark.exists() else "0"
with redis.Redis.from_url(url, decode_responses=True) as client:
    while True:
        for _, entries in client.xread({stream: position}, count=100, block=5000) or []:
            for entry, fields in entries:
                event = json.loads(fields["event"])
                who = event.get("recipient", {}).get("email", "")
                print(event["event"], event["message"]["identity"], who, flush=True)
                position = entry
            written = bookmark.with_suffix(".new")
            written.write_text(position)
            written.replace(bookmark)  # whole, or not at all
