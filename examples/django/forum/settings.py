"""A small site. All that mailgate needs is under "Mail"."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = os.environ.get("FORUM_SECRET_KEY", "for trying it out alone")
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

# --- Mail -------------------------------------------------------------------
EMAIL_BACKEND = "mailgate.client.django.EmailBackend"
MAILGATE_URL = os.environ["MAILGATE_URL"]
MAILGATE_PRODUCER = "forum"
#: A sign-up that is rolled back sends no activation mail.
MAILGATE_ON_COMMIT = True
DEFAULT_FROM_EMAIL = "The Forum <forum@example.com>"
SERVER_EMAIL = "forum@example.com"
ADMINS = [("Admin", "admin@example.com")]
# ----------------------------------------------------------------------------

ROOT_URLCONF = "forum.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("FORUM_DATABASE", BASE_DIR.parent / "forum.db"),
        "ATOMIC_REQUESTS": True,
    }
}
INSTALLED_APPS = [
    "forum",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",  # whose pages for password resets are used as they are
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LOGIN_REDIRECT_URL = "/"
STATIC_URL = "static/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
