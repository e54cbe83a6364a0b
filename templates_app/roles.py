"""The four roles, as groups that a migration makes, and the permissions that each has."""

from __future__ import annotations

VIEW = "templates_app.view_template"
OPERATE = "templates_app.operate_template"
SIGN = "templates_app.sign_template"
LAUNCH = "templates_app.launch_template"
TRUST_KEY = "templates_app.trust_key"
REVOKE_KEY = "templates_app.revoke_key"

#: What the auditors' house shows, table by table. The API's own reads need VIEW alone.
SEE = (
    VIEW,
    "templates_app.view_event",
    "templates_app.view_generation",
    "templates_app.view_signature",
    "templates_app.view_sandbox",
    "templates_app.view_lease",
)

#: Role (the group's name) -> what it may do. docs/reference/api.md has the table. Who signs may not
#: say whose signatures count, so that it takes two to let something new through the gate; but may
#: stop a key at once, for the owner of a stolen one is a signer.
ROLES: dict[str, tuple[str, ...]] = {
    "auditor": SEE,
    "operator": (*SEE, OPERATE, TRUST_KEY, REVOKE_KEY),
    "signer": (*SEE, SIGN, REVOKE_KEY),
    "gateway": (VIEW, LAUNCH),
}
