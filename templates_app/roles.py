"""The four roles, as groups that a migration makes, and the permissions that each has."""

from __future__ import annotations

VIEW = "templates_app.view_template"
OPERATE = "templates_app.operate_template"
SIGN = "templates_app.sign_template"
LAUNCH = "templates_app.launch_template"

#: What the auditors' house shows, table by table. The API's own reads need VIEW alone.
SEE = (
    VIEW,
    "templates_app.view_event",
    "templates_app.view_generation",
    "templates_app.view_signature",
    "templates_app.view_sandbox",
    "templates_app.view_lease",
)

#: Role (the group's name) -> what it may do. docs/reference/api.md has the table.
ROLES: dict[str, tuple[str, ...]] = {
    "auditor": SEE,
    "operator": (*SEE, OPERATE),
    "signer": (*SEE, SIGN),
    "gateway": (VIEW, LAUNCH),
}
