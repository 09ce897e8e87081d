#!/opt/mailgate/bin/python -IS
"""Is the process of this container well? ``probe URL``: exit 0 when the page answers 200.

For HEALTHCHECK: the image has no curl. Standard library alone, so that it starts in
some 30 ms. Never follows a redirect, never uses a proxy.
"""

import http.client
import sys
from urllib.parse import urlsplit

#: Seconds; below the timeout of HEALTHCHECK, so that the page's own words are shown.
_PATIENCE = 4.0


def main(url: str) -> int:
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE)
    try:
        link.request("GET", parts.path or "/")
        reply = link.getresponse()
        text = reply.read(2000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        print(f"{url}: {error}")
        return 1
    print(text)
    return 0 if reply.status == 200 else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: probe URL", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[1]))
