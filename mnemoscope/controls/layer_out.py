"""``layer_out:k``: the whole memory but for layer k, counted from 0, which is zero: what only this layer holds."""

from __future__ import annotations

from mnemoscope.controls._altered import SomeLayers, layer_of, matched


class LayerOut(SomeLayers):
    example = "0"

    def __init__(self, argument: str):
        self.highest = int(matched(r"0|[1-9]\d*", argument, "layer_out", "the number of a layer", self.example)[0])
        super().__init__(f"layer_out:{argument}")

    def keeps(self, part: str) -> bool:
        return layer_of(part) != self.highest


CONDITION = LayerOut
