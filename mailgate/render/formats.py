"""Amounts, dates and numbers as the reader's language writes them.

Owns babel. Each filter here takes plain JSON and gives plain text, which is
escaped and kept out of the skeleton like any other value. The language is the
template's; inside a macro, which does not see it, an author names it. Never
reads the clock and never guesses a time zone: a time is shown in the zone that
the author or the data names, else with the offset that it came with.
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError, dates, numbers, units
from jinja2 import pass_context
from jinja2.runtime import Context

from mailgate.render.errors import RenderError

#: As the schema's pattern for amounts should be: no exponent, no grouping.
_AMOUNT = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?")
#: RFC 3339, section 5.6; the date alone is its full-date.
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_DATE_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}):(\d{2})(?:\.\d+)?([Zz]|[+-]\d{2}:\d{2})"
)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(?:/[A-Za-z0-9_+-]{1,30}){0,2}")
_STYLES = ("short", "medium", "long", "full")
_SIZES = ("byte", "kilobyte", "megabyte", "gigabyte", "terabyte")
_KEPT = 4096

Style = Literal["short", "medium", "long", "full"]


@lru_cache(1)
def _currencies() -> frozenset[str]:
    """Not at import: who formats nothing does without babel's global data (2 MiB)."""
    return frozenset(numbers.list_currencies())


@pass_context
def money(context: Context, value: Any, currency: Any, locale: str | None = None) -> str:
    """``"1234.5"|money("EUR")`` is ``€1,234.50`` in English and ``1.234,50 €`` in German.

    ``value`` is text (``"12.50"``: exact, and never rounded) or a number (rounded
    to what the currency has). ``currency`` is an ISO 4217 code.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RenderError("data_invalid", "|money was given neither text nor a number")
    if not isinstance(currency, str) or currency not in _currencies():
        raise RenderError("data_invalid", "|money was given no currency such as EUR")
    if isinstance(value, float):
        value = f"{value:.{numbers.get_currency_precision(currency)}f}"
    text = str(value)
    if not _AMOUNT.fullmatch(text):
        raise RenderError("data_invalid", "|money was given no amount such as 12.50")
    return _money(text, currency, _language(context, locale))


@lru_cache(_KEPT)
def _money(amount: str, currency: str, locale: Locale) -> str:
    # Not rounded: a price of 0.0025 a call is one, whatever cents there are.
    return numbers.format_currency(
        Decimal(amount), currency, locale=locale, decimal_quantization=False
    )


@pass_context
def date(
    context: Context,
    value: Any,
    style: str = "long",
    zone: str | None = None,
    locale: str | None = None,
) -> str:
    """``"2026-05-14"|date`` is ``May 14, 2026``. ``style``: short, medium, long or full.

    Of a date with a time, the date that it is in ``zone``.
    """
    if isinstance(value, str) and _DATE.fullmatch(value):
        day = _read_date(value)
    else:
        day = _moment(value, zone).date()
    return _date(day, _style(style), _language(context, locale))


@pass_context
def time(context: Context, value: Any, zone: str | None = None, locale: str | None = None) -> str:
    """``"2026-05-14T15:30:00Z"|time("Europe/Oslo")`` is ``5:30 PM``: without the zone's name."""
    return _time(_moment(value, zone), _language(context, locale))


@pass_context
def datetime(
    context: Context,
    value: Any,
    style: str = "long",
    zone: str | None = None,
    locale: str | None = None,
) -> str:
    """Date, time and the zone's name: ``May 14, 2026, 3:30 PM UTC``."""
    moment, language = _moment(value, zone), _language(context, locale)
    day = _date(moment.date(), _style(style), language)
    # As the language puts the two together; the zone's name comes last in all of them.
    form = str(language.datetime_formats["short"])
    both = form.replace("{1}", day).replace("{0}", _time(moment, language)).replace("'", "")
    return f"{both} {_zone_name(moment, language)}"


