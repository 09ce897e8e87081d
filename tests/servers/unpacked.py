"""Mail servers whose files ./dev has unpacked into .venv, run as whoever runs the tests.

Owns where their files are and the environment that lets them start without root and
without users of their own: libnss_wrapper shows them the accounts that they look for,
libuid_wrapper lets them believe that they change to these. So nothing of the machine is
touched, and root and a developer run the same thing. Knows no particular server.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.process import ServerFailed, unprivileged_user

_VENV = Path(sys.executable).parent.parent


def tree(name: str, directory: Path) -> Path:
    """Where the files of a server are; raises ``ServerFailed`` when there are none.

    Started by root it runs as ``nobody``, who may not be let into this checkout (below
    /root): then it is a copy beside ``directory``.
    """
    source = _VENV / name
    if not (source / ".packages").exists():
        raise ServerFailed(f"{source} is not there: ./dev test unpacks it")
    if os.geteuid() != 0:
        return source
    copy = directory.parent / f"{name}-files"
    if not copy.exists():
        shutil.copytree(source, copy, symlinks=True)
    return copy


def _libraries(root: Path) -> list[Path]:
    return [
        path
        for pattern in ("usr/lib/postfix", "usr/lib/*-linux-*", "lib/*-linux-*")
        for path in sorted(root.glob(pattern))
    ]


def account() -> tuple[int, int]:
    """Who the server really runs as: ``nobody`` when we are root, else we ourselves."""
    return unprivileged_user() or (os.geteuid(), os.getegid())


def disguise(
    root: Path, directory: Path, users: Sequence[str], *, as_root: bool = False
) -> dict[str, str]:
    """The environment of a server that wants accounts with the names ``users``.

    The account files are written into ``directory``. With ``as_root`` the server
    believes that it was started by root, and that it may become any of ``users``;
    else all of them are who it really is.
    """
    uid, gid = account()
    passwd, group = directory / "passwd", directory / "group"
    ids = [(uid, gid) if not as_root else (61000 + n, 61000 + n) for n, _ in enumerate(users)]
    rows = [("root", 0, 0), *((user, *both) for user, both in zip(users, ids, strict=True))]
    passwd.write_text("".join(f"{n}:x:{u}:{g}:{n}:/:/bin/false\n" for n, u, g in rows))
    group.write_text("".join(f"{n}:x:{g}:\n" for n, _, g in rows))
    made = tree("wrappers", directory)
    wrappers = {path.name: path for path in made.glob("usr/lib/*/lib*_wrapper.so")}
    names = ["libnss_wrapper.so", *(["libuid_wrapper.so"] if as_root else [])]
    return {
        "PATH": "/usr/bin:/bin",
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, _libraries(root))),
        "LD_PRELOAD": " ".join(str(wrappers[name]) for name in names),
        "NSS_WRAPPER_PASSWD": str(passwd),
        "NSS_WRAPPER_GROUP": str(group),
        **({"UID_WRAPPER": "1", "UID_WRAPPER_ROOT": "1"} if as_root else {}),
    }


def disguised(env: Mapping[str, str], *command: str | Path) -> list[str | Path]:
    """A command line that puts the disguise on last, so that its user is changed really."""
    return ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in env.items()), *command]


def hand_over(directory: Path) -> None:
    """Give a directory with all in it to who the server runs as."""
    uid, gid = account()
    if uid != os.geteuid():
        for path in (directory, *directory.rglob("*")):
            os.chown(path, uid, gid)
