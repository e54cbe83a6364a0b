"""Keys and signatures, both ways against the real signify; and whatever an enemy may write."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from templates_app.errors import (
    CoppiceError,
    KeyMalformed,
    PassphraseWrong,
    SignatureMalformed,
    SignatureRejected,
    SigningKeyUntrusted,
)
from templates_app.trust import keyfiles, signify, trusted
from templates_app.trust.signify import PublicKey, SecretKey, Signature

ROOT = Path(__file__).resolve().parents[2]
MESSAGE = b'{"_type":"a statement"}\n\x00\xff'
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the curve's base point
PAIR = signify.generate("pair")
OTHER = signify.generate("other")


def run(*args: str | Path, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """The real signify; it asks its standard input for passphrases where that is no terminal."""
    done = subprocess.run(
        ["signify-openbsd", *map(str, args)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def signify_pair(place: Path, name: str = "k", passphrase: str = "") -> tuple[Path, Path]:
    """(public, secret), made by signify."""
    public, secret = place / f"{name}.pub", place / f"{name}.sec"
    how = () if passphrase else ("-n",)
    given_twice = f"{passphrase}\n{passphrase}\n" if passphrase else ""
    run("-G", *how, "-c", "our key", "-p", public, "-s", secret, stdin=given_twice)
    return public, secret


def our_pair(place: Path, passphrase: str | None = None) -> tuple[Path, Path]:
    """(public, secret), made here."""
    public, secret = place / "ours.pub", place / "ours.sec"
    pair = signify.generate("our key", passphrase)
    public.write_text(pair.public)
    secret.write_text(pair.secret)
    return public, secret


def signed_by_signify(secret: Path, *more: str, stdin: str = "") -> bytes:
    message, signature = secret.parent / "message", secret.parent / "message.sig"
    message.write_bytes(MESSAGE)
    run("-S", *more, "-s", secret, "-m", message, "-x", signature, stdin=stdin)
    return signature.read_bytes()


# --- both ways -----------------------------------------------------------------------------------


@pytest.mark.parametrize("passphrase", ["", "correct horse", "pä55 wörd ☃"])
def test_keys_that_signify_made_are_read_here(tmp_path: Path, passphrase: str):
    public_file, secret_file = signify_pair(tmp_path, passphrase=passphrase)
    public = PublicKey.parse(public_file.read_bytes())
    assert signify.needs_passphrase(secret_file.read_bytes()) is bool(passphrase)
    secret = SecretKey.load(signify.read_secret(secret_file), passphrase or None)
    assert secret.public_key == public
    assert public.to_bytes() == public_file.read_bytes()
    assert public_file.read_text().splitlines()[1] == public.text


@pytest.mark.parametrize("passphrase", [None, "correct horse", "pä55 wörd ☃"])
def test_signify_signs_with_keys_that_were_made_here(tmp_path: Path, passphrase: str | None):
    public_file, secret_file = our_pair(tmp_path, passphrase)
    made = signed_by_signify(secret_file, stdin=f"{passphrase or ''}\n")
    PublicKey.parse(public_file.read_bytes()).verify(MESSAGE, made)
    run("-V", "-p", public_file, "-m", tmp_path / "message", "-x", tmp_path / "message.sig")


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_a_signature_made_here_is_byte_for_byte_signifys(tmp_path: Path, passphrase: str):
    _, secret_file = signify_pair(tmp_path, passphrase=passphrase)
    secret = SecretKey.load(
        secret_file.read_bytes(), passphrase or None, file_name=secret_file.name
    )
    by_signify = signed_by_signify(secret_file, stdin=f"{passphrase}\n")
    assert secret.sign(MESSAGE).encode() == by_signify
    assert by_signify.startswith(b"untrusted comment: verify with k.pub\n")


def test_a_key_from_standard_input_signs_as_signify_does(tmp_path: Path):
    _, secret_file = signify_pair(tmp_path)
    message = tmp_path / "message"
    message.write_bytes(MESSAGE)
    text = secret_file.read_text()
    run("-S", "-s", "-", "-m", message, "-x", tmp_path / "by-stdin", stdin=text)
    assert SecretKey.load(text).sign(MESSAGE) == (tmp_path / "by-stdin").read_text()


def test_a_message_with_its_signature_before_it_is_byte_for_byte_signifys(tmp_path: Path):
    public_file, secret_file = signify_pair(tmp_path)
    embedded = signed_by_signify(secret_file, "-e")
    secret = SecretKey.load(secret_file.read_bytes(), file_name="k.sec")
    assert secret.sign_embedded(MESSAGE) == embedded
    signature, message = Signature.parse_embedded(embedded)
    assert message == MESSAGE
    PublicKey.parse(public_file.read_bytes()).verify(message, signature)


@pytest.mark.parametrize("embedded", [False, True], ids=["detached", "embedded"])
def test_signify_verifies_what_was_signed_here(tmp_path: Path, embedded: bool):
    public_file, secret_file = our_pair(tmp_path)
    secret = SecretKey.load(secret_file.read_bytes(), file_name="ours.sec")
    message, signature = tmp_path / "m", tmp_path / "m.sig"
    if embedded:
        signature.write_bytes(secret.sign_embedded(MESSAGE))
        run("-V", "-e", "-p", public_file, "-m", message, "-x", signature)
        assert message.read_bytes() == MESSAGE
    else:
        message.write_bytes(MESSAGE)
        signature.write_text(secret.sign(MESSAGE))
        run("-V", "-p", public_file, "-m", message, "-x", signature)
        message.write_bytes(MESSAGE + b" ")
        assert run("-V", "-p", public_file, "-m", message, check=False).returncode != 0


@pytest.mark.parametrize("name", ["k.sec", "", "key", ".sec", "/a/b/k.sec", "\udcff.sec"])
def test_the_comment_says_what_signifys_says(name: str):
    secret = SecretKey.load(PAIR.secret, file_name=name)
    comment = secret.sign(b"").split("\n")[0].removeprefix("untrusted comment: ")
    assert comment == {
        "k.sec": "verify with k.pub",
        "/a/b/k.sec": "verify with k.pub",
        "\udcff.sec": "verify with \N{REPLACEMENT CHARACTER}.pub",  # it travels as JSON: text
    }.get(name, "signature from pair secret key")


def test_the_longest_comments_are_taken_and_no_longer_ones(tmp_path: Path):
    most = keyfiles.MAX_COMMENT - len(" public key")
    pair = signify.generate("x" * most)
    (tmp_path / "k.pub").write_text(pair.public)
    (tmp_path / "k.sec").write_text(pair.secret)
    PublicKey.parse(pair.public).verify(MESSAGE, signed_by_signify(tmp_path / "k.sec"))
    with pytest.raises(KeyMalformed):
        signify.generate("x" * (most + 1))
    for odd in ("a\nb", "a\0b", "\ud800"):
        with pytest.raises(KeyMalformed):
            signify.generate(odd)


# --- what does not verify ------------------------------------------------------------------------


def test_each_flipped_bit_of_a_signature_is_refused():
    """74 bytes: algorithm, key number, Ed25519. Each has the error that names it."""
    secret, public = SecretKey.load(PAIR.secret), PublicKey.parse(PAIR.public)
    made = base64.b64decode(secret.sign(MESSAGE).split("\n")[1])
    for bit in range(len(made) * 8):
        raw = bytearray(made)
        raw[bit // 8] ^= 1 << bit % 8
        text = f"untrusted comment: x\n{base64.b64encode(raw).decode()}\n"
        wanted: type[CoppiceError] = SignatureRejected
        if bit < 16:
            wanted = SignatureMalformed
        elif bit < 80:
            wanted = SigningKeyUntrusted
        with pytest.raises(CoppiceError) as refused:
            public.verify(MESSAGE, text)
        assert type(refused.value) is wanted, bit


def test_each_flipped_bit_of_the_text_is_refused_or_of_the_comment():
    text = SecretKey.load(PAIR.secret).sign(MESSAGE).encode()
    public, comment = PublicKey.parse(PAIR.public), text.index(b"\n")
    for bit in range(len(text) * 8):
        raw = bytearray(text)
        raw[bit // 8] ^= 1 << bit % 8
        in_comment = len(b"untrusted comment: ") <= bit // 8 < comment
        try:
            public.verify(MESSAGE, bytes(raw))
        except SignatureRejected:  # and its kinds: malformed, untrusted
            assert not in_comment or raw[bit // 8] in b"\n\0"
        else:
            assert in_comment, bit  # which nobody signs


def test_each_flipped_bit_of_the_message_is_refused():
    text, public = SecretKey.load(PAIR.secret).sign(MESSAGE), PublicKey.parse(PAIR.public)
    for bit in range(len(MESSAGE) * 8):
        raw = bytearray(MESSAGE)
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureRejected):
            public.verify(bytes(raw), text)


def test_each_flipped_bit_of_a_public_key_makes_another_key():
    made = base64.b64decode(PAIR.public.split("\n")[1])
    text = SecretKey.load(PAIR.secret).sign(MESSAGE)
    for bit in range(len(made) * 8):
        raw = bytearray(made)
        raw[bit // 8] ^= 1 << bit % 8
        wanted: type[CoppiceError] = SignatureRejected
        if bit < 16:
            wanted = KeyMalformed
        elif bit < 80:
            wanted = SigningKeyUntrusted
        with pytest.raises(CoppiceError) as refused:
            PublicKey.parse(f"untrusted comment: x\n{base64.b64encode(raw).decode()}\n").verify(
                MESSAGE, text
            )
        assert type(refused.value) is wanted, bit


def test_each_flipped_bit_of_a_secret_key_is_refused_or_changes_the_key_number_alone():
    made = base64.b64decode(PAIR.secret.split("\n")[1])
    whole = SecretKey.load(PAIR.secret)
    for bit in range(len(made) * 8):
        raw = bytearray(made)
        raw[bit // 8] ^= 1 << bit % 8
        text = f"untrusted comment: x\n{base64.b64encode(raw).decode()}\n"
        field = next(
            name
            for name, end in (
                ("algorithm", 2),
                ("kdf", 4),
                ("rounds", 8),
                ("salt", 24),
                ("checksum", 32),
                ("keynum", 40),
                ("key", 104),
            )
            if bit // 8 < end
        )
        if field in ("salt", "keynum"):  # without a passphrase the salt is not used
            opened = SecretKey.load(text)
            assert opened.seed == whole.seed
            assert (opened.keynum == whole.keynum) is (field == "salt")
            continue
        wanted = PassphraseWrong if field == "rounds" and raw[4:6] == b"\0\0" else KeyMalformed
        if field == "rounds" and int.from_bytes(raw[4:8], "big") > signify.MAX_ROUNDS:
            wanted = KeyMalformed
        with pytest.raises(CoppiceError) as refused:
            SecretKey.load(text)
        assert type(refused.value) is wanted, (field, bit)


def test_halves_of_two_pairs_are_no_key():
    one, other = (SecretKey.load(pair.secret) for pair in (PAIR, OTHER))
    plain = one.seed + other.public_key.ed25519
    head = base64.b64decode(PAIR.secret.split("\n")[1])[:24]
    body = head + hashlib.sha512(plain).digest()[:8] + one.keynum + plain
    with pytest.raises(KeyMalformed, match="halves"):
        SecretKey.load(f"untrusted comment: x\n{base64.b64encode(body).decode()}\n")


def test_the_key_number_is_compared_before_any_cryptography(monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("cryptography was tried")

    monkeypatch.setattr(signify.Ed25519PublicKey, "from_public_bytes", never)
    text = SecretKey.load(OTHER.secret).sign(MESSAGE)
    with pytest.raises(SigningKeyUntrusted, match=SecretKey.load(OTHER.secret).keynum.hex()):
        PublicKey.parse(PAIR.public).verify(MESSAGE, text)


def test_the_key_number_proves_nothing():
    """A stranger who gives his key the number of a trusted one is refused by the signature."""
    known, stranger = PublicKey.parse(PAIR.public), SecretKey.load(OTHER.secret)
    forged = SecretKey(known.keynum, stranger.seed, b"x").sign(MESSAGE)
    with pytest.raises(SignatureRejected) as refused:
        known.verify(MESSAGE, forged)
    assert type(refused.value) is SignatureRejected


def test_of_two_trusted_keys_with_one_number_the_right_one_is_found():
    one, two = SecretKey.load(PAIR.secret), SecretKey.load(OTHER.secret)
    two = SecretKey(one.keynum, two.seed, b"x")
    keys = [signify.TrustedKey("a", one.public_key), signify.TrustedKey("b", two.public_key)]
    for label, secret in (("a", one), ("b", two)):
        found = signify.verify_with_any(MESSAGE, secret.sign(MESSAGE), keys)
        assert found.label == label
    with pytest.raises(SignatureRejected, match=r"\(a, b\)"):
        signify.verify_with_any(b"other", one.sign(MESSAGE), keys)
    with pytest.raises(SigningKeyUntrusted):
        signify.verify_with_any(MESSAGE, one.sign(MESSAGE), [])


def test_a_signature_has_one_form_only():
    """S + L would satisfy the equation too: who keeps signatures may trust that it is refused."""
    secret, public = SecretKey.load(PAIR.secret), PublicKey.parse(PAIR.public)
    made = Signature.parse(secret.sign(MESSAGE))
    s = int.from_bytes(made.ed25519[32:], "little")
    other = made.ed25519[:32] + (s + ORDER).to_bytes(32, "little")
    with pytest.raises(SignatureRejected):
        public.verify(MESSAGE, Signature(made.keynum, other, b"x"))


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("point", sorted(signify._SMALL_ORDER), ids=lambda point: point.hex()[:8])
def test_a_key_by_which_anybody_can_sign_is_no_key(point: bytes, sign: int):
    point = point[:-1] + bytes([point[-1] | sign])
    # Without our check: of some hundred messages some "verify" with a signature of nobody.
    key = Ed25519PublicKey.from_public_bytes(point)
    assert any(_verifies(key, r, str(n).encode()) for n in range(100) for r in (point, ONE))
    body = base64.b64encode(b"Ed" + bytes(8) + point).decode()
    with pytest.raises(KeyMalformed, match="small order"):
        PublicKey.parse(f"untrusted comment: x\n{body}\n")


ONE = b"\x01" + bytes(31)


def _verifies(key: Ed25519PublicKey, r: bytes, message: bytes) -> bool:
    try:
        key.verify(r + bytes(32), message)
    except Exception:  # noqa: BLE001 - of whatever kind
        return False
    return True


# --- passphrases ---------------------------------------------------------------------------------


def test_a_passphrase_that_is_wrong_or_missing_opens_nothing():
    locked = signify.generate("locked", "correct horse").secret
    for passphrase in (None, "", "correct", "correct horse ", b"\xff", "\ud800", "x" * 2000):
        with pytest.raises(PassphraseWrong):
            SecretKey.load(locked, passphrase)
    assert SecretKey.load(locked, b"correct horse").seed == (
        SecretKey.load(locked, "correct horse").seed
    )


def test_an_empty_passphrase_is_not_one():
    with pytest.raises(PassphraseWrong):
        signify.generate("x", "")


def test_a_passphrase_that_is_not_needed_does_no_harm():
    assert SecretKey.load(PAIR.secret, "whatever").seed == SecretKey.load(PAIR.secret).seed


def test_a_key_that_asks_for_years_of_hashing_is_refused_at_once():
    body = bytearray(base64.b64decode(PAIR.secret.split("\n")[1]))
    body[4:8] = (signify.MAX_ROUNDS + 1).to_bytes(4, "big")
    with pytest.raises(KeyMalformed, match="rounds"):
        SecretKey.load(f"untrusted comment: x\n{base64.b64encode(body).decode()}\n", "x")


def test_neither_seed_nor_secret_file_is_shown():
    secret = SecretKey.load(PAIR.secret)
    for shown in (repr(secret), str(secret), repr(PAIR), str(PAIR)):
        assert secret.seed.hex() not in shown
        assert repr(secret.seed) not in shown
        assert PAIR.secret.split("\n")[1] not in shown


# --- the outer form ------------------------------------------------------------------------------

GOOD = SecretKey.load(PAIR.secret).sign(MESSAGE)
B64 = GOOD.split("\n")[1]


#: Numbered in the tests' names, for keys are random and names must not be.
NO_SIGNATURES = [
    "",
    "\n",
    B64 + "\n",
    f"trusted comment: x\n{B64}\n",
    f"untrusted comment:x\n{B64}\n",
    f"untrusted comment: \n{B64}\n",
    f"untrusted comment: {'x' * 1024}\n{B64}\n",
    f"untrusted comment: x\0y\n{B64}\n",
    f"untrusted comment: x\r\n{B64}\r\n",
    f"untrusted comment: x\n{B64}",
    f"untrusted comment: x\n{B64}\n\n",
    f"untrusted comment: x\n{B64}\nmore",
    f"untrusted comment: x\n {B64}\n",
    f"untrusted comment: x\n{B64[:-4]}\n",
    f"untrusted comment: x\n{B64[:40]}\n{B64[40:]}\n",
    f"untrusted comment: x\n{'!' * len(B64)}\n",
    # 74 bytes leave four unused bits in the last character: any other spelling is refused.
    f"untrusted comment: x\n{B64[:-2]}{chr(ord(B64[-2]) + 1)}=\n",
    f"\ufeffuntrusted comment: x\n{B64}\n",
    f"untrusted comment: \ud800\n{B64}\n",
    GOOD + GOOD,
    PAIR.public,
    PAIR.secret,
]


@pytest.mark.parametrize("number", range(len(NO_SIGNATURES)))
def test_what_is_not_a_signature_file_is_malformed(number: int):
    with pytest.raises(SignatureMalformed):
        PublicKey.parse(PAIR.public).verify(MESSAGE, NO_SIGNATURES[number])


def test_signatures_and_keys_are_not_taken_for_each_other():
    for text in (GOOD, PAIR.secret, "", GOOD.encode()):
        with pytest.raises(KeyMalformed):
            PublicKey.parse(text)
    for text in (GOOD, PAIR.public, ""):
        with pytest.raises(KeyMalformed):
            SecretKey.load(text)
        with pytest.raises(KeyMalformed):
            signify.needs_passphrase(text)


HOSTILE = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200),
    st.binary(max_size=120).map(
        lambda raw: b"untrusted comment: x\n" + base64.b64encode(raw) + b"\n"
    ),
    st.tuples(st.binary(max_size=40), st.sampled_from([42, 74, 104]), st.binary(max_size=9)).map(
        lambda parts: (
            b"untrusted comment: "
            + parts[0]
            + b"\n"
            + base64.b64encode((b"EdBK" + bytes(200))[: parts[1]])
            + b"\n"
            + parts[2]
        )
    ),
)


@given(HOSTILE)
@example(b"untrusted comment: x\n" + base64.b64encode(b"EdBK" + bytes(100)) + b"\n")
@settings(max_examples=400, deadline=None)
def test_whatever_the_bytes_the_answer_is_a_value_or_a_named_error(data):
    for read, errors in (
        (Signature.parse, SignatureMalformed),
        (Signature.parse_embedded, SignatureMalformed),
        (PublicKey.parse, KeyMalformed),
        (signify.needs_passphrase, KeyMalformed),
        (SecretKey.load, (KeyMalformed, PassphraseWrong)),
        (lambda text: PublicKey.parse(PAIR.public).verify(b"", text), SignatureRejected),
        (lambda text: signify.verify_with_any(b"", text, []), SignatureRejected),
    ):
        try:
            read(data)
        except errors as error:
            assert error.detail.isprintable() and len(error.detail) < 300


@given(
    st.binary(min_size=8, max_size=8), st.binary(min_size=64, max_size=64), st.binary(max_size=99)
)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_back(keynum: bytes, body: bytes, message: bytes):
    made = Signature(keynum, body, b"a comment")
    assert Signature.parse(made.to_bytes()) == made
    assert Signature.parse_embedded(made.to_bytes() + message) == (made, message)


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_ed25519_is_deterministic_so_files_can_be_compared(message: bytes):
    secret = SecretKey.load(PAIR.secret)
    assert secret.sign(message) == secret.sign(message)
    secret.public_key.verify(message, secret.sign(message))


# --- the directory of trusted keys ---------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With one good key, ``good``: whatever is beside it, it counts."""
    place = tmp_path / "trusted"
    place.mkdir(mode=0o755)
    write(place / "good.pub", PAIR.public)
    return place


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text)
    path.chmod(mode)


