"""Every environment variable that Coppice knows.

``VARIABLES`` is the list that ``manage.py settings`` prints and that docs/reference/settings.md is
held to. ``read`` is called by settings.py alone: nothing else looks at the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from coppice_site.readers import (
    Odd,
    absolute_path,
    anything,
    gate_mode,
    globs,
    hosts,
    mirrors,
    nameserver,
    node,
    one_of,
    platform,
    pool,
    switch,
    whole,
)


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    default: str
    reader: Callable[[str], Any]
    meaning: str
    of: str = "server"  # or "client": read by the command line, only known to the server
    secret: bool = False


VARIABLES = (
    Variable(
        "COPPICE_POOL",
        "",
        lambda text: pool(text) if text else "",
        "Where datasets live: `zfs:DATASET` or `dir:/PATH`. Empty: `dir:` in the state directory."
        " There is no fallback from one to the other.",
    ),
    Variable(
        "COPPICE_STATE_DIR",
        "",
        absolute_path,
        "Where the server keeps what is its own: database, secret key, blob cache,"
        " container storage."
        " Empty: `var/state` below the project.",
    ),
    Variable(
        "COPPICE_ENGINE",
        "native",
        one_of("native", "buildah"),
        "What brings an image's files over: `native` needs no other program, `buildah` needs root.",
    ),
    Variable(
        "COPPICE_PLATFORM",
        "",
        platform,
        "The `os/arch` that images are chosen by. Empty: this host's.",
    ),
    Variable(
        "COPPICE_REFUSE_FOREIGN",
        "off",
        switch,
        "Refuse an import whose programs are not for COPPICE_PLATFORM's system, by their ELF"
        " headers. Off: the verdict is recorded as a finding.",
    ),
    Variable(
        "COPPICE_DNS_NAMESERVER",
        "10.78.0.1",
        nameserver,
        "The address that `/etc/resolv.conf` of every import gets. Empty: nothing is planted.",
    ),
    Variable(
        "COPPICE_REQUIRE_SIGNED_TEMPLATES",
        "off",
        gate_mode,
        "`on`: nothing unsigned is launched (403). `warn`: launched and recorded. `off`: launched"
        " and recorded as unsigned.",
    ),
    Variable(
        "COPPICE_GATE_EXEMPT",
        "",
        globs,
        "Patterns of template names, separated by commas (`test-*`): for these a gate that is `on`"
        " is `warn`. It is on for every other name.",
    ),
    Variable(
        "COPPICE_REQUIRE_SIGNATURES",
        "1",
        whole(1, 10),
        "By how many keys a template must be signed.",
    ),
    Variable(
        "COPPICE_REQUIRE_TWO_PERSONS",
        "off",
        switch,
        "A signature that was handed in by the account that imported the template does not count.",
    ),
    Variable(
        "COPPICE_TRUSTED_KEYS",
        "",
        absolute_path,
        "Directory of `.pub` files of signify: the keys whose signatures count. Read at each use.",
    ),
    Variable(
        "COPPICE_COSIGN_KEYS",
        "",
        absolute_path,
        "Directory of cosign's `.pub` files (PEM); what registries hold of images is held to them.",
    ),
    Variable(
        "COPPICE_LOG_KEY",
        "",
        absolute_path,
        "Secret key of signify, without a passphrase, that signs the log's checkpoints."
        " Empty: made once, in the state directory.",
    ),
    Variable(
        "COPPICE_CHECKPOINT_DIR",
        "",
        absolute_path,
        "Directory that each checkpoint of the log is written to besides the state directory: best"
        " one that this server can write to and not rewrite.",
    ),
    Variable(
        "COPPICE_IMPORT_ROOTS",
        "",
        lambda text: tuple(p for part in text.split(":") if (p := absolute_path(part))),
        "Directories, separated by `:`, that local sources may be read from.",
    ),
    Variable(
        "COPPICE_REGISTRIES_ALLOWED",
        "",
        hosts,
        "Registry hosts that may be asked although they are on a private address."
        " Loopback and private addresses are refused otherwise.",
    ),
    Variable(
        "COPPICE_REGISTRIES_INSECURE",
        "",
        hosts,
        "Registry hosts that may be spoken to without TLS; they count as allowed too.",
    ),
    Variable(
        "COPPICE_REGISTRY_AUTH_FILE",
        "",
        absolute_path,
        "Credentials for registries, in the format of containers-auth.json(5).",
    ),
    Variable(
        "COPPICE_REGISTRY_MIRRORS",
        "",
        mirrors,
        "Mirrors that are asked before a registry: `HOST=MIRROR[,MIRROR]`, separated by `;`.",
    ),
    Variable(
        "COPPICE_REGISTRY_CA_FILE",
        "",
        absolute_path,
        "Certificate authorities (PEM) that registries may have besides the system's.",
    ),
    Variable("COPPICE_NODE", "", node, "This server's name in events. Empty: the host's name."),
    Variable(
        "COPPICE_LEASE_SECONDS",
        "60",
        whole(2, 3600),
        "After so much silence of another server its import is taken to be dead.",
    ),
    Variable(
        "COPPICE_LIMIT_STEP_SECONDS",
        "3600",
        whole(1, 86400),
        "The longest that one program of an import may run, in seconds.",
    ),
    Variable(
        "COPPICE_LIMIT_ENTRIES",
        "2000000",
        whole(1, 100_000_000),
        "The most entries (files, directories, links) that an image may have.",
    ),
    Variable(
        "COPPICE_LIMIT_IMAGE_BYTES",
        "68719476736",
        whole(1, 10**15),
        "The most bytes that an image's layers may have as transferred.",
    ),
    Variable(
        "COPPICE_LIMIT_CACHE_BYTES",
        "21474836480",
        whole(0, 10**15),
        "The most bytes of layers, manifests and configs that are kept for later imports.",
    ),
    Variable(
        "COPPICE_LIMIT_LAYERS_BYTES",
        "21474836480",
        whole(0, 10**15),
        "The most bytes of layer states that are kept on a `zfs:` pool beyond what templates need.",
    ),
    Variable(
        "COPPICE_SPACE_MARGIN_BYTES",
        "134217728",
        whole(0, 10**15),
        "Bytes that an import leaves free on the pool and where blobs are kept, or is refused.",
    ),
    Variable(
        "COPPICE_QUOTA_BYTES",
        "0",
        whole(0, 10**15),
        "The most bytes that a sandbox or an image may take; 0: any. `zfs:` pools (refquota).",
    ),
    Variable(
        "COPPICE_RETAIN_GENERATIONS",
        "1",
        whole(0, 1000),
        "How many generations besides the current one `sweep_generations` keeps of each template.",
    ),
    Variable(
        "COPPICE_READY_SECONDS",
        "60",
        whole(0, 86400),
        "How long the clone waits that is made ahead of a template's next launch; 0: none is made."
        " `zfs:` pools.",
    ),
    Variable(
        "COPPICE_LIMIT_TREE_BYTES",
        "274877906944",
        whole(1, 10**15),
        "The most bytes that the files of an image may have, over all its layers.",
    ),
    Variable(
        "COPPICE_LIMIT_FILE_BYTES",
        "68719476736",
        whole(1, 10**15),
        "The most bytes that one file of an image may have.",
    ),
    Variable(
        "COPPICE_LIMIT_RATIO",
        "200",
        whole(2, 1_000_000),
        "How many bytes a layer may unpack to for each byte that was sent; the first 64 MiB do"
        " not count.",
    ),
    Variable(
        "COPPICE_LIMIT_MEMORY_BYTES",
        "4294967296",
        whole(2**28, 10**15),
        "The most memory that one of the native engine's two processes may use. A tree's manifest"
        " may have an eighth of it.",
    ),
    Variable(
        "COPPICE_LOG_LEVEL",
        "info",
        one_of("debug", "info", "warning", "error"),
        "What the server's log shows.",
    ),
    Variable(
        "COPPICE_HOSTS",
        "localhost,127.0.0.1,[::1]",
        hosts,
        "Host names that the server answers to, separated by commas.",
    ),
    Variable(
        "COPPICE_PRODUCTION",
        "off",
        switch,
        "Production: DJANGO_SECRET_KEY is required, cookies go over HTTPS only, and browsers are"
        " sent there for the auditors' pages.",
    ),
    Variable(
        "DATABASE_URL",
        "",
        anything,
        "`postgres://USER:PASSWORD@HOST:PORT/NAME` or `sqlite:////PATH`. Empty: SQLite in the state"
        " directory.",
        secret=True,
    ),
    Variable(
        "DJANGO_SECRET_KEY",
        "",
        anything,
        "Django's secret key. Empty: made once, kept in the state directory (not in production).",
        secret=True,
    ),
    Variable(
        "COPPICE_URL", "http://127.0.0.1:8420", anything, "The server's address.", of="client"
    ),
    Variable("COPPICE_TOKEN", "", anything, "The token to use.", of="client", secret=True),
    Variable(
        "COPPICE_SIGN_PRIVKEY",
        "",
        anything,
        "The secret key that `coppice tpl sign` signs with; it never leaves the client.",
        of="client",
    ),
)

#: Set by Coppice itself for the programs that an import starts; never by an operator.
OWN = frozenset({"COPPICE_RUNS_IMPORT"})


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of all variables, parsed. Raises ImproperlyConfigured with one sentence."""
    known = {variable.name for variable in VARIABLES} | OWN
    for name in sorted(environ):
        if name.startswith("COPPICE_") and name not in known:
            raise ImproperlyConfigured(
                f"{name} is not a variable of Coppice. Run `manage.py settings` for the list."
            )
    values: dict[str, Any] = {}
    for variable in VARIABLES:
        if variable.of == "client":
            continue
        text = environ.get(variable.name, variable.default)
        try:
            values[variable.name] = variable.reader(text)
        except Odd as odd:
            shown = "" if variable.secret else f" is {text!r}, but"
            raise ImproperlyConfigured(f"{variable.name}{shown} {odd}.") from None
    return values
