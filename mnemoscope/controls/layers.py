"""``layers:a-b``: the memory of layers a to b, both included and counted from 0; that of all others zero."""

from __future__ import annotations

from mnemoscope.controls._altered import SomeLayers, layer_of, matched
from mnemoscope.errors import ConfigError


class Layers(SomeLayers):
    example = "0-1"

    def __init__(self, argument: str):
        number = r"(0|[1-9]\d*)"
        found = matched(f"{number}-{number}", argument, "layers", "a first and a last layer", self.example)
        self.first, self.highest = int(found[1]), int(found[2])
        if self.first > self.highest:
            raise ConfigError(
                f"the condition 'layers:{argument}' ends before it begins",
                remedy=f"Write layers:{self.highest}-{self.first}",
            )
        super().__init__(f"layers:{argument}")

    def keeps(self, part: str) -> bool:
        return self.first <= layer_of(part) <= self.highest


CONDITION = Layers
