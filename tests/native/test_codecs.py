"""Layers uncompressed: to the true end, within bounds, and every complaint has its name."""

import bz2
import dataclasses
import gzip
import hashlib
import io
import itertools
import random
import tracemalloc

import pytest
import zstandard

from templates_app.errors import PullFailed, TreeRefused
from templates_app.sources.native import codecs
from tests.native.archives import LIMITS

OCI = "application/vnd.oci.image.layer.v1.tar"
DATA = random.Random(7).randbytes(200_000) + bytes(700_000) + b"the end"


def zstd(data, **options):
    return zstandard.ZstdCompressor(level=3, **options).compress(data)


def skippable(size):
    return b"\x5a\x2a\x4d\x18" + size.to_bytes(4, "little") + bytes(size)


class Dripping(io.RawIOBase):
    """Gives what it has in pieces of a few bytes, as a blob that is still coming may."""

    def __init__(self, data):
        self.data, self.at, self.sizes = data, 0, itertools.cycle((1, 2, 3, 700))

    def read(self, size, /):
        piece = self.data[self.at : self.at + min(size, next(self.sizes))]
        self.at += len(piece)
        return piece


def unpack(blob, media_type, limits=LIMITS):
    layer = codecs.Layer(blob if hasattr(blob, "read") else io.BytesIO(blob), media_type, limits)
    out = b""
    while data := layer.chunk():
        assert len(data) <= codecs.CHUNK
        out += data
    return out, layer


def window(log):
    """A frame that asks for 2**log bytes of window, and has 8 bytes."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([(log - 10) << 3]) + b"\x41\x00\x00contents"


def drain(blob, media_type, limits):
    layer = codecs.Layer(io.BytesIO(blob), media_type, limits)
    while layer.chunk():
        pass


@pytest.mark.parametrize("source", [io.BytesIO, Dripping])
@pytest.mark.parametrize(
    ("media_type", "blob"),
    [
        (OCI, DATA),
        (OCI, b""),
        (OCI + "+gzip", gzip.compress(DATA)),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress(DATA)),
        (OCI + "+gzip", gzip.compress(DATA) + bytes(1000)),
        (OCI + "+gzip", b"".join(gzip.compress(DATA[i : i + 999]) for i in range(0, 900_007, 999))),
        (OCI + "+gzip", gzip.compress(b"") * 3 + gzip.compress(DATA)),
        (OCI + "+zstd", zstd(DATA)),
        (OCI + "+zstd", zstd(DATA, write_checksum=True, write_content_size=False)),
        (
            OCI + "+zstd",
            skippable(9) + zstd(DATA[:5]) + skippable(0) + zstd(DATA[5:]) + skippable(99_999),
        ),
        (OCI + "+zstd", zstd(b"") + zstd(DATA)),
    ],
)
def test_a_layer_is_read_to_its_true_end(source, media_type, blob):
    out, layer = unpack(source(blob), media_type)
    expected = b"" if not blob else DATA
    assert out == expected
    assert layer.diff_id == "sha256:" + hashlib.sha256(expected).hexdigest()
    assert (layer.compressed, layer.uncompressed) == (len(blob), len(expected))


def test_there_is_no_diff_id_before_the_end():
    layer = codecs.Layer(io.BytesIO(gzip.compress(DATA)), OCI + "+gzip", LIMITS)
    layer.chunk()
    with pytest.raises(ValueError, match="not read to its end"):
        layer.diff_id  # noqa: B018 - raises


@pytest.mark.parametrize(
    ("media_type", "blob"),
    [
        (OCI, gzip.compress(DATA)),
        (OCI, zstd(DATA)),
        (OCI, skippable(4)),
        (OCI + "+gzip", zstd(DATA)),
        (OCI + "+gzip", DATA),
        (OCI + "+gzip", bz2.compress(DATA)),
        (OCI + "+gzip", b""),
        (OCI + "+zstd", gzip.compress(DATA)),
        # What comes behind, and is neither padding nor another member.
        (OCI + "+gzip", gzip.compress(DATA) + b"x"),
        (OCI + "+gzip", gzip.compress(DATA) + bytes(9) + b"x"),
        (OCI + "+gzip", gzip.compress(DATA) + bytes(9) + gzip.compress(DATA)),
        (OCI + "+gzip", gzip.compress(DATA) + b"\x1f"),
        (OCI + "+zstd", zstd(DATA) + bytes(8)),
        (OCI + "+zstd", zstd(DATA) + gzip.compress(DATA)),
    ],
)
@pytest.mark.parametrize("source", [io.BytesIO, Dripping])
def test_what_is_not_as_the_media_type_says_is_refused(source, media_type, blob):
    with pytest.raises(TreeRefused) as refused:
        unpack(source(blob), media_type)
    assert refused.value.extra["rule"] == "compression"


def broken_at(blob, at):
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


PACKED, FRAME = gzip.compress(DATA), zstd(DATA, write_checksum=True)
SIZELESS = zstd(DATA, write_content_size=False)
REPEATED = window(27)


def block(kind, size):
    """The header of a frame's last block."""
    return (size << 3 | kind << 1 | 1).to_bytes(3, "little")


