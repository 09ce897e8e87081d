"""A picture of what a command shows on a terminal: the SVGs of commands beside this file.

    ./dev run python docs/pictures/terminal.py docs/pictures/status.svg mailgate status

The command runs on a terminal of its own, 130 columns wide, and its last screen is drawn
with its colours. The pictures here were taken beside a `mailgate up` that was under load.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 130, 50


def shown(command: list[str]) -> str:
    """What the command writes to its terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execvp(command[0], command)  # noqa: S606 - whoever draws says what
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    said = b""
    try:
        while more := os.read(terminal, 65536):
            said += more
    except OSError:  # Linux: the other end is closed
        pass
    os.waitpid(child, 0)
    return said.decode().replace("\r\n", "\n").rstrip()


def drawn(text: str, title: str) -> str:
    """An SVG that fetches no font from anywhere."""
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        # One line more: the last one is cut off at its descenders.
        console.print(Text.from_ansi(text), end="\n\n")
        svg = console.export_svg(title=title)
    return re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    out, *words = sys.argv[1:]
    Path(out).write_text(drawn(shown(words), shlex.join(words)), "utf-8")
