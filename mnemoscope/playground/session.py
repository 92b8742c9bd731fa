"""A text to tokens, a window of it to a memory, the memory to what a decoder writes back; no browser in sight.

The numbers are those that a run's measuring gives for the same window, condition and decoder: bits retained of a token
are (nats under ``none`` - nats under the condition) / ln 2.  They are facts about one window and have no interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mnemoscope import config, plugins, zoo
from mnemoscope.codec.decoder import Decoder
from mnemoscope.errors import ConfigError, ModelError, TextError
from mnemoscope.memory.memory import Memory
from mnemoscope.playground import places
from mnemoscope.playground.places import Change, Place
from mnemoscope.rundir import RunDir
from mnemoscope.text import corpora
from mnemoscope.text.tokens import Encoding, encode
from mnemoscope.train import decoders
from mnemoscope.types import Document, IntArray, Window
from mnemoscope.workshop import Workshop

#: longest text that is taken, in characters and in tokens
CHARACTERS, TOKENS = 20_000, 20_000
#: decoders that are kept loaded, at most
LOADED = 4
#: conditions that need no decoder but the one trained under ``memory``, beside the layers' own
SCREENS = ("ssm_only", "conv_only", "bits:8", "bits:4", "bits:3", "bits:2", "noise:0.1", "noise:0.5", "random_encoder")

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One window as a decoder met it under a condition.

    Attributes:
        handed: what the decoder started from, of one window.
        nats: -ln p of each true token under teacher forcing, float64 [L].
        prior: the same under ``none``; None where no such decoder was trained.
        predicted: most likely token at each place and after the last, int64 [L + 1].
    """

    window: Window
    decoder: Decoder
    handed: Memory
    nats: FloatArray
    prior: FloatArray | None
    predicted: IntArray

    @property
    def bits(self) -> FloatArray | None:
        """Bits retained of each token [L]; None where nothing says what could be guessed."""
        return None if self.prior is None else (self.prior - self.nats) / math.log(2)

    def write(self) -> Iterator[int]:
        """The greedy reconstruction, token after token: up to and without EOS, or ``2 * L`` tokens."""
        ids, decoder = self.window.token_ids, self.decoder
        if (self.predicted == np.append(ids, decoder.eos)).all():
            # told the tokens before, it predicts the window's own to the end: it writes them untold, too
            yield from ids.tolist()
            return
        token = torch.full((1,), decoder.bos, device=decoder.device)
        with torch.no_grad():
            state = decoder.start(self.handed, 2 * len(ids))
        for _ in range(2 * len(ids)):
            with torch.no_grad():
                logits, state = decoder.step(state, token)
            token = logits.argmax(-1)
            if token.item() == decoder.eos:
                return
            yield int(token.item())


