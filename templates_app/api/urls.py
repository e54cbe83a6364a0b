"""The API's addresses: no trailing slash. docs/reference/api.md and the schema list them."""

from django.urls import path
from drf_spectacular.views import SpectacularAPIView

from templates_app.api import (
    attached,
    drift,
    evidence,
    findings,
    health,
    keys,
    log,
    space,
    trees,
    views,
)
from templates_app.api.openapi import Docs

urlpatterns = [
    path("templates", views.Templates.as_view()),
    path("templates/reload", findings.Reload.as_view()),
    path("templates/<str:name>", views.Template.as_view()),
    path("templates/<str:name>/statement", views.Statement.as_view()),
    path("templates/<str:name>/signatures", views.Signatures.as_view()),
    path("templates/<str:name>/signatures/<str:key>", keys.Withdraw.as_view()),
    path("templates/<str:name>/generations", views.Generations.as_view()),
    path("templates/<str:name>/rollback", views.Rollback.as_view()),
    path("templates/<str:name>/files", trees.Files.as_view()),
    path("templates/<str:name>/diff", trees.TreeDiff.as_view()),
    path("templates/<str:name>/evidence", evidence.Evidence.as_view()),
    path("templates/<str:name>/verify", trees.Verify.as_view()),
    path("templates/<str:name>/attached", attached.Evidence.as_view()),
    path("templates/<str:name>/gate", views.Gate.as_view()),
    path("templates/<str:name>/events", views.TemplateEvents.as_view()),
    path("templates/<str:name>/import", views.TemplateImport.as_view()),
    path("keys", keys.Keys.as_view()),
    path("keys/<str:key>", keys.OneKey.as_view()),
    path("keys/<str:key>/revoke", keys.Revoke.as_view()),
    path("log/checkpoint", log.Checkpoint.as_view()),
    path("log/proof/inclusion", log.Inclusion.as_view()),
    path("log/proof/consistency", log.Consistency.as_view()),
    path("log/entries", log.Entries.as_view()),
    path("drift", drift.Drift.as_view()),
    path("findings", findings.Findings.as_view()),
    path("events", views.Events.as_view()),
    path("digests/<str:digest>", views.Digest.as_view()),
    path("space", space.Space.as_view()),
    path("sandboxes", views.Sandboxes.as_view()),
    path("sandboxes/<str:sandbox_id>", views.Sandbox.as_view()),
    path("healthz", health.Alive.as_view()),
    path("readyz", health.Ready.as_view()),
    path("metrics", health.Metrics.as_view()),
    path("schema", SpectacularAPIView.as_view(), name="schema"),
    path("docs", Docs.as_view(url_name="schema"), name="docs"),
]
