"""An image's layers on their way to the reader: a few are downloaded at once, each in its thread.

A layer that is in the cache goes to the reader as a descriptor of its file. One that is still
coming goes through a pipe, byte by byte as it comes, so that unpacking does not wait for the
download; the pipe ends after the verdict on the blob, and without one it does not end.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from templates_app.errors import CoppiceError
from templates_app.sources.base import Layer
from templates_app.sources.native import wire
from templates_app.sources.native.cache import BlobCache, Blobs
from templates_app.sources.native.incoming import Cancelled, Incoming
from templates_app.sources.native.wire import Say

AT_ONCE = 4  # downloads
_COPY = 256 * 1024  # bytes


@dataclass(slots=True)
class Delivery:
    """The layers from ``first`` on. ``on_change`` is called, in any thread, when there is news."""

    layers: Sequence[Layer]
    first: int
    cache: BlobCache
    blobs: Blobs
    on_change: Callable[[], None]
    tell_each: bool  # the reader tells of the tree after each layer, else after the last
    error: BaseException | None = None
    handed: int = 0  # the layer that the reader was handed last
    here: list[int] = field(default_factory=list)  # bytes of each layer that have come
    incoming: list[Incoming] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AT_ONCE))
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self, reader: socket.socket) -> None:
        self.here = [0] * len(self.layers)
        for number, layer in enumerate(self.layers):
            self.incoming.append(self._make(number, layer))
        self._begin(lambda: self._bring_all())
        self._begin(lambda: self._hand_over_all(reader))

    def _make(self, number: int, layer: Layer) -> Incoming:
        def here(count: int) -> None:
            self.here[number] = count
            self.on_change()

        def download(offset: int) -> Any:
            return self.blobs.blob(layer.digest, layer.size, offset=offset)

        return Incoming(self.cache, layer.digest, layer.size, download, here)

    @property
    def complete(self) -> bool:
        return self.here[self.first :] == [layer.size for layer in self.layers[self.first :]]

    @property
    def fetched(self) -> int:
        return sum(one.fetched for one in self.incoming)

    @property
    def cached(self) -> int:
        return sum(one.cached for one in self.incoming)

    def verdict(self, seconds: float) -> BaseException | None:
        """What is wrong with the download of the layer that the reader has, waiting for its end."""
        return self.error or self.incoming[self.handed].verdict(seconds)

    def stop(self) -> None:
        """All threads are over, whatever they did. What has come stays in the cache."""
        self._stopped.set()
        for one in self.incoming:
            one.cancel()
        for thread in self._threads:
            thread.join()
        for one in self.incoming:
            one.close()

    # --- threads ---------------------------------------------------------------------------------

    def _begin(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except (Cancelled, wire.Broken):
                pass  # we were stopped; or the reader is gone, and whoever watches it knows
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits for us
                self.error = self.error or error
                self.on_change()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _bring_all(self) -> None:
        for one in self.incoming[self.first :]:
            self._slots.acquire()
            if self._stopped.is_set():
                return
            self._begin(lambda one=one: self._bring(one))  # type: ignore[misc]

    def _bring(self, one: Incoming) -> None:
        try:
            one.run()
        finally:
            self._slots.release()

    def _hand_over_all(self, reader: socket.socket) -> None:
        last = len(self.layers) - 1
        for number in range(self.first, len(self.layers)):
            layer, incoming = self.layers[number], self.incoming[number]
            self.handed = number
            said = {
                "layer": number,
                "media_type": layer.media_type,
                "diff_id": str(layer.diff_id),
                "tell": self.tell_each or number == last,
            }
            self._hand_over(reader, incoming, said)
        wire.say(reader, Say.LAST)

    def _hand_over(self, reader: socket.socket, incoming: Incoming, said: dict[str, Any]) -> None:
        if incoming.wait(0) == incoming.size and (file := self.cache.open(incoming.digest)):
            with file:
                wire.say(reader, Say.LAYER, said, fd=file.fileno())
            return
        reads, writes = os.pipe()
        try:
            wire.say(reader, Say.LAYER, said, fd=reads)
            os.close(reads)
            reads = -1
            send = wire.sender(writes)
            with incoming.stream() as stream:
                while data := stream.read(_COPY):
                    send(data)
        except CoppiceError as error:
            # Before the pipe closes: the reader will take its end for a blob that is cut off.
            self.error = self.error or error
            raise
        finally:
            os.close(writes)
            if reads >= 0:
                os.close(reads)
