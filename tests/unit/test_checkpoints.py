"""Checkpoints, notes and proof files, in the forms of C2SP; signify(1) takes the same signature."""

import base64
import hashlib
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from templates_app.errors import SignatureMalformed, SignatureRejected
from templates_app.trust import checkpoints, signify

PAIR = signify.generate("log")
KEY = signify.SecretKey.load(PAIR.secret)
ROOT = bytes(range(32))
ONE = checkpoints.Checkpoint("coppice/node-1", 1234, ROOT)


def test_the_text_is_three_lines():
    assert ONE.text() == b"coppice/node-1\n1234\n" + base64.b64encode(ROOT) + b"\n"
    assert checkpoints.Checkpoint.parse(ONE.text()) == ONE


def test_a_note_is_what_the_specification_says():
    note, _ = checkpoints.sign(ONE, KEY)
    text, line = note.decode().split("\n\n")
    dash, name, signed = line.removesuffix("\n").split(" ")
    assert (dash, name) == ("—", "coppice/node-1")
    public = KEY.public_key.ed25519
    key_id = hashlib.sha256(b"coppice/node-1\n\x01" + public).digest()[:4]
    raw = base64.b64decode(signed)
    assert raw[:4] == key_id
    Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], text.encode() + b"\n")


def test_signify_itself_takes_the_signature(tmp_path):
    _, detached = checkpoints.sign(ONE, KEY)
    (tmp_path / "log.pub").write_text(PAIR.public)
    (tmp_path / "checkpoint").write_bytes(ONE.text())
    (tmp_path / "checkpoint.sig").write_bytes(detached)
    done = subprocess.run(
        ["signify-openbsd", "-V", "-p", "log.pub", "-m", "checkpoint"],
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_note_with_signatures_of_witnesses_verifies():
    note, _ = checkpoints.sign(ONE, KEY)
    witness = "— witness.example " + base64.b64encode(b"wxyz" + b"\0" * 72).decode() + "\n"
    assert checkpoints.verify(note + witness.encode(), KEY.public_key) == ONE


@pytest.mark.parametrize(
    ("old", "new"), [(b"1234", b"1235"), (b"coppice/node-1\n1234", b"coppice/node-2\n1234")]
)
def test_a_changed_note_does_not_verify(old, new):
    note, _ = checkpoints.sign(ONE, KEY)
    with pytest.raises(SignatureRejected):
        checkpoints.verify(note.replace(old, new), KEY.public_key)


def test_a_note_by_another_key_does_not_verify():
    other = signify.SecretKey.load(signify.generate("other").secret)
    with pytest.raises(SignatureRejected, match="not signed by the log's key"):
        checkpoints.verify(checkpoints.sign(ONE, other)[0], KEY.public_key)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff\n1\n\n",
        ONE.text(),
        ONE.text() + b"\n",
        ONE.text() + b"\nno signature\n",
        ONE.text() + "\n— coppice/node-1 AAAA".encode(),
        ONE.text() + "\n— coppice/node-1 AAAA\n".encode(),
        ONE.text() + "\n— coppice/node-1 $$$$\n".encode(),
        ONE.text().replace(b"1234", b"01234") + b"\n",
        ONE.text().replace(b"1234", b"-1") + b"\n",
        ONE.text().replace(b"node-1", b"no de") + b"\n",
        ONE.text().replace(b"=", b"") + b"\n",
        ONE.text().replace(b"8=", b"9=") + b"\n",  # the same bytes in another spelling
    ],
)
def test_what_is_no_note_is_refused_in_words(note):
    with pytest.raises(SignatureMalformed, match="not a signed checkpoint"):
        checkpoints.verify(note, KEY.public_key)


def test_a_proof_file_reads_back_and_ends_with_the_note():
    note, _ = checkpoints.sign(ONE, KEY)
    proof = checkpoints.Proof(7, (ROOT, bytes(32)), note)
    text = proof.text()
    assert text.startswith(b"c2sp.org/tlog-proof@v1\nindex 7\n" + base64.b64encode(ROOT) + b"\n")
    assert text.endswith(b"\n\n" + note)
    assert checkpoints.Proof.parse(text) == proof


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"c2sp.org/tlog-proof@v2\nindex 1\n\n",
        b"c2sp.org/tlog-proof@v1\nindex x\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 1\nAAAA\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 1\n",
    ],
)
def test_what_is_no_proof_is_refused(text):
    with pytest.raises(SignatureMalformed):
        checkpoints.Proof.parse(text)