def problem(directory: Path) -> str:
    """The one problem's reason; the good key is trusted all the same."""
    found = trusted.read_trusted(directory)
    assert [key.label for key in found.keys] == ["good"]
    (one,) = found.problems
    assert one.code == "trusted_key_unusable"
    return f"{one.subject}: {one.detail}"


def test_keys_come_in_the_order_of_their_names_with_the_file_as_label(directory: Path):
    write(directory / "a-2026.01_x@host+1.pub", OTHER.public)
    write(directory / "readme.txt", "not looked at")
    found = trusted.read_trusted(directory)
    assert [key.label for key in found.keys] == ["a-2026.01_x@host+1", "good"]
    assert found.keys[1].public_key == PublicKey.parse(PAIR.public)
    assert found.problems == ()


def test_no_directory_trusts_nobody():
    assert trusted.read_trusted(None) == trusted.TrustedKeys((), ())


def test_a_link_is_not_followed(directory: Path, tmp_path: Path):
    write(tmp_path / "elsewhere", OTHER.public)
    (directory / "link.pub").symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in problem(directory)


def test_a_fifo_does_not_hold_up_the_others(directory: Path):
    os.mkfifo(directory / "fifo.pub")
    assert "not a regular file" in problem(directory)


def test_a_directory_with_a_keys_name_is_none(directory: Path):
    (directory / "dir.pub").mkdir()
    assert "not a regular file" in problem(directory)


