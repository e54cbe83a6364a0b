"""The auditors' house: one module per room. Whoever is in it looks; it changes nothing of ours.

docs/reference/admin.md lists the rooms. The site is django-unfold's; what we add to it is the front
page, the digests and the keys (which are no tables), and that nobody can delete or resubmit a task
of the queue.
"""

from django.contrib import admin
from django_q.models import Failure, OrmQ, Schedule, Success

from templates_app.admin import (  # noqa: F401 - importing a room opens it
    accounts,
    digests,
    events,
    findings,
    generations,
    keys,
    leases,
    login,
    sandboxes,
    signatures,
    templates,
)

admin.site.index_template = "coppice/dashboard.html"
admin.site.index_title = "Overview"
admin.site.login_form = login.LoginForm
admin.site.login_template = "coppice/login.html"
# unfold's way to add addresses
admin.site.extra_urls = lambda: [*digests.urls(), *keys.urls()]  # type: ignore[attr-defined]
for model in (Failure, OrmQ, Schedule, Success):
    if admin.site.is_registered(model):
        admin.site.unregister(model)