@pass_context
def number(
    context: Context,
    value: Any,
    decimals: int = 0,
    group: str | None = None,
    point: str | None = None,
    locale: str | None = None,
) -> str:
    """``1234567.5|number(2)`` is ``1,234,567.50``, with the separators of the language.

    An author who wants others names both: ``|number(2, ".", ",")``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RenderError("data_invalid", "|number was given something else than a number")
    if not 0 <= int(decimals) <= 12:
        raise RenderError("template_broken", "|number takes 0 to 12 decimals")
    if group is None or point is None:
        language = _language(context, locale)
        group = numbers.get_group_symbol(language) if group is None else group
        point = numbers.get_decimal_symbol(language) if point is None else point
    text = f"{value:,.{int(decimals)}f}"
    return text.translate({ord(","): str(group), ord("."): str(point)})


@pass_context
def filesize(context: Context, value: Any, locale: str | None = None) -> str:
    """Bytes for people: ``4200000|filesize`` is ``4.2 MB`` (units of 1000, as disks are sold)."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**17:
        raise RenderError("data_invalid", "|filesize was given no number of bytes")
    step, size = 0, Decimal(value)
    while size >= 1000 and step < len(_SIZES) - 1:
        step, size = step + 1, size / 1000
    rounded = round(size, 1 if size < 10 and step else 0)
    text = units.format_unit(
        rounded, f"digital-{_SIZES[step]}", length="short", locale=_language(context, locale)
    )
    return text.replace(" ", "\u00a0")


def _language(context: Context, locale: str | None) -> Locale:
    name = context.get("locale") if locale is None else locale
    if not isinstance(name, str):
        raise RenderError(
            "template_broken", "macros do not see the language: give the filter locale=..."
        )
    found = _locale(name)
    if found is None:
        raise RenderError("template_broken", f"there are no rules for the language {name}")
    return found


@lru_cache(256)
def _locale(name: str) -> Locale | None:
    for part in (name, name.partition("-")[0]):
        try:
            return Locale.parse(part, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
    return None


def _style(style: Any) -> Style:
    if style not in _STYLES:
        raise RenderError("template_broken", f"a date is {', '.join(_STYLES)}")
    return cast("Style", style)


def _read_date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise RenderError("data_invalid", "a date that no calendar has") from None


def _moment(value: Any, zone: Any) -> dt.datetime:
    found = _DATE_TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise RenderError(
            "data_invalid", "a time is written as RFC 3339 has it: 2026-05-14T15:30:00Z"
        )
    day, hours, seconds, offset = found.groups()
    # A leap second is shown as the second before it; fractions are not shown at all.
    seconds = "59" if seconds == "60" else seconds
    try:
        moment = dt.datetime.fromisoformat(f"{day}T{hours}:{seconds}{offset.upper()}")
        return moment if zone is None else moment.astimezone(_zone(zone))
    except (ValueError, OverflowError):
        raise RenderError("data_invalid", "a time that no calendar has") from None


def _zone(name: Any) -> ZoneInfo:
    found = _known_zone(name) if isinstance(name, str) and _ZONE.fullmatch(name) else None
    if found is None:
        raise RenderError("data_invalid", "a time zone is named as in Europe/Oslo")
    return found


@lru_cache(_KEPT)
def _known_zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@lru_cache(_KEPT)
def _date(day: dt.date, style: Style, locale: Locale) -> str:
    return dates.format_date(day, style, locale=locale)


def _time(moment: dt.datetime, locale: Locale) -> str:
    return _clock(moment.time().replace(second=0), locale)


@lru_cache(_KEPT)
def _clock(clock: dt.time, locale: Locale) -> str:
    return dates.format_time(clock, "short", locale=locale)


def _zone_name(moment: dt.datetime, locale: Locale) -> str:
    """``UTC``, ``CEST`` where the language has such a name, else ``UTC+02:00``."""
    offset = moment.utcoffset()
    assert offset is not None
    if not offset:
        return "UTC"
    if isinstance(moment.tzinfo, ZoneInfo):
        name = dates.get_timezone_name(moment, "short", locale=locale)
        if not name.startswith(("+", "-")):
            return name
    minutes = int(offset.total_seconds()) // 60
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
