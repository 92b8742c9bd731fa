"""Time to quality: GPU-seconds until a decoder gives back as much as the published recipe's does at its end.

On the same frozen model and the same text.  The published recipe is trained here with our kernels, which changes its
seconds and not its retention; its seconds are its tokens over the speed of the published code, measured beside it at
this model's shape.  Ours is one decoder for both lengths: the recipe ``growing``, a bridge, Muon; its seconds are those
of the smallest whole training that gets there, recordings among them, compilation told apart.  The published recipe
trains a decoder for each length, so for several lengths its seconds add up, and ours are those of the longest training
needed.  Retention is 1 - nats / nats of the embedded decoder without a memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from benchmarks.contest import Contestant, Patience, Row, contest
from benchmarks.cost import Shape
from benchmarks.models import Job, with_published
from mnemoscope import config, plugins, zoo
from mnemoscope.bench.clock import wait
from mnemoscope.codec.decoder import Decoder, encode
from mnemoscope.memory.load import load
from mnemoscope.memory.tokenizer import special_tokens
from mnemoscope.text.tokens import TokenStore
from mnemoscope.train import decoders
from mnemoscope.train.plan import Plan, fixed, growing
from mnemoscope.train.processes import accelerator
from mnemoscope.train.step import optimiser_for, step_for

OURS = "mnemoscope: growing, bridged, Muon"
MODEL, ASKED = "mamba-nano", (64, 256)
#: tokens of a published decoder: one pass over the ten thousand documents of its README, about
PUBLISHED = 12_000_000
#: window tokens of ours, over its lengths
BUDGETS = [round(1_500_000 * 1.25**times) for times in range(18)]
BATCH, HELD_OUT = 16_384, 32_768
#: README of the published code: AdamW as PyTorch has it, constant, without decay; it does not clip
SETTINGS = {"warmup": 0.0, "schedule": "constant", "betas": (0.9, 0.999), "clip": 1e9}
RATES = {"its learning rate, 1e-5": 1e-5, "the best learning rate that we know for it, 8e-3": 8e-3}
GROWING = {"method": "muon", "learning_rate": 1.2e-2, "final": 0.02, "betas": (0.9, 0.99)}
#: of what is asked, and a length to grow from; all seven take longer to the same (docs/notebook.md, 2026-11-24)
LENGTHS, SHARES = (16, 64, 256), (1.0, 2.0, 5.0)


@dataclass
class Setting:
    """The frozen model, text to train on, and held-out windows with what they cost without a memory."""

    device: torch.device
    training: TokenStore
    held_out: dict[int, Tensor]
    guessed: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loaded = load(MODEL)
        self.encoder = self.loaded.adapter.to(self.device).requires_grad_(False)
        none = self.decoder("native").to(self.device)
        decoders.load_weights(none, decoders.find(zoo.folder() / MODEL / "decoders", 0, "none", 0))
        self.guessed = {length: self.nats(none, length, reads=False) for length in ASKED}

    def decoder(self, family: str) -> Decoder:
        assert self.loaded.tokenizer is not None
        special, kind = special_tokens(self.loaded.tokenizer, self.encoder.model.config), plugins.load("family", family)
        made: Decoder = kind.make(self.loaded, *special, kind.Options(), 0)
        return made

    @torch.no_grad()
    def nats(self, decoder: nn.Module, length: int, reads: bool = True) -> float:
        """A held-out token, without the one that ends a window."""
        ids = self.held_out[length].to(self.device)
        start = encode(self.encoder, ids) if reads else self.encoder.empty(len(ids))
        return float(decoder(start, ids)[0][:, :-1].mean())

    def retention(self, decoder: nn.Module, length: int) -> float:
        return 1 - self.nats(decoder, length) / self.guessed[length]


def _corpora(data: Path, pattern: str) -> list[config.Corpus]:
    return [config.Corpus.model_validate({"path": str(data / pattern)})]


def setting(data: Path, device: torch.device) -> Setting:
    tokenizer = load(MODEL).tokenizer
    assert tokenizer is not None
    with TemporaryDirectory() as folder:
        training, unseen = (
            TokenStore.build(_corpora(data, p), tokenizer, folder)
            for p in ("pretrain/*.jsonl.zst", "domains/*.validation.jsonl.zst")
        )
        rng = np.random.default_rng(0)
        held_out = {n: torch.from_numpy(unseen.sample(rng, n, HELD_OUT // n)) for n in ASKED}
        return Setting(device, replace(training, tokens=np.array(training.tokens)), held_out)


def train(where: Setting, plan: Plan, precision: str, family: str) -> tuple[Decoder, float]:
    """A decoder trained by a plan, and the seconds from its first step to its last."""
    AcceleratorState._reset_state(reset_partial_state=True)
    settings = {"device": where.device.type, "mixed_precision": precision}
    processes = accelerator(config.Compute.model_validate(settings))
    decoder = where.decoder(family).to(where.device).train()
    module, optimiser = processes.prepare(decoder, optimiser_for(decoder, plan))

    def loss(module: nn.Module, ids: Tensor) -> Tensor:
        with torch.no_grad():
            memory = encode(where.encoder, ids)
        nats: Tensor = module(memory, ids)[0]
        return nats

    step = step_for(module, optimiser, loss, plan, processes)
    rng = np.random.default_rng(1)
    wait()
    started = time.perf_counter()
    for i, length in enumerate(plan.lengths.tolist()):
        windows = plan.windows(i)
        step(torch.from_numpy(where.training.sample(rng, length, windows)), windows, plan.learning_rate(i))
    wait()
    return decoder, time.perf_counter() - started


def published_retention(where: Setting, length: int, rate: float) -> float:
    optimiser = config.Optimiser.model_validate({"learning_rate": rate, **SETTINGS})
    plan = Plan(fixed(length, PUBLISHED // BATCH), BATCH, optimiser, 1)
    decoder, _ = train(where, plan, "no", "native")
    return where.retention(decoder, length)


def ours(where: Setting, precision: str, goals: Sequence[tuple[int, float]]) -> dict[tuple[int, float], Row]:
    """The smallest budget with which each goal, a length and its retention, is reached."""
    optimiser = config.Optimiser.model_validate(GROWING)
    found: dict[tuple[int, float], Row] = {}

    def once(budget: int) -> tuple[Decoder, float]:
        steps = budget // BATCH
        plan = Plan(growing(LENGTHS, steps, 0.25, (0, 0), SHARES), BATCH, optimiser, 1, 0.5)
        return train(where, plan, precision, "bridged")

    # all lengths are in the smallest budget: what its first training takes longer than its second is compilation
    first, compilation = once(BUDGETS[0])[1], None
    for budget in BUDGETS:
        decoder, seconds = once(budget)
        if compilation is None:
            compilation = max(0.0, first - seconds)
        reached = {length: where.retention(decoder, length) for length in ASKED}
        for goal in goals:
            if goal not in found and reached[goal[0]] >= goal[1]:
                facts = {"retention": reached[goal[0]], "seconds of compilation, once": compilation}
                found[goal] = Row("quality", "", OURS, budget, "tokens", [seconds], facts=facts)
        if len(found) == len(goals):
            break
    return found


def run(device: torch.device, patience: Patience, published: Path | None, data: Path | None) -> Iterator[Row]:
    if data is None:
        yield Row("quality", "time to quality", "mnemoscope", skipped="give a folder of text with --data")
        return
    where = setting(data, device)
    about = where.encoder.model.config
    shape = Shape(about.hidden_size, about.num_hidden_layers, about.vocab_size)
    speeds: dict[int, Row] = {}
    for length in ASKED:
        job = Job(shape, length, BATCH // length, "fp32", device)
        work = f"auto-encoder step at {MODEL}'s shape, L = {length}"
        makers = [Contestant("published code, as shipped (fp32)", with_published(job, published, False), warm=1)]
        (speeds[length],) = contest("quality", work, makers, patience)
        yield speeds[length]
    goals = {
        (length, name): published_retention(where, length, rate) for name, rate in RATES.items() for length in ASKED
    }
    precision = "bf16" if device.type == "cuda" else "no"
    reached = ours(where, precision, [(length, goal) for (length, _), goal in goals.items()])
    for name in RATES:
        rows = {length: (speeds[length], reached.get((length, goals[length, name]))) for length in ASKED}
        for length, (speed, row) in rows.items():
            work = f"retention {goals[length, name]:.3f} at {length} tokens, where the published recipe ends ({name})"
            yield from _beside(work, [speed], [row])
        work = f"both of these, the published recipe with a decoder for each ({name})"
        yield from _beside(work, [speed for speed, _ in rows.values()], [row for _, row in rows.values()])


def _beside(work: str, speeds: Sequence[Row], rows: Sequence[Row | None]) -> Iterator[Row]:
    """Ours, the longest of the trainings ``rows``, and the published recipe's, one after the other."""
    theirs = Row("quality", work, "published recipe at its code's speed", PUBLISHED * len(speeds), "tokens")
    if all(speed.seconds for speed in speeds):
        theirs.seconds = [sum(PUBLISHED / speed.rate for speed in speeds)]
    else:
        theirs.skipped = next(speed.skipped for speed in speeds if not speed.seconds)
    found = [row for row in rows if row is not None]
    if len(found) < len(rows):
        yield Row("quality", work, OURS, skipped=f"not reached with {BUDGETS[-1]:,} tokens")
    else:
        ours = max(found, key=lambda row: row.median)
        if theirs.seconds:
            theirs.facts["ours over theirs"] = theirs.median / ours.median
        yield replace(ours, work=work)
    yield theirs
