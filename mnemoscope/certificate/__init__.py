"""What no decoder can recover: tokens whose substitutes leave the same memory, at the precision that it is kept at.

    windows -> the model's own alternatives to a token -> their memories, compared -> estimates, horizons

If two windows leave one and the same stored memory, whatever starts from it does the same with both: it is wrong about
one of them.  So a token with such a substitute is *certainly lost*, at that precision of storage (the memory after the
window is stored once; it was computed in the model's own precision) and in this arithmetic.  The reverse does not
hold: a token of which no such substitute was found may still be lost, to another one or to every decoder that there is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mnemoscope import annotating, config, schema
from mnemoscope.certificate.storage import PRECISIONS
from mnemoscope.certificate.windows import Verdict, judge
from mnemoscope.errors import ConfigError, RunError
from mnemoscope.measuring import release, too_long
from mnemoscope.memory import continuity
from mnemoscope.progress import Progress
from mnemoscope.rundir import RunDir, command, replacing
from mnemoscope.stats import certain
from mnemoscope.text import corpora
from mnemoscope.types import Window
from mnemoscope.workshop import Workshop

log = logging.getLogger(__name__)

_KEY = ("doc_id", "window_id", "domain", "source", "dialect", "prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a certificate looks at, beside the study's windows.

    Attributes:
        substitutes: how many alternatives to each token: the likeliest but the true one.
        per_doubling: tokens of a window that are looked at, at each doubling of the distance to its end (0, 1, 2-3,
            4-7, ...), drawn by the study's seed; None: all.
        precisions: of :data:`mnemoscope.certificate.storage.PRECISIONS`.
        noise: strengths s for which the loss under ``noise:s`` is estimated too (:mod:`mnemoscope.stats.noise`).
    """

    substitutes: int
    per_doubling: int | None
    precisions: tuple[str, ...] = PRECISIONS
    noise: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("substitutes", self.substitutes), ("per_doubling", self.per_doubling)):
            if least is not None and least < 1:
                raise ConfigError(f"{name} is {least}", remedy="Give at least 1")
        unknown = [p for p in self.precisions if p not in PRECISIONS]
        if unknown or not self.precisions:
            raise ConfigError(
                f"no precision {', '.join(map(repr, unknown)) or 'given'}", remedy=f"There are: {', '.join(PRECISIONS)}"
            )
        if any(not 0 < s < math.inf for s in self.noise) or len(set(self.noise)) < len(self.noise):
            raise ConfigError(
                f"noise has the strengths {', '.join(map(str, self.noise))}",
                remedy="Give numbers above 0, each once, in standard deviations of the memory's numbers",
            )

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the tables ``certificate/``, for the manifest; any noise can be estimated from them."""
        return {k: v for k, v in asdict(self).items() if k != "noise"} | {"precisions": list(self.precisions)}


def certify(study: config.Study, out: str | Path, settings: Settings, progress: Progress | None = None) -> RunDir:
    """The certificate of a study's model on its windows; the same call after an interruption goes on.

    Writes ``certificate/L<length>.parquet``, ``annotations/``, ``estimates.parquet`` and ``horizons.parquet``.

    Args:
        study: model, text.measure, windows, annotations and estimate are used, and its seed; it needs no decoder.
        out: the run folder.

    Raises:
        MnemoscopeError: whatever is wrong with the study, its text or its model, before any long work.
    """
    if study.model is None or study.windows is None or not study.text.measure:
        raise ConfigError("there is nothing to certify", remedy="Give [model], [windows] and [[text.measure]]")
    run = RunDir(out, study)
    shop = Workshop(run, progress, measures=False)
    run.require_same("certificate", settings.asked)
    with run.stage("prepare"):
        inputs = [asdict(i) for i in corpora.check(study.text.measure)]
        run.require_same("inputs", inputs)
        run.require_same("encoder", shop.loaded.digest)
        continuity.require(shop.loaded.adapter, shop.model_name)
        annotating.annotate_windows(shop)
        run.note(command=command(), inputs=inputs, encoder=shop.loaded.digest, certificate=settings.asked)
    with run.stage("certify", device=shop.device_name):
        _read_all(shop, settings)
    with run.stage("estimate"):
        certain.write(run.path, run.path / "estimates.parquet", _groups(study), settings.noise, study)
        certain.horizons(run.path)
    return run


def within(shop: Workshop, settings: Settings) -> None:
    """The certificate of a run, in its own folder: of its model, on its windows, once both are prepared.

    Writes ``certificate/``, ``floors.parquet`` and ``horizons.parquet``; the same call after an interruption goes on.

    Raises:
        RunError: another certificate lies there, or the run's is of other settings.
    """
    run = shop.run
    if any((run.path / "certificate").glob("*.parquet")) and "certificate" not in run.manifest:
        raise RunError(
            "the certificate in this run was made elsewhere, and may be of other windows",
            remedy="Take the folder away; the run makes its own",
            file=run.path / "certificate",
        )
    run.require_same("certificate", settings.asked)
    run.note(certificate=settings.asked)
    with run.stage("certify", device=shop.device_name):
        if not all(_file(run, length).exists() for length in shop.windows_config.lengths):
            run.require_same("encoder", shop.loaded.digest)
            _read_all(shop, settings)
        certain.write(run.path, run.path / "floors.parquet", _groups(run.study), settings.noise, run.study)
        certain.horizons(run.path)


def _groups(study: config.Study) -> list[str]:
    return ["position", certain.DISTANCE, *(b for b in study.estimate.by if b != "position")]


def _file(run: RunDir, length: int) -> Path:
    return run.path / "certificate" / f"L{length}.parquet"


def _read_all(shop: Workshop, settings: Settings) -> None:
    """Writes certificate/, a file a length; those that are there stay."""
    run, windows = shop.run, shop.windows.windows
    judging = _Judge(shop, settings)
    copies = unlike = 0
    with shop.progress.task("certifying", sum(map(len, windows.values())), "windows") as bar:
        done = 0
        for length, some in windows.items():
            target = _file(run, length)
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                with replacing(target) as part, pq.ParquetWriter(part, schema.arrow("certificate")) as file:
                    for number, (table, verdict) in enumerate(judging.verdicts(some)):
                        file.write_table(table)
                        copies, unlike = copies + verdict.copies, unlike + verdict.unlike
                        bar.at(done + number + 1, f"L={length}")
            done += len(some)
            bar.at(done, f"L={length}")
    if copies:
        run.note(read_twice=copies, unlike=unlike)
    if unlike:
        shop.progress.say(
            f"the same window, read twice in one batch, left another memory {unlike} of {copies} times: this "
            "arithmetic depends on the place in a batch, and what is equal may look unequal"
        )


class _Judge:
    """Judges windows of any length, reading as many tokens at once as the device's memory has held so far.

    Raises:
        ConfigError: more substitutes are wanted than there are.
    """

    def __init__(self, shop: Workshop, settings: Settings):
        self.shop, self.settings = shop, settings
        self.size = shop.study.compute.batch_tokens
        #: which ids may stand in a text: those of the tokenizer but the special ones, bool [V]
        self.allowed = np.zeros(shop.loaded.adapter.vocabulary, np.bool_)
        self.allowed[list(shop.tokenizer.get_vocab().values())] = True
        self.allowed[[*shop.special, *shop.tokenizer.all_special_ids]] = False
        most = self.allowed.sum() - 1
        if settings.substitutes > most:
            raise ConfigError(
                f"{settings.substitutes} substitutes are wanted, and beside a token there are {most} others",
                remedy=f"Ask for at most {most}",
            )

    def verdicts(self, windows: Sequence[Window]) -> Iterator[tuple[pa.Table, Verdict]]:
        """The rows of each window by ``schema.CERTIFICATE``, and its verdict."""
        shop = self.shop
        spell = shop.tokenizer.convert_ids_to_tokens
        for number, window in enumerate(windows):
            while (verdict := self._verdict(number, window)) is None:
                if self.size == 1:
                    raise too_long(window.length)
                self.size //= 2
                log.warning("out of memory: about %d tokens are now read at once", self.size)
                release(shop.accelerator.device)
            key = {"run": shop.study.name, "model": shop.model_name, "length": window.length}
            key |= {name: getattr(window, name) for name in _KEY}
            yield rows(window, verdict, self.settings.precisions, key, spell), verdict

    def _verdict(self, number: int, window: Window) -> Verdict | None:
        """None where the device's memory does not hold so many tokens at once."""
        try:
            return judge(
                self.shop.loaded.adapter,
                window.token_ids,
                prefix=window.prefix,
                bos=self.shop.special[0],
                allowed=self.allowed,
                substitutes=self.settings.substitutes,
                per_doubling=self.settings.per_doubling,
                precisions=self.settings.precisions,
                batch_tokens=self.size,
                rng=np.random.default_rng([self.shop.study.seed, window.length, number]),
            )
        except torch.OutOfMemoryError:
            return None