class Session:
    """A model and its decoders, ready to be played with.

    Args:
        shop: of a run whose decoders are trained.

    Raises:
        MnemoscopeError: a decoder is missing, or belongs to another encoder.
    """

    def __init__(self, shop: Workshop):
        self.shop, self.study = shop, shop.study
        self.decoders = {d.name: d for d in self.study.decoders}
        self._loaded: dict[Path, Decoder] = {}
        self._conditions: dict[str, list[str]] = {}
        for decoder in self.study.decoders:
            decoders.check(decoder, shop.run.checkpoints, shop.loaded.digest, self.study)
            for name in decoder.conditions:
                for length in self.lengths(decoder.name):
                    self._file(decoder.name, plugins.load("condition", name).trained_as, length)

    # ---- what there is to choose from -----------------------------------------------------------------------------

    def decoder(self, name: str) -> config.Decoder:
        if name not in self.decoders:
            raise ConfigError(f"there is no decoder {name!r}", remedy=f"There are: {', '.join(self.decoders)}")
        return self.decoders[name]

    def lengths(self, decoder: str) -> tuple[int, ...]:
        """The lengths in tokens that a decoder was trained on, the shortest first."""
        return tuple(sorted(decoders.lengths_of(self.decoder(decoder), self.study)))

    def conditions(self, decoder: str) -> list[str]:
        """The conditions that a decoder can be met under: those that it was trained for, and those that hand
        something else to the one of ``memory``."""
        if decoder in self._conditions:
            return self._conditions[decoder]
        found = list(self.decoder(decoder).conditions)
        if "memory" in self._trained(decoder):
            empty = self.shop.loaded.adapter.empty(1)
            last = max(int(name.split(".")[1]) for name in empty)
            halves = [f"layers:0-{last // 2}", f"layers:{last // 2 + 1}-{last}"] if last else []
            one_out = [f"layer_out:{k}" for k in range(last + 1)] if last else []
            found += ["wrong", *(f"{own}@memory" for own in (*SCREENS, *halves, *one_out))]
        self._conditions[decoder] = [name for name in dict.fromkeys(found) if self._fits(name)]
        return self._conditions[decoder]

    def _fits(self, condition: str) -> bool:
        """Whether this architecture's memory has what the condition is about."""
        ids = torch.zeros(1, 1, dtype=torch.int64, device=self.shop.loaded.adapter.device)
        try:
            plugins.load("condition", condition).hand_over(self.shop.loaded.adapter.empty(1), ids, self.study.seed)
        except ModelError:
            return False
        return True

    def _trained(self, decoder: str) -> list[str]:
        return list(dict.fromkeys(plugins.load("condition", c).trained_as for c in self.decoder(decoder).conditions))

    @cached_property
    def examples(self) -> dict[str, Document]:
        """The first embedded text of each domain."""
        found: dict[str, Document] = {}
        for document in self.others:
            found.setdefault(document.domain, document)
        return found

    @cached_property
    def others(self) -> list[Document]:
        """The embedded texts."""
        return list(corpora.read(config.load(zoo.study("playground")).text.measure))

    # ---- text and windows -----------------------------------------------------------------------------------------

    def encode(self, text: str, name: str = "the text") -> Encoding:
        """The tokens of a text; ``name``: what a message calls it.

        Raises:
            TextError: it is too long, or no text: half of a character outside the basic plane.
        """
        if len(text) > CHARACTERS:
            raise TextError(f"{name} has {len(text):,} characters", remedy=f"Take at most {CHARACTERS:,}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise TextError(f"{name} holds half a character", remedy="Leave it out, or paste it anew") from None
        found = encode(self.shop.tokenizer, text)
        if len(found.ids) > TOKENS:
            raise TextError(f"{name} has {len(found.ids):,} tokens", remedy=f"Take at most {TOKENS:,}")
        return found

    def range(self, decoder: str, length: int) -> tuple[int, int]:
        """The fewest and the most tokens that may be read where windows of ``length`` are looked at.

        Raises:
            ConfigError: the decoder was not trained on this length.
        """
        lengths = self.lengths(decoder)
        if length not in lengths:
            there = ", ".join(map(str, lengths))
            raise ConfigError(f"{decoder!r} was not trained on {length} tokens", remedy=f"It was on: {there}")
        alone = self._file(decoder, self._trained(decoder)[0], length).stem.endswith(f"-L{length}")
        return (length, length) if alone else (lengths[0], lengths[-1])

    def place(self, text: Encoding, decoder: str, length: int, position: int | None, name: str = "the text") -> Place:
        """The last tokens before a position, ``length`` of them where there are so many.

        Args:
            position: tokens before it; the end of the text if None.  One that leaves fewer tokens than the decoder was
                ever trained on moves on until there are enough.
            name: what a message calls the text.

        Raises:
            ConfigError: see :meth:`range`.
            TextError: the text is shorter than that.
        """
        n, (least, _) = len(text.ids), self.range(decoder, length)
        if n < least:
            raise TextError(
                f"{name} has {n} token{'' if n == 1 else 's'}, and this decoder was trained on {least} and more",
                remedy="Write more, or take a shorter window",
            )
        end = min(max(least, n if position is None else position), n)
        return Place(max(0, end - length), end)

    def counterpart(self, place: Place, what: Change, changed: Encoding, decoder: str, length: int) -> Place:
        """The place in the changed text that begins and ends where ``place`` does.

        It is longer or shorter by what was put in or taken out, as far as the decoder was trained on such lengths;
        then it begins elsewhere.

        Raises:
            TextError: the changed text is too short.
        """
        least, most = self.range(decoder, length)
        first = what.moved(place.first)
        end = self.place(changed, decoder, length, what.moved(place.end), "the changed text").end
        return Place(end - min(max(least, end - first), most, end), end)

    def window(self, text: Encoding, place: Place) -> Window:
        return places.window(text, place, self.shop.windows_config.prefix)

    def stranger(self, window: Window) -> Window:
        """A window of the same length from an embedded text that does not hold this one: its first tokens.

        Raises:
            TextError: the embedded texts are shorter.
        """
        for document in self.others:
            found = encode(self.shop.tokenizer, document.text)
            here = np.lib.stride_tricks.sliding_window_view(found.ids, min(window.length, len(found.ids)))
            if len(found.ids) >= window.length and not (here == window.token_ids).all(1).any():
                return places.window(found, Place(0, window.length), window.prefix, document.doc_id)
        raise TextError(f"no embedded text has {window.length} tokens", remedy="Take a shorter window")

    # ---- memories -------------------------------------------------------------------------------------------------

    def memory(self, window: Window) -> Memory:
        """The encoder's memory after a window."""
        return self.shop.encode(self.shop.loaded.adapter, self._ids(window))

    def read(self, window: Window, decoder: str, condition: str, length: int) -> Reading:
        """Hands a window's memory to a decoder under a condition.

        Args:
            length: whose decoder is taken, where there is one for each.

        Raises:
            ConfigError: a condition that this decoder cannot be met under.
        """
        if condition not in self.conditions(decoder):
            there = ", ".join(self.conditions(decoder))
            raise ConfigError(f"{decoder!r} has no condition {condition!r}", remedy=f"It has: {there}")
        own = plugins.load("condition", condition)
        source = own.windows_to_read([window, self.stranger(window)])[0] if condition == "wrong" else window
        made = self._decoder(decoder, own.trained_as, length)
        handed = self.shop.start(own, self._ids(source))
        nats, predicted = self._cost(made, handed, window)
        prior = None
        if own.trained_as == "none":
            prior = nats
        elif "none" in self._trained(decoder):
            prior, _ = self._cost(self._decoder(decoder, "none", length), handed.zeros_like(), window)
        return Reading(window, made, handed, nats, prior, predicted)

    def _ids(self, window: Window) -> torch.Tensor:
        return torch.from_numpy(window.token_ids).to(self.shop.loaded.adapter.device).unsqueeze(0)

    @torch.no_grad()
    def _cost(self, decoder: Decoder, memory: Memory, window: Window) -> tuple[FloatArray, IntArray]:
        nats, predicted = decoder(memory, self._ids(window))
        return nats[0, :-1].double().cpu().numpy(), predicted[0].cpu().numpy()

    def _file(self, decoder: str, trained_as: str, length: int) -> Path:
        """The weights of the least seed."""
        of = self.decoder(decoder)
        return decoders.find(decoders.folder_of(of, self.shop.run.checkpoints), min(of.seeds), trained_as, length)

    def _decoder(self, name: str, trained_as: str, length: int) -> Decoder:
        file = self._file(name, trained_as, length)
        if file not in self._loaded:
            while len(self._loaded) >= LOADED:
                self._loaded.pop(next(iter(self._loaded)))
            made = self.shop.decoder(self.decoder(name)).to(self.shop.accelerator.device).eval().requires_grad_(False)
            decoders.load_weights(made, file)
            self._loaded[file] = made
        return self._loaded[file]


def opened(run: Path | None) -> Session:
    """A run's model and decoders; without one, the embedded model and the decoders that ship with it.

    Raises:
        MnemoscopeError: there is no such run, or its decoders are not trained.
    """
    if run is not None:
        return Session(Workshop(RunDir.open(run)))
    # a folder that is not there, and that nothing is written to
    return Session(Workshop(RunDir(zoo.folder() / "playground", config.load(zoo.study("playground")), writes=False)))


def moved(before: Memory, after: Memory, stranger: Memory) -> dict[str, float]:
    """How far each part of a memory moved, as a share of its distance to that of an unrelated text.

    ||before - after|| / ||before - stranger|| over the numbers of a part, of one window each; 0: the same, bit for bit;
    1: as far as another text is.  NaN where the unrelated text left the very same part.
    """
    found = {}
    for name, part in before.items():
        step, scale = (float((part - other[name]).double().norm()) for other in (after, stranger))
        found[name] = step / scale if scale else math.nan
    return found
