"""The four roles, as groups that a migration makes, and the permissions that each has."""

from __future__ import annotations

VIEW = "templates_app.view_template"
OPERATE = "templates_app.operate_template"
SIGN = "templates_app.sign_template"
LAUNCH = "templates_app.launch_template"

#: Role (the group's name) -> what it may do beyond viewing. docs/reference/api.md has the table.
ROLES: dict[str, tuple[str, ...]] = {
    "auditor": (),
    "operator": (OPERATE,),
    "signer": (SIGN,),
    "gateway": (LAUNCH,),
}
