"""How gunicorn serves Coppice: gunicorn -c deploy/gunicorn.conf.py coppice_site.wsgi:application

What an installation changes, it gives on the command line (``--bind``, ``--threads``) or as
WEB_CONCURRENCY (worker processes, PostgreSQL only).
"""

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from coppice_site import logs  # noqa: E402 - needs the path above

chdir = str(_ROOT)
bind = "127.0.0.1:8420"

# SQLite has one writer: one process, in which threads wait for each other, never two that find the
# database locked. On PostgreSQL processes may be added.
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
if workers > 1 and not os.environ.get("DATABASE_URL", "").startswith("postgres"):
    sys.exit("WEB_CONCURRENCY above 1 needs PostgreSQL (DATABASE_URL=postgres://...).")
# A POST /templates holds its thread until the import is done: enough of them that reads, launches
# and health checks find a free one beside many imports.
worker_class = "gthread"
threads = 32
# Not loaded before the fork: database connections and locks must not be inherited.
preload_app = False

# In a gthread worker it is the event loop that beats, once a second, while requests run in other
# threads (gunicorn/workers/gthread.py, ThreadWorker.run). So this is how long a *hung process* is
# waited for, in seconds; an import of an hour is not cut off by it.
timeout = 60
# How long a stop or a reload waits for requests that run, in seconds; then the worker is killed.
# An import that is cut off so is cleaned up by recovery, at the next start.
graceful_timeout = 30
# The heartbeat's file lies in memory: a stalled disk must not make a worker look dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - unlinked at once

keepalive = 5  # seconds
# X-Forwarded-Proto is believed from a reverse proxy on this host alone.
forwarded_allow_ips = "127.0.0.1,::1"
# No request of the API has a longer line or more headers; bodies are limited by Django.
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190

# gunicornc's control socket would be one more way in (below $HOME); signals do what is needed.
control_socket_disable = True

# One JSON object a line on stderr, as the server's own log.
logconfig_dict = logs.config("info")
logconfig_dict["loggers"]["gunicorn.error"] = {
    "handlers": ["stderr"],
    "level": "INFO",
    "propagate": False,
}
logconfig_dict["loggers"]["gunicorn.access"] = {"handlers": [], "level": "INFO", "propagate": False}


_died = False  # a worker ended, and recovery has not looked since


def on_starting(server):
    """Recovery, before the first request: what a killed server left half-made is cleared away."""
    _recover(server)


def child_exit(server, worker):
    global _died
    _died = True


def worker_exit(server, worker):
    """In the worker, after its last request: no clone is being made when it is gone, none waits."""
    if (loaded := sys.modules.get("templates_app.services.ready_keeper")) is not None:
        loaded.keeper.close()


def pre_fork(server, worker):
    """Before a worker that was killed is replaced: nothing else would look at what it left."""
    global _died
    if _died:
        _died = False
        _recover(server)


def _recover(server):
    """In a process of its own, so that the one that forks workers holds no database connection.

    A failure is logged and does not stop the start: with the pool gone, the log and the registry of
    templates must still be readable; /readyz says what is wrong, and the next start tries again.
    """
    recover = [sys.executable, str(_ROOT / "manage.py"), "recover"]
    done = subprocess.run(recover, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        server.log.error("recovery ended with status %d; see above", done.returncode)
