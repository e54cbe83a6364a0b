"""The images that imports are measured with, the same bytes on every run."""

from __future__ import annotations

import random
from collections.abc import Iterator

from isal import igzip

from deploy import images, userland
from deploy.images import Document, Entry, Layer

FILES, UPPER = 50_000, 500  # of `small`: in all its layers, and in the uppermost alone
BIG_FILES, BIG_BYTES = 60_000, 1_000_000_000


def debian() -> Document:
    """A minimal Debian root with languages and locales: some 11,000 entries, 3 layers."""
    return userland.large()


def small_base() -> list[Layer]:
    """Four layers of small files, which images over the same base share."""
    each = (FILES - UPPER) // 4
    return [_layer(_files(f"srv/base-{layer}", each, seed=layer)) for layer in range(4)]


def small(base: list[Layer], number: int = 0) -> Document:
    """50,000 small files in 5 layers; another number is another image, of the same base."""
    upper = _layer(_files(f"srv/upper-{number}", UPPER, seed=1000 + number))
    return images.image([*base, upper])


def big() -> Document:
    """60,000 entries, 1 GB that does not compress: most files small, half of the bytes in large."""
    large = 100
    sizes = [BIG_BYTES // 2 // large] * large
    sizes += [BIG_BYTES // 2 // (BIG_FILES - large)] * (BIG_FILES - large)
    numbers = random.Random(7)
    numbers.shuffle(sizes)
    layers = []
    for layer in range(5):
        part = sizes[layer::5]
        layers.append(_layer(_contents(f"srv/big-{layer}", (numbers.randbytes(n) for n in part))))
    return images.image(layers)


def tiny() -> Document:
    """To warm programs up with."""
    return images.image([_layer(_files("srv/tiny", 10, seed=99))])


def _files(below: str, count: int, seed: int) -> Iterator[Entry]:
    """Of 100 to 1,400 bytes that compress to half, like text does at least."""
    numbers = random.Random(seed)
    return _contents(
        below, (numbers.randbytes(numbers.randint(50, 700)).hex().encode() for _ in range(count))
    )


def _contents(below: str, contents: Iterator[bytes]) -> Iterator[Entry]:
    """A hundred files a directory, as packages of languages have them."""
    yield images.directory(below)
    for number, content in enumerate(contents):
        place = f"{below}/package-{number // 100:04}"
        if number % 100 == 0:
            yield images.directory(place)
        yield images.file(f"{place}/module_{number % 100:02}.py", content)


def _layer(entries: Iterator[Entry]) -> Layer:
    plain = images.tar(entries)
    return Layer(igzip.compress(plain, 1, mtime=0), images.sha256(plain))
