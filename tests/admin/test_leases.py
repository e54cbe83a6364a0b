"""A running import as the auditors see it, and how it ended."""

from __future__ import annotations

import html
import re

from django.test import Client

from templates_app import store
from templates_app.models import Lease
from tests.house import TABLE, Story, auditor, imported, meta, text

PAGE = f"{TABLE}/lease/fbsd14-min/change/"


def source(client: Client, address: str) -> str:
    return client.get(address).content.decode()


def rows(page: str) -> list[str]:
    """The layers' rows, in words."""
    table = page.partition("Layers, the lowest first")[2].partition("</table>")[0]
    plain = [re.sub(r"<[^>]+>", " ", row) for row in table.partition("<tbody>")[2].split("</tr>")]
    return [" ".join(html.unescape(row).split()) for row in plain if row.strip()]


def test_every_layer_is_shown_with_its_state_bytes_and_entries(told: Story):
    assert rows(source(auditor(), PAGE)) == [
        "1 of 4 kept was here –",
        "2 of 4 copy 3.8M of 3.8M 4,711",
        "3 of 4 pull 7.6M of 19.1M –",
        "4 of 4 waiting 0B of 22.9M –",
    ]


def test_the_pages_of_the_import_and_of_the_template_ask_for_the_import_anew(told: Story):
    client = auditor()
    for address in (PAGE, f"{TABLE}/template/fbsd14-min/change/"):
        page = source(client, address)
        assert f'hx-get="{PAGE}" hx-trigger="every 2s" hx-select="#live"' in page
        assert page.count('id="live"') == 1


def test_an_import_without_layers_has_no_table_of_them(told: Story):
    Lease.objects.update(layers=[])
    page = source(auditor(), PAGE)
    assert "Layers" not in page and "11.4M of 45.8M" in page


def test_when_it_has_ended_the_page_says_how_and_asks_no_more(told: Story):
    client = auditor()
    Lease.objects.all().delete()
    (ended,) = store.append(imported("fbsd14-min", 3), meta=meta())
    page = source(client, PAGE)
    assert f"event/{ended.position}/change/" in page
    assert "Imported fbsd14-min generation 3" in page
    assert 'id="live"' in page and "every 2s" not in page
    assert "failed" in text(client.get(f"{TABLE}/lease/broken/change/"))


def test_an_import_of_what_was_never_imported_is_not_there(told: Story):
    client = auditor()
    for name in ("nobody", "house", "..", "x" * 70):
        assert client.get(f"{TABLE}/lease/{name}/change/").status_code == 404