def test_a_long_file_is_not_read(directory: Path):
    write(directory / "long.pub", OTHER.public + " " * 4096)
    assert "longer than 4096" in problem(directory)


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_can_write_is_not_trusted(directory: Path, mode: int):
    write(directory / "open.pub", OTHER.public, mode)
    assert "can write" in problem(directory)


def test_a_file_of_somebody_else_is_not_trusted(directory: Path):
    write(directory / "theirs.pub", OTHER.public)
    os.chown(directory / "theirs.pub", 12345, 0)
    assert "owned by user 12345" in problem(directory)


@pytest.mark.parametrize("name", [".hidden.pub", "-n.pub", "a b.pub", "ä.pub", "x" * 65 + ".pub"])
def test_an_odd_name_is_a_problem(directory: Path, name: str):
    write(directory / name, OTHER.public)
    assert "other characters" in problem(directory)


def test_a_name_that_is_not_text_is_a_problem_that_can_be_shown(directory: Path):
    odd = os.fsencode(directory) + b"/\xff\xfe.pub"
    with open(odd, "w") as file:  # noqa: PTH123 - bytes
        file.write(OTHER.public)
    problem(directory).encode()


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", OTHER.secret, GOOD, OTHER.public + "x"],
    ids=["empty", "nonsense", "a secret key", "a signature", "more behind it"],
)
def test_what_is_no_public_key_is_a_problem(directory: Path, text: str):
    write(directory / "odd.pub", text)
    assert "not a signify key" in problem(directory)


