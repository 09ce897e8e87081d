"""The sections of recurring mail: schedules, and the sources that they read.

Owns their shape and every rule between their keys. Never opens a source.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from mailgate.config.crontab import Crontab, parse_crontab
from mailgate.config.terms import Duration, Name, Section, refuse

if TYPE_CHECKING:
    from mailgate.config.shape import Config

#: What happens with fires that were missed.
CatchUp = Literal["latest", "all", "none"]

#: A chore's task has half a minute: what a source takes must leave room for the rest.
_LONGEST = 20.0


def _zone(value: Any) -> ZoneInfo:
    if isinstance(value, ZoneInfo):
        return value
    try:
        return ZoneInfo(str(value))
    except (ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"{value!r} is no time zone") from None
    except KeyError:
        raise ValueError(
            f"{value!r} is no time zone: write one such as 'Europe/Paris', or 'UTC'"
        ) from None


CronText = Annotated[Crontab, BeforeValidator(parse_crontab), PlainSerializer(str)]
Zone = Annotated[ZoneInfo, BeforeValidator(_zone), PlainSerializer(lambda zone: zone.key)]


class Source(Section):
    """A place that schedules may read: a database, or a service that answers with JSON."""

    url: str = Field(
        description="sqlite:///path, postgresql+psycopg://…, or the https:// (http://) address "
        "below which it may ask."
    )
    token_file: Path | None = Field(
        None, description="A file with a token that goes along as 'Authorization: Bearer'."
    )
    private: bool = Field(
        False,
        description="Whether the host's name may lead to an address of this machine or of a "
        "private network.",
    )
    timeout: Duration = Field(
        10.0, gt=0, le=_LONGEST, description="Longest time that one reading takes."
    )
    max_bytes: int = Field(
        8 * 2**20, ge=1024, description="Longest answer of a service, and longest file, in bytes."
    )

    @property
    def http(self) -> bool:
        """Whether it is a service and no database."""
        return self.url.startswith(("http://", "https://"))


class Reading(Section):
    """What is read at each fire: a file, a query, or a path of a service."""

    file: Path | None = Field(
        None, description="A .csv file with a line of names, a .jsonl or a .json file."
    )
    source: Name | None = Field(None, description="One of [sources.NAME].")
    sql: str | None = Field(
        None, description="A query; :since and :until are the time since the last fire."
    )
    path: str | None = Field(
        None, description="What is asked for below the source's url; since and until go along."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        faults = []
        if self.file is not None:
            faults += [
                (key, "cannot go with file")
                for key in ("source", "sql", "path")
                if getattr(self, key) is not None
            ]
            if self.file.suffix not in (".csv", ".json", ".jsonl", ".ndjson"):
                faults.append(("file", "must end in .csv, .jsonl, .ndjson or .json"))
        elif self.source is None:
            faults.append(("source", "is required, or file instead"))
        elif (self.sql is None) == (self.path is None):
            faults.append(("sql", "is required with source, or path where it is a service"))
        refuse(faults)
        return self


class DataReading(Reading):
    """What data gets of it."""

    name: str = Field("items", description="Under which name data gets the rows.")


class Schedule(Section):
    """Mail that goes out by the clock."""

    cron: CronText = Field(
        description="Minute, hour, day of the month, month, day of the week, as Celery reads "
        "them: all must hold."
    )
    timezone: Zone = Field(
        ZoneInfo("UTC"), description="Whose clock it goes by, as 'Europe/Paris'."
    )
    producer: Name | None = Field(
        None, description="As whom it publishes; default_producer by default."
    )
    stream: str | None = Field(None, description="As in a message.")
    template: str | None = Field(None, description="As in a message.")
    subject: str | None = Field(None, description="As in a message.")
    text: str | None = Field(None, description="As in a message.")
    html: str | None = Field(None, description="As in a message.")
    locale: str | None = Field(None, description="As in a message.")
    tags: tuple[str, ...] = Field((), description="As in a message.")
    data_from: DataReading | None = Field(
        None, description="Rows that data gets besides. None: nothing is sent."
    )
    recipients: tuple[str, ...] = Field((), description="Addresses; one mail each.")
    recipients_from: Reading | None = Field(
        None,
        description="Rows with an email each, and name, locale, metadata, data; other columns "
        "are data. None: nothing is sent.",
    )
    max_recipients: int = Field(
        10_000, ge=1, le=1_000_000, description="With more, nothing is sent, and that is a fault."
    )
    catch_up: CatchUp = Field(
        "latest",
        description="After an outage: one fire for all that were missed, each of them, or none.",
    )
    catch_up_within: Duration = Field(
        7 * 86400.0, description="What was missed longer ago is let be."
    )
    catch_up_most: int = Field(24, ge=1, le=1000, description="With 'all': the latest so many.")
    retry_for: Duration = Field(
        6 * 3600.0,
        description="How long a fire is tried whose sources cannot be read; what it would have "
        "told falls to the next.",
    )
    # At the end: tables come after the keys.
    data: dict[str, Any] = Field(default_factory=dict, description="As in a message.")

    @model_validator(mode="after")
    def _says_what_and_to_whom(self) -> Self:
        faults = []
        if self.recipients and self.recipients_from:
            faults.append(("recipients", "cannot go with recipients_from"))
        elif not (self.recipients or self.recipients_from):
            faults.append(("recipients", "is required, or recipients_from instead"))
        if self.template is None:
            if self.subject is None:
                faults.append(("template", "is required, or subject with text or html instead"))
            elif self.text is None and self.html is None:
                faults.append(("text", "is required without a template, or html instead"))
        elif self.text is not None or self.html is not None:
            key = "text" if self.text is not None else "html"
            faults.append((key, "cannot go with a template, which makes both parts"))
        refuse(faults)
        return self

    @property
    def readings(self) -> tuple[tuple[str, Reading], ...]:
        """What it reads at each fire, by key."""
        both = (("recipients_from", self.recipients_from), ("data_from", self.data_from))
        return tuple((key, reading) for key, reading in both if reading is not None)


def schedule_faults(config: Config) -> Iterator[tuple[str, str]]:
    """What of the schedules does not fit the rest of the configuration."""
    for name, schedule in config.schedules.items():
        at = f"schedules.{name}"
        stream = schedule.stream or config.default_stream
        if stream not in config.streams:
            known = ", ".join(f"'{known}'" for known in config.streams)
            yield f"{at}.stream", f"names '{stream}', which is no stream; the streams are: {known}"
        producer = schedule.producer or config.default_producer
        if config.refuses_unknown and producer not in config.producers:
            rule = f"names '{producer}', which is no producer, and only known ones may publish"
            yield f"{at}.producer", rule
        may = config.producer(producer)
        if may.streams and stream not in may.streams:
            yield f"{at}.stream", f"is '{stream}', which producer {producer} may not use"
        if may.templates and schedule.template not in may.templates:
            yield f"{at}.template", f"is none that producer {producer} may use"
        for key, reading in schedule.readings:
            if reading.source is None:
                continue
            source = config.sources.get(reading.source)
            if source is None:
                known = ", ".join(f"'{known}'" for known in config.sources) or "none"
                rule = f"names '{reading.source}', which is no source; the sources are: {known}"
                yield f"{at}.{key}.source", rule
            elif source.http and reading.sql is not None:
                yield f"{at}.{key}.sql", f"is for a database, and {reading.source} is a service"
            elif not source.http and reading.path is not None:
                yield f"{at}.{key}.path", f"is for a service, and {reading.source} is a database"
