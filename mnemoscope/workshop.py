"""A run folder, and what several stages need of it: the encoder, the windows, a fresh decoder, the memories."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mnemoscope import config, plugins
from mnemoscope.codec.decoder import Decoder, encode
from mnemoscope.codec.readings import Readings
from mnemoscope.controls import Condition
from mnemoscope.errors import ConfigError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.load import Loaded, load, special_tokens
from mnemoscope.memory.memory import Memory
from mnemoscope.progress import Progress, Silent
from mnemoscope.rundir import RunDir
from mnemoscope.text import corpora
from mnemoscope.text.windows import WindowSet, cut
from mnemoscope.train import decoders
from mnemoscope.train.processes import accelerator, device_name
from mnemoscope.train.step import Loss


class Workshop:
    """A run folder, and what several stages need: made once, when it is first needed.

    Args:
        measures: whether there has to be a decoder.

    Raises:
        ConfigError: the study lacks a section.
    """

    def __init__(self, run: RunDir, progress: Progress | None = None, *, measures: bool = True):
        self.run, self.study = run, run.study
        self.progress: Progress = progress or Silent()
        if self.study.model is None or self.study.windows is None or (measures and not self.study.decoders):
            raise ConfigError(
                "this study measures nothing",
                remedy="It needs [model], [windows] and a [[decoders]]; to pretrain, use mnemoscope pretrain",
                file=run.path / "study.toml",
            )
        self.model_name, self.windows_config = self.study.model.name, self.study.windows
        self._cut: dict[int | None, WindowSet] = {}
        self._may_keep = True
        self._readings: dict[Adapter, Readings] = {}
        # batches are measured side by side
        self._lock = Lock()

    @cached_property
    def accelerator(self) -> Accelerator:
        return accelerator(self.study.compute)

    @property
    def keeps(self) -> bool:
        """Whether what was read of windows is kept: nested ones are read on from there, and on a CPU, where reading
        takes a fifth of the time, others are given again to whatever is given them next."""
        return self._may_keep and (self.windows_config.nested or self._reads_again)

    @cached_property
    def _reads_again(self) -> bool:
        """Whether on a CPU some windows are read by a decoder or under a condition after another."""
        each = ((len(d.seeds), [plugins.load("condition", c).reads for c in d.conditions]) for d in self.study.decoders)
        return self.accelerator.device.type == "cpu" and any(seeds * sum(reads) > 1 for seeds, reads in each)

    @property
    def device_name(self) -> str:
        return device_name(self.accelerator)

    @cached_property
    def loaded(self) -> Loaded:
        assert self.study.model is not None
        m = self.study.model
        loaded = load(m.name, revision=m.revision, tokenizer=m.tokenizer, dtype=m.dtype, scan=self.study.compute.scan)
        loaded.adapter.to(self.accelerator.device).requires_grad_(False)
        return loaded

    @property
    def tokenizer(self) -> Any:
        assert self.loaded.tokenizer is not None
        return self.loaded.tokenizer

    @cached_property
    def special(self) -> tuple[int, int]:
        return special_tokens(self.tokenizer, self.loaded.adapter.model.config)

    @property
    def windows(self) -> WindowSet:
        return self.cut(self.windows_config.tokens_per_length)

    def cut(self, tokens_per_length: int | None) -> WindowSet:
        """The study's windows, if they were to be so many; fewer of them are some of those that more would be."""
        if tokens_per_length not in self._cut:
            self._cut[tokens_per_length] = cut(
                corpora.read(self.study.text.measure),
                self.loaded.tokenizer,
                self.windows_config.lengths,
                self.windows_config.prefix,
                seed=self.study.seed,
                tokens_per_length=tokens_per_length,
                nested=self.windows_config.nested,
            )
        return self._cut[tokens_per_length]

    def decoder(self, of: config.Decoder, seed: int = 0) -> Decoder:
        """A fresh decoder, of the family that a section of the study asks for.

        Args:
            seed: of its training; it decides what its weights begin as, where those are not a model's.
        """
        name, options = decoders.family_of(decoders.source(of, self.study), self.run.checkpoints)
        family = plugins.load("family", name)
        drawn = int(np.random.SeedSequence([self.study.seed, seed]).generate_state(1)[0])
        made: Decoder = family.make(self.loaded, *self.special, family.Options.model_validate(options), drawn)
        return made

    @property
    def bos(self) -> int | None:
        """The token that the study has the encoder read before a window, if any."""
        return self.special[0] if self.windows_config.prefix == "bos" else None

    def encode(self, reader: Adapter, ids: Tensor, passages: Sequence[str] = ()) -> Memory:
        """The memory of windows, the study's prefix read before them.

        Args:
            passages: of windows of the study, where each begins; those that were read already are not read again, and
                if the study's windows are nested, they are read on from where others of the same passages end.
        """
        if not (passages and self.keeps):
            return encode(reader, ids, bos=self.bos)
        with self._lock:
            if reader not in self._readings:
                nested, each = self.windows_config.nested, [len(some) for some in self.windows.windows.values()]
                self._readings[reader] = Readings(reader, self.bos, sum(each) if nested else max(each), nested)
            readings = self._readings[reader]
        return readings.after(passages, ids)

    def forget(self, *, for_good: bool = False) -> None:
        """Has windows read from their beginning again; ``for_good`` always, so that no memories are kept."""
        self._readings.clear()
        self._may_keep = self._may_keep and not for_good

    @torch.no_grad()
    def start(self, condition: Condition, ids: Tensor, *, passages: Sequence[str] = (), draw: int = 0) -> Memory:
        """What a decoder starts from under a condition, the encoder having read the windows [B, L].

        Args:
            passages: see :meth:`encode`.
            draw: of what the condition leaves to chance after the reading.  What is handed over to be written back is
                draw 0; who compares with that must take another, or equal noise would give the window away.
        """
        encoder, seed = self.loaded.adapter, self.study.seed
        if condition.reads:
            read = self.encode(condition.reader(encoder, seed), ids, passages)
        else:
            read = encoder.empty(len(ids))
        return condition.hand_over(read, ids, seed + draw)

    def loss(self, condition_name: str) -> Loss:
        """What a decoder that is trained under a condition has to make small."""
        condition = plugins.load("condition", condition_name)

        def loss(decoder: nn.Module, ids: Tensor) -> Tensor:
            nats: Tensor = decoder(self.start(condition, ids), ids)[0]
            return nats

        return loss
