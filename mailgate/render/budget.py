"""How much work one rendering may make, and the operations that would make too much.

Owns the count of steps, the ceiling on text and on processor time, and the safe
forms of what templates can do with values. A step is a loop pass, a call or a
filter, and every 256 characters that one of them reads or makes; ordinary mails
take some hundred. A Python operation cannot be interrupted, so each is refused
*before* it begins when its result would be large; the clock (the thread's own
processor time, so that a busy machine condemns nobody) is looked at between them
and only by templates that are far beyond the ordinary.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, cast

from jinja2 import Undefined, pass_eval_context
from jinja2.filters import do_join, make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.runtime import markup_join, str_join

from mailgate.render.errors import RenderError

#: Steps in one rendering.
WORK = 50_000
#: Characters that one macro call, one ``~``, one filter or one ``include`` may make.
PIECE = 2 * 2**20
#: Seconds of processor time for one rendering.
SECONDS = 2.0
#: Bits of a number; larger ones make arithmetic slow, and no mail shows them.
BITS = 256

_LOOK = 64
#: What looks at each item: of a text that would be each letter, and so is an error.
_OF_ITEMS = frozenset({"map", "rejectattr", "selectattr", "sort", "unique"})
#: What holds items that are looked at.
_SEVERAL: tuple[type[Any], ...] = (list, dict, type({}.keys()), type({}.values()), type({}.items()))
#: What costs the same whatever it is given.
_FREE = frozenset({"count", "length", "first", "last", "default", "d"})


class _Left(threading.local):
    """What the rendering on this thread may still spend."""

    work: int = WORK
    look_at: int = WORK - _LOOK
    until: float | None = None


_left = _Left()


def begin() -> None:
    """A rendering starts on this thread."""
    _left.work = WORK
    _left.look_at = WORK - _LOOK
    _left.until = None


@contextmanager
def apart() -> Iterator[None]:
    """What happens inside has a budget of its own."""
    kept = _left.work, _left.look_at, _left.until
    begin()
    try:
        yield
    finally:
        _left.work, _left.look_at, _left.until = kept


def spend(amount: int) -> None:
    """Count ``amount`` steps. Raises ``RenderError`` (``budget``)."""
    left = _left.work = _left.work - amount
    if left < _left.look_at:
        _look(left)


def _look(left: int) -> None:
    if left < 0:
        raise RenderError("budget", f"the template makes more than {WORK} loop passes and calls")
    now = time.thread_time()
    if _left.until is None:
        _left.until = now + SECONDS
    elif now > _left.until:
        raise RenderError("budget", f"the template computes for more than {SECONDS:g} seconds")
    _left.look_at = left - _LOOK


def _too_large() -> RenderError:
    return RenderError("budget", f"a template makes a piece of more than {PIECE} characters")


def concat(chunks: Iterable[str]) -> str:
    """What a macro or a block has made, as one text; in place of Jinja's own."""
    pieces = list(chunks)
    size = sum(map(len, pieces))
    if size > 255:
        if size > PIECE:
            raise _too_large()
        spend(size >> 8)
    return "".join(pieces)


def joined(chunks: Iterable[str], most: int) -> str:
    """A part as a whole. Raises ``RenderError`` (``too_large``) beyond ``most`` characters."""
    pieces = list(chunks)
    if sum(map(len, pieces)) > most:
        raise RenderError("too_large", f"a part of more than {most} characters")
    return "".join(pieces)


def loop(value: Any) -> Any:
    """Counts what a ``for`` goes through."""
    if isinstance(value, Undefined):
        iter(value)  # raises and names the variable
    if isinstance(value, str):
        raise RenderError("template_broken", "a template loops over text")
    if isinstance(value, Sized):
        spend(len(value))
        return value
    return _counted(value)


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        spend(1)
        yield value


def searched(value: Any) -> Any:
    """Counts what ``in`` looks through."""
    if isinstance(value, Sized):
        spend(len(value) >> 6)
    return value


def tilde_html(values: list[Any]) -> str:
    """``a ~ b`` in HTML."""
    _weigh(values, "'~'")
    return markup_join(values)


def tilde_text(values: list[Any]) -> str:
    """``a ~ b`` in subjects and text parts."""
    _weigh(values, "'~'")
    return str_join(values)


def _weigh(values: list[Any], what: str, between: int = 0) -> None:
    size = between * len(values)
    for value in values:
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, list | dict | tuple):
            raise RenderError("template_broken", f"{what} is for texts and numbers, not for lists")
    if size > PIECE:
        raise _too_large()
    spend(1 + (size >> 8))


@pass_eval_context
def join(
    context: EvalContext, value: Iterable[Any], d: Any = "", attribute: str | None = None
) -> str:
    """Jinja's ``join``, weighed before it is done."""
    values = list(loop(value))
    if attribute is not None:
        values = list(map(make_attrgetter(context.environment, attribute), values))
    _weigh(values, "|join", len(d) if isinstance(d, str) else 0)
    return cast("str", do_join(context, values, d))


def number(value: Any) -> Any:
    """A number that arithmetic may go on with."""
    if isinstance(value, int) and value.bit_length() > BITS:
        raise RenderError("budget", f"a template computes with numbers of more than {BITS} bits")
    return value


def _steps(values: Iterable[Any]) -> int:
    """What a call costs for what it is given."""
    steps = 1
    for value in values:
        if isinstance(value, str):
            if len(value) > PIECE:
                raise _too_large()
            steps += len(value) >> 8
        elif isinstance(value, _SEVERAL):
            steps += len(value)
    return steps


def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that counts what it is given and what it makes."""
    if name in _FREE:
        return function
    # Functions that want Jinja's context get it first.
    at = 1 if hasattr(function, "jinja_pass_arg") else 0

    alone = at + 1
    of_items = name in _OF_ITEMS

    def counted(*args: Any, **kwargs: Any) -> Any:
        if of_items and isinstance(args[at] if args[at:] else None, str):
            raise RenderError("template_broken", f"|{name} goes through a list, and this is text")
        if len(args) == alone and isinstance(args[at], str) and len(args[at]) < 256:
            # One short text, as nearly always.
            spend(1)
        else:
            spend(_steps(args[at:]))
        result = function(*args, **kwargs)
        if isinstance(result, str):
            if len(result) > 255:
                spend(len(result) >> 8)
        elif isinstance(result, list):
            spend(len(result))
        elif isinstance(result, int):
            return number(result)
        return result

    # Not ``wraps`` alone: builtins have no ``__dict__``, which is where Jinja looks.
    functools.update_wrapper(counted, function, updated=())
    if at:
        counted.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    return counted
