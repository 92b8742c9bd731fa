"""What the page is told about one position in a text, piece by piece, so that it can show the writing as it happens.

Every piece is a dictionary of plain values, by its ``kind`` ::

    read        a window: its tokens, bits retained, bits there were to retain       (text, then changed)
    moved       how far each part of the memory is from that of the changed text     (if there is one)
    writing     the reconstruction so far                                            (text, then changed)
    written     all of it, aligned with the window                                   (text, then changed)
    compared    whether the decoder's writing changed                                (if there is one)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from mnemoscope.memory.describe import describe
from mnemoscope.playground import places
from mnemoscope.playground.places import Change, Place
from mnemoscope.playground.session import CHARACTERS, Reading, Session, moved
from mnemoscope.report import words
from mnemoscope.report.browser import pieces, wholes
from mnemoscope.text.tokens import Encoding

Piece = dict[str, Any]

#: characters shown before and after a window
AROUND = 160
#: tokens between two looks at the writing
STRIDE = 8
#: what became of a token of the window, by the alignment of least edits
KEPT, ALTERED, LOST = "kept", "altered", "lost"
#: conditions that the report has no words for
WORDS = {
    "memory": "the memory as it is",
    "none": "nothing: what can be guessed",
    "wrong": "the memory of another text",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A position in a text, and what to do there.

    Attributes:
        changed: the text with something changed; None for no comparison.
        position: tokens before it; None for the end of the text.
        length: of the windows that are looked at, in tokens.
    """

    text: str
    changed: str | None
    decoder: str
    condition: str
    length: int
    position: int | None


def about(session: Session) -> Piece:
    """What there is to choose from, once for all."""
    adapter = session.shop.loaded.adapter
    return {
        "model": session.shop.model_name,
        "numbers": describe(adapter)[-1].numbers,
        "characters": CHARACTERS,
        "examples": [{"name": name, "text": d.text} for name, d in session.examples.items()],
        "decoders": [
            {
                "name": name,
                "lengths": session.lengths(name),
                "conditions": [{"name": c, "words": said(c)} for c in session.conditions(name)],
            }
            for name in session.decoders
        ],
    }


def said(condition: str) -> str:
    """What the decoder starts from, in words."""
    own = condition.partition("@")[0]
    return WORDS.get(own) or words.given(own) or own


def play(session: Session, asked: Asked) -> Iterator[Piece]:
    """Everything about one position, in the order of the module's list.

    Raises:
        MnemoscopeError: before the first piece, whatever is wrong with what was asked.
    """
    texts, encodings = [asked.text], [session.encode(asked.text)]
    here = [session.place(encodings[0], asked.decoder, asked.length, asked.position)]
    what: Change | None = None
    if asked.changed is not None:
        texts.append(asked.changed)
        encodings.append(session.encode(asked.changed, "the changed text"))
        what = places.change(encodings[0].ids.tolist(), encodings[1].ids.tolist())
        here.append(session.counterpart(here[0], what, encodings[1], asked.decoder, asked.length))
    readings = []
    for text, encoding, place in zip(texts, encodings, here, strict=True):
        window = session.window(encoding, place)
        reading = session.read(window, asked.decoder, asked.condition, asked.length)
        readings.append(reading)
        of = "changed" if len(readings) == 2 else "text"
        span = None if what is None else (what.first, what.after_end if of == "changed" else what.before_end)
        least = session.range(asked.decoder, asked.length)[0]
        yield {"kind": "read", "of": of, "least": least, **_read(session, text, encoding, place, reading, span)}
    if what is not None:
        yield {"kind": "moved", "parts": _moved(session, *readings)}
    outputs: list[list[int]] = []
    for reading, of in zip(readings, ("text", "changed"), strict=False):
        # a change that lies elsewhere leaves the same window, and so the same writing
        same = bool(outputs) and not _differ(readings)
        written: list[int] = []
        for token in outputs[0] if same else reading.write():
            written.append(token)
            if len(written) % STRIDE == 0 and not same:
                yield {"kind": "writing", "of": of, "tokens": len(written), "text": _text(session, written)}
        outputs.append(written)
        text = texts[len(outputs) - 1]
        yield {"kind": "written", "of": of, **_written(session, reading, written, _pieces(text, reading))}
    if what is not None:
        yield {"kind": "compared", **compared(what, here, readings, outputs)}