@pytest.mark.parametrize(
    ("media_type", "blob"),
    [
        *((OCI + "+gzip", PACKED[:-cut]) for cut in (1, 8, 9, 1000, len(PACKED) - 4)),
        *((OCI + "+zstd", FRAME[:-cut]) for cut in (1, 4, 5, 1000, len(FRAME) - 4)),
        (OCI + "+zstd", FRAME + FRAME[:2]),
        (OCI + "+zstd", FRAME + skippable(50)[:-1]),
        *((OCI + "+gzip", broken_at(PACKED, at)) for at in (2, 5000, -1, -8)),
        *((OCI + "+zstd", broken_at(FRAME, at)) for at in (5000, -1)),
        (OCI + "+zstd", SIZELESS[:6] + block(0, 2**21 - 1) + SIZELESS[9:]),
        (OCI + "+zstd", REPEATED[:6] + block(1, 2**17 + 1) + b"x"),
        (OCI + "+zstd", SIZELESS[:6] + block(3, 5) + SIZELESS[9:]),  # of no kind that there is
    ],
)
@pytest.mark.parametrize("source", [io.BytesIO, Dripping])
def test_what_is_damaged_or_cut_off_is_corrupt(source, media_type, blob):
    with pytest.raises(PullFailed) as failed:
        unpack(source(blob), media_type)
    assert failed.value.reason == "corrupt"


def limits(**fields):
    return dataclasses.replace(LIMITS, **fields)


@pytest.mark.parametrize(
    ("rule", "media_type", "blob", "within"),
    [
        ("ratio", OCI + "+gzip", gzip.compress(bytes(70 << 20)), limits(ratio=2000)),
        ("ratio", OCI + "+zstd", zstd(bytes(70 << 20)), limits(ratio=70 << 10)),
        ("layer-bytes", OCI, DATA, limits(tree_bytes=len(DATA) - 4096, entries=1)),
        ("window", OCI + "+zstd", window(28), None),
    ],
)
def test_a_bomb_is_refused_before_it_goes_off(rule, media_type, blob, within):
    hard = limits(tree_bytes=len(DATA) - 4097, entries=1) if rule == "layer-bytes" else LIMITS
    tracemalloc.start()
    with pytest.raises(TreeRefused) as refused:
        drain(blob, media_type, hard)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert refused.value.extra["rule"] == rule in codecs.RULES
    if within:
        drain(blob, media_type, within)


def test_a_large_window_is_fine_up_to_what_the_program_calls_long():
    drain(window(27), OCI + "+zstd", LIMITS)


def test_a_blob_that_cannot_be_read_says_so_itself():
    class Failing(io.BytesIO):
        def read(self, size=-1, /):
            if data := super().read(size):
                return data
            raise PullFailed("The connection broke.", reason="unreachable")

    for media_type, blob in (
        (OCI, DATA),
        (OCI + "+gzip", PACKED[:-9]),
        (OCI + "+zstd", FRAME[:-9]),
    ):
        with pytest.raises(PullFailed, match="connection broke"):
            unpack(Failing(blob), media_type)
