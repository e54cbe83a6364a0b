"""Django's settings; the one place where COPPICE_* variables become settings."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from coppice_site import environment, logs
from templates_app.names import NameGlob

BASE_DIR = Path(__file__).resolve().parent.parent

_values = environment.read(os.environ)

COPPICE_STATE_DIR: Path = _values["COPPICE_STATE_DIR"] or BASE_DIR / "var" / "state"
COPPICE_STATE_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)

COPPICE_POOL: str = _values["COPPICE_POOL"] or f"dir:{COPPICE_STATE_DIR / 'pool'}"
COPPICE_ENGINE: str = _values["COPPICE_ENGINE"]
COPPICE_PLATFORM = _values["COPPICE_PLATFORM"]
COPPICE_REFUSE_FOREIGN: bool = _values["COPPICE_REFUSE_FOREIGN"]
COPPICE_DNS_NAMESERVER: str = _values["COPPICE_DNS_NAMESERVER"]
COPPICE_REQUIRE_SIGNED_TEMPLATES: str = _values["COPPICE_REQUIRE_SIGNED_TEMPLATES"]
COPPICE_GATE_EXEMPT: tuple[NameGlob, ...] = _values["COPPICE_GATE_EXEMPT"]
COPPICE_REQUIRE_SIGNATURES: int = _values["COPPICE_REQUIRE_SIGNATURES"]
COPPICE_REQUIRE_TWO_PERSONS: bool = _values["COPPICE_REQUIRE_TWO_PERSONS"]
COPPICE_TRUSTED_KEYS: Path | None = _values["COPPICE_TRUSTED_KEYS"]
COPPICE_COSIGN_KEYS: Path | None = _values["COPPICE_COSIGN_KEYS"]
COPPICE_LOG_KEY: Path | None = _values["COPPICE_LOG_KEY"]
COPPICE_CHECKPOINT_DIR: Path | None = _values["COPPICE_CHECKPOINT_DIR"]
COPPICE_IMPORT_ROOTS: tuple[Path, ...] = _values["COPPICE_IMPORT_ROOTS"]
COPPICE_REGISTRIES_ALLOWED: tuple[str, ...] = _values["COPPICE_REGISTRIES_ALLOWED"]
COPPICE_REGISTRIES_INSECURE: tuple[str, ...] = _values["COPPICE_REGISTRIES_INSECURE"]
COPPICE_REGISTRY_AUTH_FILE: Path | None = _values["COPPICE_REGISTRY_AUTH_FILE"]
COPPICE_REGISTRY_MIRRORS: tuple[tuple[str, tuple[str, ...]], ...] = _values[
    "COPPICE_REGISTRY_MIRRORS"
]
COPPICE_REGISTRY_CA_FILE: Path | None = _values["COPPICE_REGISTRY_CA_FILE"]
COPPICE_NODE: str = _values["COPPICE_NODE"]
COPPICE_LEASE_SECONDS: int = _values["COPPICE_LEASE_SECONDS"]
COPPICE_LIMIT_STEP_SECONDS: int = _values["COPPICE_LIMIT_STEP_SECONDS"]
COPPICE_LIMIT_ENTRIES: int = _values["COPPICE_LIMIT_ENTRIES"]
COPPICE_LIMIT_IMAGE_BYTES: int = _values["COPPICE_LIMIT_IMAGE_BYTES"]
COPPICE_LIMIT_TREE_BYTES: int = _values["COPPICE_LIMIT_TREE_BYTES"]
COPPICE_LIMIT_FILE_BYTES: int = _values["COPPICE_LIMIT_FILE_BYTES"]
COPPICE_LIMIT_RATIO: int = _values["COPPICE_LIMIT_RATIO"]
COPPICE_LIMIT_MEMORY_BYTES: int = _values["COPPICE_LIMIT_MEMORY_BYTES"]
COPPICE_LIMIT_CACHE_BYTES: int = _values["COPPICE_LIMIT_CACHE_BYTES"]
COPPICE_RETAIN_GENERATIONS: int = _values["COPPICE_RETAIN_GENERATIONS"]
COPPICE_READY_SECONDS: int = _values["COPPICE_READY_SECONDS"]
COPPICE_LIMIT_LAYERS_BYTES: int = _values["COPPICE_LIMIT_LAYERS_BYTES"]
COPPICE_QUOTA_BYTES: int = _values["COPPICE_QUOTA_BYTES"]
COPPICE_SPACE_MARGIN_BYTES: int = _values["COPPICE_SPACE_MARGIN_BYTES"]
COPPICE_LOG_LEVEL: str = _values["COPPICE_LOG_LEVEL"]
COPPICE_PRODUCTION: bool = _values["COPPICE_PRODUCTION"]


def _secret_key() -> str:
    """Given, or made once and kept: sessions and signed task payloads outlive a restart."""
    if given := _values["DJANGO_SECRET_KEY"]:
        return str(given)
    if COPPICE_PRODUCTION:
        raise ImproperlyConfigured("DJANGO_SECRET_KEY must be set where COPPICE_PRODUCTION is on.")
    path = COPPICE_STATE_DIR / "secret-key"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text()


def database(url: str) -> dict[str, Any]:
    """Django's settings for the database at ``url``."""
    config: dict[str, Any] = dict(environ.Env.db_url_config(url))
    if config.get("ENGINE") == "django.db.backends.sqlite3":
        # IMMEDIATE: a deferred transaction that reads first and then writes fails at once with
        # "database is locked" under threads, whatever the timeout. FULL: NORMAL may lose the last
        # commits when the power fails. recursive_triggers: REPLACE fires DELETE triggers only then.
        # wal_autocheckpoint: a page that many appends changed is then copied back once in 16 MB of
        # the write-ahead log instead of once in 4.
        # Kept open: the last one that closes moves all of the write-ahead log to the database.
        config["CONN_MAX_AGE"] = 60
        config["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 30,
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                " PRAGMA foreign_keys=ON; PRAGMA recursive_triggers=ON;"
                " PRAGMA wal_autocheckpoint=4000;"
            ),
        }
    elif config.get("ENGINE") == "django.db.backends.postgresql":
        config["ENGINE"] = "coppice_site.postgresql"
        config["CONN_MAX_AGE"] = 60
        config["CONN_HEALTH_CHECKS"] = True
        # The append and what sql.py asks are prepared (Django's own cursors never are). A
        # connection pooler in transaction mode must know prepared statements (PgBouncer 1.21).
        config["OPTIONS"] = {**config.get("OPTIONS", {}), "prepare_threshold": 5}
    else:
        raise ImproperlyConfigured("DATABASE_URL must begin with postgres:// or sqlite:///.")
    return config