def rows(window: Window, verdict: Verdict, precisions: Sequence[str], key: dict[str, Any], spell: Any) -> pa.Table:
    """A row for each position, substitute and precision of a window, by ``schema.CERTIFICATE``."""
    p, k, s = verdict.ulps.shape
    at = verdict.positions

    def each(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """[P] or [P, k] for all rows."""
        return np.repeat(values, p * k * s // values.size)

    spelled = np.array([spell(int(i)) for i in window.token_ids[at]], dtype=object)
    columns: dict[str, Any] = {
        **{name: [value] * (p * k * s) for name, value in key.items()},
        "position": each(at),
        "char_start": each(window.char_start[at]),
        "char_end": each(window.char_end[at]),
        "token_id": each(window.token_ids[at]),
        "token": each(spelled),
        "weight": each(verdict.weights),
        "substitute_id": each(verdict.substitutes.reshape(-1)),
        "precision": np.tile(np.array(precisions, dtype=object), p * k),
        "equal": verdict.ulps.reshape(-1) == 0,
        "ulps": verdict.ulps.reshape(-1),
        "differing": verdict.differing.reshape(-1),
        "apart": each(verdict.apart.reshape(-1)),
        "nats": each(verdict.nats),
        "substitute_nats": each(verdict.substitute_nats.reshape(-1)),
    }
    wanted = schema.arrow("certificate")
    return pa.table([pa.array(columns[c.name]).cast(c.type) for c in wanted], schema=wanted)
