"""Waits until the mails of ``publish.py`` are in the local inbox, and lists them.

Usage: python look.py INBOX-URL [SECONDS]       exit 1 when they do not come in time
"""

import json
import sys
import time
import urllib.request

from publish import MESSAGES, SMALLEST

WANTED = sum(len(m.get("recipients") or m["to"]) for m in MESSAGES) + len([SMALLEST["to"]])


def mails(url: str) -> list[dict]:
    with urllib.request.urlopen(f"{url.rstrip('/')}/api/mails?limit=1000", timeout=10) as reply:
        return json.load(reply)["items"]


def main(url: str, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while len(found := mails(url)) < WANTED and time.monotonic() < deadline:
        time.sleep(0.2)
    print(f"{len(found)} of {WANTED} mails delivered to the inbox at {url}\n")
    for mail in reversed(found):
        print(f"  {', '.join(mail['rcpt_to']):28}  {mail['subject']}")
    return 0 if len(found) >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60))
