"""How far an import is: what engines report, summed up for those who watch.

An engine reports a step of the whole work, or of one layer. A lease's row has both: the sum in
``stage``, ``done``, ``total``, ``unit``, and ``layers``, an object for each, as the API gives it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from templates_app.sources.base import Progress


@dataclass(slots=True)
class _Layer:
    number: int  # from 1, the base first
    state: str = "waiting"  # then pull, copy, done; or kept: an earlier import had left it
    bytes: int = 0  # as transferred
    total: int | None = None
    entries: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "layer": self.number,
            "state": self.state,
            "bytes": self.bytes,
            "totalBytes": self.total,
            "entries": self.entries,
        }


@dataclass(slots=True)
class Tally:
    stage: str = "resolve"
    done: int = 0
    total: int | None = None
    unit: str = "steps"
    _layers: list[_Layer] = field(default_factory=list)

    def layers(self) -> list[dict[str, Any]]:
        return [layer.to_json() for layer in self._layers]

    def take(self, progress: Progress) -> None:
        if progress.layer is not None:
            self._take_layer(progress, progress.layer)
            return
        self.stage, self.unit = progress.stage, progress.unit
        self.done, self.total = progress.done, progress.total
        if progress.stage not in ("pull", "copy"):
            self._pass(self._layers)

    def _take_layer(self, progress: Progress, index: int) -> None:
        if not self._layers:
            # Engines begin with the lowest layer that they have anything to do for.
            self._layers = [_Layer(1 + i) for i in range(progress.layers or index + 1)]
            self._pass(self._layers[:index])
        layer = self._layers[index]
        if progress.unit == "bytes":
            layer.bytes, layer.total = progress.done, progress.total
            if layer.state == "waiting" and layer.bytes:
                layer.state = "pull"
        else:
            layer.entries = progress.done
            layer.state = "done" if progress.done == progress.total else "copy"
            # They are written one after the other: those below are done.
            self._pass(self._layers[:index])
        self._sum()

    def _pass(self, layers: list[_Layer]) -> None:
        for layer in layers:
            if layer.state == "waiting":
                layer.state = "kept"
            elif layer.state != "kept":
                layer.state = "done"

    def _sum(self) -> None:
        """Bytes while any are to come, then entries: downloads and writing overlap."""
        live = [layer for layer in self._layers if layer.state != "kept"]
        totals = [layer.total for layer in live if layer.total is not None]
        done = sum(layer.bytes for layer in live)
        if len(totals) == len(live) and done >= sum(totals):
            self.stage, self.unit = "copy", "entries"
            self.done, self.total = sum(layer.entries for layer in live), None
        else:
            self.stage, self.unit = "pull", "bytes"
            self.done, self.total = done, sum(totals) if len(totals) == len(live) else None
