"""What gunicorn loads: ``coppice_site.wsgi:application``."""

import os

from django.core.wsgi import get_wsgi_application

# Loaded when it is asked for elsewhere; here at once, or the first import would wait for it.
import templates_app.sources.oci  # noqa: F401

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "coppice_site.settings")

application = get_wsgi_application()

from templates_app.services import policy  # noqa: E402 - needs the application

policy.at_start()
