"""The wrong memory: the decoder trained on real memories starts from the memory of another window of the same length.

What it recovers here it recovers from the language, not from the memory; where it does worse than ``none``, it trusted
the memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from mnemoscope.controls.memory import RealMemory
from mnemoscope.errors import TextError
from mnemoscope.types import Window


class WrongMemory(RealMemory):
    def windows_to_read(self, windows: Sequence[Window]) -> Sequence[Window]:
        """Pairs each window with one of another document where there is one, else of another place in its document.

        Windows are laid in document order and shifted by the largest number of windows that any document has, so
        that no window meets its own document unless one document holds more than half of all windows.
        """
        if len(windows) < 2:
            raise TextError(
                f"the condition 'wrong' needs two windows of a length, there is {len(windows)}",
                remedy="Measure more text, or leave 'wrong' out of the study's conditions",
            )
        order = sorted(range(len(windows)), key=lambda i: (windows[i].doc_id, windows[i].window_id))
        counts: dict[str, int] = {}
        for window in windows:
            counts[window.doc_id] = counts.get(window.doc_id, 0) + 1
        shift = max(counts.values()) if len(counts) > 1 else 1
        shift = shift % len(windows) or 1
        partner: list[Window] = list(windows)
        for place, index in enumerate(order):
            partner[index] = windows[order[(place + shift) % len(order)]]
        return partner


CONDITION = WrongMemory()