def _pieces(text: str, reading: Reading) -> list[str]:
    start, end = reading.window.char_start.tolist(), reading.window.char_end.tolist()
    return pieces(text[start[0] : end[-1]], start, end)


def _read(
    session: Session, text: str, encoding: Encoding, place: Place, reading: Reading, span: tuple[int, int] | None
) -> Piece:
    window, bits = reading.window, reading.bits
    first, last = int(window.char_start[0]), int(window.char_end[-1])
    inside = range(0) if span is None else range(max(0, span[0] - place.first), min(span[1], place.end) - place.first)
    prior = None if reading.prior is None else reading.prior / math.log(2)
    return {
        "tokens": len(encoding.ids),
        "first": place.first,
        "position": place.end,
        "before": text[max(0, first - AROUND) : first],
        "after": text[last : last + AROUND],
        "pieces": _pieces(text, reading),
        "changes": list(inside),
        "bits": None if bits is None else _plain(bits),
        "prior": None if prior is None else _plain(prior),
        "kept_bits": None if bits is None else _finite(bits.sum()),
        "prior_bits": None if prior is None else _finite(prior.sum()),
    }


def _moved(session: Session, before: Reading, after: Reading) -> list[Piece]:
    window = before.window
    stranger = session.memory(session.stranger(window))
    shares = moved(session.memory(window), session.memory(after.window), stranger)
    named = [(name.split(".", 2), share) for name, share in shares.items()]
    return [{"layer": int(layer), "part": part, "share": _finite(share)} for (_, layer, part), share in named]


def _written(session: Session, reading: Reading, written: list[int], shown: list[str]) -> Piece:
    """Of tokens that are shown as one, the first of ``partners`` is what was written for all."""
    operations, partners = aligned(reading.window.token_ids.tolist(), written)
    spelt = [""] * len(partners)
    for whole in wholes(shown):
        spelt[whole.start] = _text(session, [found for i in whole if (found := partners[i]) is not None])
    kept = operations.count(KEPT)
    return {"text": _text(session, written), "operations": operations, "partners": spelt, "kept": kept}


def aligned(source: list[int], written: list[int]) -> tuple[list[str], list[int | None]]:
    """What became of each token of a window, and the token that stands at its place: itself if it was kept, None if it
    was lost.  The alignment is that of ``score.align``."""
    operations, partners = [KEPT] * len(source), list[int | None](source)
    for op in Levenshtein.opcodes(source, written):
        if op.tag == "replace":
            operations[op.src_start : op.src_end] = [ALTERED] * (op.src_end - op.src_start)
            partners[op.src_start : op.src_end] = written[op.dest_start : op.dest_end]
        elif op.tag == "delete":
            operations[op.src_start : op.src_end] = [LOST] * (op.src_end - op.src_start)
            partners[op.src_start : op.src_end] = [None] * (op.src_end - op.src_start)
    return operations, partners


def compared(what: Change, here: list[Place], readings: list[Reading], outputs: list[list[int]]) -> Piece:
    """Whether the decoder's writing shows the change.

    ``inside``: whether any of what was changed lies in what was read.  ``put_in``: tokens of the changed text's window
    that were put in, ``found`` of them kept.  ``differing``: edits of tokens between the two reconstructions.
    """
    span = range(max(here[1].first, what.first), min(here[1].end, what.after_end))
    operations, _ = aligned(readings[1].window.token_ids.tolist(), outputs[1])
    return {
        "inside": _differ(readings),
        "put_in": len(span),
        "found": sum(operations[i - here[1].first] == KEPT for i in span),
        "differing": Levenshtein.distance(*outputs),
    }


def _differ(readings: list[Reading]) -> bool:
    before, after = (r.window.token_ids.tolist() for r in readings)
    return bool(before != after)


def _text(session: Session, ids: list[int]) -> str:
    return str(session.shop.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _plain(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [_finite(v) for v in values.tolist()]


def _finite(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return round(float(value), 4) if math.isfinite(value) else None
