"""Evidence about a template in one file, which is checked without Coppice: evidence/VERIFY.md.

The same log, as far as it is about the template, gives the same bytes: files in order, without
times, under the smallest checkpoint that has the last event about it, and signatures of Ed25519,
which has no chance in them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.db.models import Value
from django.db.models.functions import Concat

from templates_app import lookup
from templates_app.errors import LogInconsistent, ManifestMissing
from templates_app.events import Meta
from templates_app.models import Event, Generation, Signature
from templates_app.services import access, archive, attached, ledger, proofs, trees
from templates_app.services import ledger_files as files
from templates_app.trust import checkpoints, log, signify
from templates_app.trust.checkpoints import Checkpoint
from templates_app.trust.manifests import Texts

_PLACE = Path(__file__).resolve().parent.parent / "evidence"
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_DEPTH = 3  # indexes within indexes (sources/documents.py)

#: The signed list of all files. signify -C reads it as it is.
LIST = "SHA256.sig"
TAR = "application/x-tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    name: str  # of the directory in it; with ".tar" that of the file
    files: Mapping[str, bytes]

    @property
    def headers(self) -> dict[str, str]:
        """Of an answer that is to be kept as a file."""
        return {"Content-Disposition": f'attachment; filename="{self.name}.tar"'}

    def tar(self) -> bytes:
        into = io.BytesIO()
        with tarfile.open(fileobj=into, mode="w", format=tarfile.USTAR_FORMAT) as made:
            for name in sorted(self.files):
                member = tarfile.TarInfo(f"{self.name}/{name}")  # of nobody, of no time
                member.size, member.mode = len(self.files[name]), 0o644
                made.addfile(member, io.BytesIO(self.files[name]))
        return into.getvalue()


def export(*, name: str, number: int | None = None, context: Meta) -> Bundle:
    """The bundle, for somebody who takes it away: an ``exported`` event says so."""
    found = bundle(name=name, number=number)
    positions = [event["position"] for event in _events(found.files["log/events.jsonl"])]
    access.exported(
        what="evidence",
        first=positions[0],
        last=positions[-1],
        events=len(positions),
        question=name if number is None else f"{name}@{number}",
        context=context,
    )
    return found


def bundle(*, name: str, number: int | None = None) -> Bundle:
    """All that the log and the state directory have about the current generation, or ``number``.

    Where no checkpoint has the last event about the template, one is written. Raises
    TemplateNotFound, GenerationNotFound, and what :func:`ledger.write_checkpoint` does.
    """
    row = trees.generation(name=name, number=number)
    positions = _positions(row)
    checkpoint = files.covering(positions[-1])
    if checkpoint is None:
        ledger.write_checkpoint()
        checkpoint = files.covering(positions[-1])
    if checkpoint is None:
        raise LogInconsistent(f"No checkpoint has position {positions[-1]} of the log.")
    # The same comment wherever COPPICE_LOG_KEY lies: nobody has signed for it.
    key = replace(files.secret_key(), comment=b"verify with log.pub")
    found = {
        **{name: (_PLACE / name).read_bytes() for name in ("VERIFY.md", "verify.py")},
        "statement.json": row.statement.encode("ascii"),
        **_tree(row),
        **_image(row),
        **_attached(row),
        **_log(positions, checkpoint, key),
    }
    found |= _signatures(found["log/events.jsonl"], row.statement_digest)
    sums = "".join(
        f"SHA256 ({path}) = {hashlib.sha256(found[path]).hexdigest()}\n" for path in sorted(found)
    )
    # Never to be taken for a checkpoint, which the same key signs: that begins with a log's name,
    # and no such name has a blank in it.
    found[LIST] = key.sign_embedded(sums.encode("ascii"))
    return Bundle(name=f"{row.template_name}.evidence", files=found)


def _positions(row: Generation) -> list[int]:
    """Of the events about the template, and of what became of the keys that signed it."""
    about = lookup.events(["template"], [row.template_name])
    signed = Signature.objects.filter(statement_digest=row.statement_digest)
    streams = signed.order_by().values_list(Concat(Value("key:"), "key_id"))
    of_keys = Event.objects.order_by().filter(stream__in=streams)
    # One question: of two, the second might see what the first was too early for, and a revocation
    # be in a bundle without the withdrawal before it.
    both = about.values_list("position", flat=True).union(
        of_keys.values_list("position", flat=True)
    )
    return sorted(both)


def _tree(row: Generation) -> dict[str, bytes]:
    try:
        return {"template.mtree": archive.manifest(row)}
    except ManifestMissing:
        return {}  # its digest is in the statement, and who verifies is told that it is missing


def _image(row: Generation) -> dict[str, bytes]:
    """The documents that lead to the image; those that were not kept at the time are left out."""
    texts = archive.archive().documents
    found = {}
    for what, digest in (("manifest", row.manifest_digest), ("config", row.config_digest)):
        if digest and (text := archive.kept_text(texts, digest)) is not None:
            found[f"image/{what}.json"] = text
    if row.index_digest:
        chain = _chain(texts, row.index_digest, row.manifest_digest, _DEPTH)
        for number, text in enumerate(chain, start=1):
            found[f"image/index{'' if number == 1 else f'-{number}'}.json"] = text
    return found


def _attached(row: Generation) -> dict[str, bytes]:
    """What the registry held about the image, as far as it is kept: each under its sha256."""
    texts = archive.archive().documents
    found = {}
    for item in attached.of(row.template_name, row.number):
        for digest in item.kept:
            if (text := archive.kept_text(texts, digest)) is not None:
                found[f"attached/{digest.removeprefix('sha256:')}"] = text
    return found


def _chain(
    texts: Texts, digest: str, wanted: str, depth: int, seen: dict[str, int] | None = None
) -> list[bytes]:
    """The index, and those within it that lead to the manifest ``wanted``; none if it does not.

    ``seen``: how deep was looked below each digest. A hostile index names one index ten thousand
    times, and that one another.
    """
    seen = {} if seen is None else seen
    if seen.get(digest, 0) >= depth:
        return []
    seen[digest] = depth
    text = archive.kept_text(texts, digest)
    if text is None:
        return []
    named = [one.decode("ascii") for one in dict.fromkeys(_DIGEST.findall(text))]
    if wanted in named:
        return [text]
    for inner in named:
        if below := _chain(texts, inner, wanted, depth - 1, seen):
            return [text, *below]
    return []


def _log(positions: list[int], checkpoint: Checkpoint, key: signify.SecretKey) -> dict[str, bytes]:
    """The events, each with its proof, and the checkpoint. LogInconsistent."""
    size = checkpoint.size
    ranges = {at: log.inclusion_ranges(at - 1, size) for at in positions}
    wanted = {node for spans in ranges.values() for one in spans for node in log.full_subtrees(one)}
    wanted |= set(log.full_subtrees((0, size)))
    data = dict.fromkeys(positions, b"")
    nodes = log.subtrees(proofs.leaf_hashes(size, data=data), wanted)
    if log.range_root((0, size), nodes) != checkpoint.root:
        raise LogInconsistent(
            f"The log is not the one that the checkpoint of {size} events was signed for.",
            hint="Run manage.py verify_log on the server.",
        )
    lines = []
    for at in positions:
        hashes = [log.range_root(one, nodes).hex() for one in ranges[at]]
        lines.append(json.dumps({"position": at, "hashes": hashes}))
    # By the key of today, also where an earlier one had signed it: one key opens the bundle.
    note, signature = checkpoints.sign(checkpoint, key)
    return {
        "log/checkpoint": checkpoint.text(),
        "log/checkpoint.sig": signature,
        "log/checkpoint.note": note,
        "log/log.pub": _public(key.public_key.text, "coppice log"),
        "log/events.jsonl": b"".join(data[at] + b"\n" for at in positions),
        "log/proofs.jsonl": "".join(f"{line}\n" for line in lines).encode("ascii"),
    }


def _signatures(events: bytes, statement_digest: str) -> dict[str, bytes]:
    found = {}
    for event in _events(events):
        signed = event["data"]
        if event["type"] == "signed" and signed["statementDigest"] == statement_digest:
            name = f"signatures/{event['position']}"
            found[f"{name}.sig"] = signed["signature"].encode()
            found[f"{name}.pub"] = _public(signed["publicKey"], signed["keyId"])
    return found


def _events(lines: bytes) -> Iterator[dict[str, Any]]:
    return map(json.loads, lines.removesuffix(b"\n").split(b"\n"))


def _public(text: str, what: str) -> bytes:
    return f"untrusted comment: {what} public key\n{text}\n".encode()
