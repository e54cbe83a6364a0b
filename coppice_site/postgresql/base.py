"""Django's PostgreSQL, whose health check costs nothing where nothing has happened.

With CONN_HEALTH_CHECKS Django asks SELECT 1 once in each request that uses the database, which is a
round trip before each launch. But a server that ends, or ends a session, closes the connection, and
of that the system knows: there is something to be read. Only then the question is asked.
"""

from __future__ import annotations

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    health_check_done: bool

    def close_if_health_check_failed(self) -> None:
        if self.connection is not None and not self.health_check_done and _is_silent(self):
            self.health_check_done = True
        super().close_if_health_check_failed()


def _is_silent(database: base.DatabaseWrapper) -> bool:
    """Whether the connection stands, as far as the system knows, and nothing waits to be read."""
    if database.connection.closed:
        return False
    poll = select.poll()
    poll.register(database.connection.fileno(), select.POLLIN)
    return not poll.poll(0)