def test_a_directory_that_others_can_write_trusts_nobody(directory: Path):
    directory.chmod(0o777)
    found = trusted.read_trusted(directory)
    assert found.keys == () and "can write" in found.problems[0].detail


def test_a_directory_of_somebody_else_trusts_nobody(directory: Path):
    os.chown(directory, 12345, 0)
    found = trusted.read_trusted(directory)
    assert found.keys == () and "12345" in found.problems[0].detail


def test_a_directory_that_is_not_there_trusts_nobody_and_says_so(tmp_path: Path):
    for place in (tmp_path / "gone", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        found = trusted.read_trusted(place)
        assert found.keys == () and "cannot be read" in found.problems[0].detail


def test_a_file_that_the_server_may_not_read_is_a_problem(directory: Path):
    """Asked by a process that is not root, for which every file is open."""
    write(directory / "closed.pub", OTHER.public, 0o600)
    code = (
        "import os, sys; from pathlib import Path; from templates_app.trust import trusted\n"
        "place = os.open(sys.argv[1], os.O_RDONLY); os.fchdir(place)\n"
        "os.setgid(12345); os.setuid(12345)\n"
        "found = trusted.read_trusted(Path('.'))\n"
        "print([key.label for key in found.keys], *(one.detail for one in found.problems))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['good'] Not used: it cannot be opened (Permission denied).\n"


def test_a_problem_is_logged_once_and_again_when_it_comes_back(directory: Path, caplog):
    write(directory / "odd.pub", "nonsense")
    for _ in range(3):
        assert [key.label for key in trusted.load_trusted(directory)] == ["good"]
    assert caplog.text.count("odd.pub") == 1
    (directory / "odd.pub").unlink()
    trusted.load_trusted(directory)
    write(directory / "odd.pub", "nonsense")
    trusted.load_trusted(directory)
    assert caplog.text.count("odd.pub") == 2


def test_a_file_is_read_again_when_anything_about_it_changes(directory: Path, monkeypatch):
    read = []
    real = trusted._read_one
    monkeypatch.setattr(trusted, "_read_one", lambda path: read.append(path.name) or real(path))
    monkeypatch.setattr(trusted, "_known_files", trusted._KnownFiles())
    good, other = directory / "good.pub", directory / "other"

    def keys() -> list[str]:
        return [key.public_key.key_id for key in trusted.read_trusted(directory).keys]

    first = keys()
    assert keys() == first and len(read) == 2, "what has just changed is not believed"
    monkeypatch.setattr(trusted._KnownFiles, "SETTLED", -(10**12))
    keys()
    read.clear()
    assert keys() == first and read == []
    # Other content of the same size, in place, with the old times put back.
    times = good.stat()
    with good.open("r+") as file:
        file.write(OTHER.public)
        file.truncate()
    os.utime(good, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert keys() != first and read == ["good.pub"]
    write(other, PAIR.public)
    other.rename(good)
    assert keys() == first
    good.chmod(0o666)
    assert keys() == []
    good.chmod(0o644)
    assert keys() == first
    good.unlink()
    assert keys() == []


@pytest.mark.parametrize("make", ["link", "fifo", "long", "gone"])
def test_a_secret_key_is_read_from_a_plain_file_alone(tmp_path: Path, make: str):
    path, real = tmp_path / "k.sec", tmp_path / "real"
    real.write_text(PAIR.secret)
    match make:
        case "link":
            path.symlink_to(real)
        case "fifo":
            os.mkfifo(path)
        case "long":
            path.write_text("x" * 5000)
    with pytest.raises(KeyMalformed):
        signify.read_secret(path)
    with pytest.raises(KeyMalformed):
        signify.read_secret(Path("/a\0b"))
    assert signify.read_secret(real).decode() == PAIR.secret
