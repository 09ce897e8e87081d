"""The plugin as pytest would load it from an installed mailgate, and a Django to try it on."""

from __future__ import annotations

from collections.abc import Iterator

import django
import pytest
from django.conf import settings

from mailgate.client.testing import mailgate_outbox

__all__ = ["mailgate_outbox"]

if not settings.configured:
    settings.configure(
        SECRET_KEY="test",
        EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        ADMINS=[("Ann", "ann@example.com")],
        MAILGATE_URL="redis://nowhere.invalid",
        MAILGATE_PRODUCER="shop",
        USE_TZ=True,
    )
    django.setup()


@pytest.fixture
def django_database() -> Iterator[None]:
    """Tables for Django's users, on a database in memory."""
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    yield
    connection.close()