SECRET_KEY = _secret_key()
DEBUG = False
COPPICE_HOSTS: tuple[str, ...] = _values["COPPICE_HOSTS"]
ALLOWED_HOSTS = list(COPPICE_HOSTS)

DATABASES = {
    "default": database(
        _values["DATABASE_URL"] or f"sqlite:///{COPPICE_STATE_DIR / 'coppice.sqlite3'}"
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "django_prometheus",
    "templates_app.apps.TemplatesAppConfig",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "coppice_site.middleware.RequestId",
    "coppice_site.middleware.AdminPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "coppice_site.urls"
WSGI_APPLICATION = "coppice_site.wsgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
# Names carry no hash, so a browser asks again after an hour; it gets 304 while nothing changed.
WHITENOISE_MAX_AGE = 3600

LOGIN_URL = "admin:login"

# The auditors' house. The theme would write its colours into an inline <style>, which the content
# security policy refuses: they stand in coppice/house.css instead, and it gets none from here.
UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Coppice",
    "SITE_HEADER": "Coppice",
    "SITE_SUBHEADER": "Audit of templates",
    "SITE_SYMBOL": "forest",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda request: static("coppice/favicon.svg"),
        }
    ],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": None,
    "COLORS": lambda request: {},
    "STYLES": [lambda request: static("coppice/house.css")],
    "SCRIPTS": [lambda request: static("coppice/house.js")],
    "DASHBOARD_CALLBACK": "templates_app.admin.dashboard.show",
    "SIDEBAR": {"navigation": "templates_app.admin.navigation.rooms"},
}

SESSION_COOKIE_SECURE = COPPICE_PRODUCTION
CSRF_COOKIE_SECURE = COPPICE_PRODUCTION
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Strict"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# In production people's browsers are sent to HTTPS and remember it for 30 days. Programs are not
# redirected: a token sent in the clear has been sent, and who watches on this host speaks HTTP.
SECURE_SSL_REDIRECT = COPPICE_PRODUCTION
SECURE_REDIRECT_EXEMPT = [r"^(?!admin/)"]
SECURE_HSTS_SECONDS = 30 * 24 * 3600 if COPPICE_PRODUCTION else 0
# Other names below this host's, and the preload lists of browsers, are not ours to decide about.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["templates_app.api.permissions.Token"],
    "DEFAULT_PERMISSION_CLASSES": ["templates_app.api.permissions.Denied"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["templates_app.api.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "templates_app.api.errors.handle",
    "UNAUTHENTICATED_USER": None,
}

REST_KNOX = {
    "TOKEN_TTL": None,  # create_token sets each token's own expiry
    "AUTH_HEADER_PREFIX": "Bearer",
    "AUTO_REFRESH": False,
    "TOKEN_LIMIT_PER_USER": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Coppice",
    "DESCRIPTION": "Signed, audited sandbox templates from container images.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "COMPONENT_SPLIT_REQUEST": True,
    # The browser gets /docs from this server alone: no script of a third party beside the auditors'
    # sessions, and it works where there is no way out.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums"],
    # Two things have a `state`; the older one keeps the name that clients were made with.
    "ENUM_NAME_OVERRIDES": {
        "StateEnum": ["running", "imported", "failed"],
        "DriftEnum": ["current", "moved", "gone", "unreachable", "pinned"],
    },
}

# A whole import: resolve, pull, copy, digest and the wait for another import of the same name, each
# as long as a step may take.
_TASK_SECONDS = COPPICE_LIMIT_STEP_SECONDS * 4

# At-least-once, whatever the settings: exactly-once lives in the append and the lease. The retry
# clock starts when a task is taken into memory, so it covers every task queued before this one:
# retry > timeout * (ceil((queue_limit + bulk) / workers) + 1) + 5, held by a system check.
Q_CLUSTER = {
    "name": "coppice",
    "orm": "default",
    "workers": 1,
    "bulk": 1,
    "queue_limit": 1,
    "timeout": _TASK_SECONDS,
    "retry": _TASK_SECONDS * 3 + 6,
    "ack_failures": True,
    "max_attempts": 5,
    "catch_up": False,
    "label": "Queue",
    "poll": 0.2,
    "save_limit": 1000,
}

LOGGING = logs.config(COPPICE_LOG_LEVEL)
LOGGING_CONFIG = "logging.config.dictConfig"
