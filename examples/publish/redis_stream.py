"""Publish on a Redis stream: python redis_stream.py redis://localhost:6379/0 < message.json"""

import json
import sys

import redis

message = json.load(sys.stdin)
with redis.Redis.from_url(sys.argv[1]) as client:
    entry = client.xadd("mailgate:inbox", {"message": json.dumps(message)})
print("accepted by Redis as", entry.decode())
