"""Whole models: the auto-encoder step and greedy reconstruction, ours and others'.

Others that cannot start from a memory do the same work without handing it over: the encoder's forward pass, then a
language model's step.  All have random weights and read random ids, on which speed does not depend.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.contest import Contestant, NotHereError, Patience, Row, Work, contest, fitting
from benchmarks.cost import MAMBA_1_4B, MAMBA_130M, SMALL, Shape
from mnemoscope import config, plugins
from mnemoscope.bench.clock import seconds_of
from mnemoscope.codec.decoder import encode
from mnemoscope.codec.families.native import Native
from mnemoscope.codec.generate import Writer
from mnemoscope.memory.adapter import Adapter
from mnemoscope.train.plan import Plan, fixed
from mnemoscope.train.processes import accelerator
from mnemoscope.train.step import optimiser_for, step_for

Prepared = tuple[Work, float]
Make = Callable[[], Prepared]

RATE = 1e-4


@dataclass(frozen=True, slots=True)
class Job:
    """One auto-encoder step, or one reconstruction, of ``windows`` windows."""

    shape: Shape
    length: int
    windows: int
    precision: str
    device: torch.device

    @property
    def tokens(self) -> int:
        return self.length * self.windows

    def ids(self, windows: int | None = None) -> Tensor:
        return torch.randint(1, self.shape.vocabulary, (windows or self.windows, self.length))

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def hugging_face(shape: Shape, device: torch.device, **changes: Any) -> Any:
    configuration = transformers.MambaConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        vocab_size=shape.vocabulary,
        state_size=shape.states,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **changes,
    )
    with device:
        return transformers.MambaForCausalLM(configuration)


def slowly(model: nn.Module) -> Any:
    """``model`` by transformers' own operations: without kernels that it finds installed."""
    for module in model.modules():
        if hasattr(module, "slow_forward"):
            setattr(module, "forward", module.slow_forward)  # noqa: B010 - mypy holds that a module's forward is fixed
    return model


def adapter(job: Job) -> Adapter:
    made: Adapter = plugins.load("memory", "mamba")(hugging_face(job.shape, job.device))
    return made.requires_grad_(False).eval()


# ---- auto-encoder steps ---------------------------------------------------------------------------------------------


def ours(job: Job) -> Make:
    """As ``mnemoscope train`` takes it: gradients clipped, AdamW, on a GPU replayed as a graph."""

    def make() -> Prepared:
        AcceleratorState._reset_state(reset_partial_state=True)  # else the first precision is everybody's
        precision = "bf16" if job.precision == "bf16" else "no"
        processes = accelerator(
            config.Compute.model_validate({"device": job.device.type, "mixed_precision": precision})
        )
        encoder = adapter(job)
        decoder = Native.from_encoder(encoder, 0, 0).train()
        plan = Plan(fixed(job.length, 1), job.tokens, config.Optimiser.model_validate({"learning_rate": RATE}), 1)
        module, optimiser = processes.prepare(decoder, optimiser_for(decoder, plan))

        def loss(module: nn.Module, ids: Tensor) -> Tensor:
            nats: Tensor = module(encode(encoder, ids), ids)[0]
            return nats

        step = step_for(module, optimiser, loss, plan, processes)
        ids = job.ids()
        return lambda: step(ids, job.windows, RATE), job.tokens

    return make


def _language_model_step(job: Job, model: nn.Module, read: Callable[[Tensor], object], logits: Any) -> Work:
    optimiser = torch.optim.AdamW(model.parameters(), RATE, fused=job.device.type == "cuda")

    def step(ids: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        with job.autocast():
            with torch.no_grad():
                read(ids)
            inputs, targets = F.pad(ids, (1, 0)), F.pad(ids, (0, 1))
            loss = F.cross_entropy(logits(inputs).flatten(0, 1).float(), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step  # type: ignore[return-value]


def _as_fits(job: Job, step: Any, tokens: int | None = None) -> Prepared:
    """A step of as many windows as memory allows, and of ``tokens`` at most."""

    def of(windows: int) -> Work:
        ids = job.ids(windows).to(job.device)
        return lambda: step(ids)

    work, windows = fitting(of, max(1, min(job.tokens, tokens or job.tokens) // job.length))
    return work, windows * job.length


def with_hugging_face(job: Job, mambapy: bool) -> Make:
    def make() -> Prepared:
        if mambapy:
            importlib.import_module("mambapy")
        model = slowly(hugging_face(job.shape, job.device, use_mambapy=mambapy).train())
        encoder = slowly(hugging_face(job.shape, job.device, use_mambapy=mambapy).eval())
        read = lambda ids: encoder.backbone(ids, use_cache=True)  # noqa: E731
        step = _language_model_step(job, model, read, lambda ids: model(ids, use_cache=False).logits)
        # a quarter of a terabyte would not hold all windows, and to find that out takes minutes
        return _as_fits(job, step, 2048)

    return make


def with_mamba_ssm(job: Job) -> Make:
    def make() -> Prepared:
        model, encoder = _official(job), _official(job).eval()
        step = _language_model_step(job, model, encoder.backbone, lambda ids: model(ids).logits)
        return _as_fits(job, step)

    return make


def _official(job: Job) -> Any:
    if job.device.type != "cuda":
        importlib.import_module("mamba_ssm")
        raise NotHereError("its kernels are for GPUs")
    models = importlib.import_module("mamba_ssm.models.mixer_seq_simple")
    settings = importlib.import_module("mamba_ssm.models.config_mamba").MambaConfig(
        d_model=job.shape.width, n_layer=job.shape.layers, vocab_size=job.shape.vocabulary
    )
    return models.MambaLMHeadModel(settings, device=job.device)


def _published(job: Job, path: Path | None) -> tuple[Any, Any, Any]:
    """Its decoder, its encoder and its module of data, as its training script makes them."""
    if path is None:
        raise NotHereError("give its folder with --published")
    if str(path / "src") not in sys.path:
        sys.path.insert(0, str(path / "src"))
    models = importlib.import_module("ouroboros.models")
    data = importlib.import_module("ouroboros.encode_dataset")
    encoder = hugging_face(job.shape, job.device).eval()
    decoder = models.MambaDecoderForCausalLM(
        models.MambaDecoderConfig(**encoder.config.to_dict() | {"use_mambapy": True})
    )
    return decoder.to(job.device), encoder, data


def with_published(job: Job, path: Path | None, fastest: bool) -> Make:
    """In fp32 with gradient checkpointing; as shipped also with autograd's detection of anomalies, and without
    kernels for the encoder."""

    def make() -> Prepared:
        decoder, encoder, data = _published(job, path)
        if not fastest:
            slowly(encoder)
        decoder.train()
        decoder.gradient_checkpointing_enable()
        optimiser = torch.optim.AdamW(decoder.parameters(), RATE)

        def step(ids: Tensor) -> None:
            with torch.autograd.set_detect_anomaly(not fastest, check_nan=True):
                with torch.no_grad():
                    memory = data.get_cache_params(ids, encoder)
                padded = F.pad(ids, (1, 1))
                decoder(input_ids=padded, encoder_cache_params=memory, labels=padded).loss.backward()
            optimiser.step()
            optimiser.zero_grad()

        return _as_fits(job, step)

    return make


def steps(device: torch.device, quick: bool, patience: Patience, published: Path | None) -> Iterator[Row]:
    if device.type == "cuda":
        lengths = [64] if quick else [16, 64, 256]
        jobs = [Job(MAMBA_130M, length, 16384 // length, "bf16", device) for length in lengths]
    else:
        jobs = [Job(SMALL, 64, 8, precision, device) for precision in ("fp32", "bf16")]
    for job in jobs:
        others = {
            "Hugging Face eager": with_hugging_face(job, mambapy=False),
            "Hugging Face with mambapy": with_hugging_face(job, mambapy=True),
            "mamba-ssm (no memory handed over)": with_mamba_ssm(job),
            "published code, as shipped (fp32)": with_published(job, published, fastest=False),
            "published code, its fastest settings (fp32)": with_published(job, published, fastest=True),
        }
        rows = contest(
            "steps",
            f"auto-encoder step, {job.precision}, L = {job.length}, {job.windows} windows",
            [Contestant("mnemoscope", ours(job)), *(Contestant(who, make, warm=1) for who, make in others.items())],
            patience,
        )
        floor = products_seconds(job)
        for row in rows:
            row.facts |= {"seconds of the matrix products alone": floor, "tokens a step": job.tokens}
            row.facts |= {"flops a token": job.shape.autoencoder_flops}
            row.facts |= {"bytes a step": job.shape.autoencoder_bytes(job.length, job.windows)}
            if row.amount:
                row.facts |= {"windows at once": row.amount / job.length}
        yield from rows


#: bytes of a GPU as most have it, and of what one process may take of it
ORDINARY = 80 * 10**9


def memory(device: torch.device, quick: bool, patience: Patience) -> Iterator[Row]:
    """A step of the largest published model within the memory of an ordinary GPU, however much there is."""
    work = "auto-encoder step, bf16, 1.4B, L = 256, 16 windows, in 80 GB"
    if device.type != "cuda":
        yield Row("memory", work, "mnemoscope", skipped="is about a GPU")
        return
    there = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, ORDINARY / there))
    try:
        yield from contest(
            "memory", work, [Contestant("mnemoscope", ours(Job(MAMBA_1_4B, 256, 16, "bf16", device)))], patience
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def products_seconds(job: Job) -> float:
    """Seconds that a step's matrix products take by themselves, each called as the model calls it."""
    dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
    total = 0.0

    def alone(m: int, k: int, n: int) -> float:
        a, b = (torch.randn(*s, device=job.device, dtype=dtype) for s in ((m, k), (k, n)))
        seconds_of(lambda: a @ b, 2)
        return seconds_of(lambda: a @ b, 8)

    for inputs, outputs, count in job.shape.products():
        forward = alone(job.tokens, inputs, outputs)
        backward = alone(job.tokens, outputs, inputs) + alone(inputs, job.tokens, outputs)
        # the encoder reads without a head
        total += count * ((2 if outputs != job.shape.vocabulary else 1) * forward + backward)
    return total


# ---- greedy reconstruction ------------------------------------------------------------------------------------------


def decoding(device: torch.device, quick: bool, patience: Patience, published: Path | None) -> Iterator[Row]:
    gpu = device.type == "cuda"
    job = Job(MAMBA_130M if gpu else SMALL, 64, 256 if gpu else 8, "bf16" if gpu else "fp32", device)
    dtype = torch.bfloat16 if gpu else torch.float32

    def own() -> Prepared:
        decoder = Native.from_encoder(adapter(job), 0, 0).to(dtype).eval()
        # no row may end before the others; a head that never says EOS is as fast
        decoder.eos = -1
        writer = Writer(decoder)
        with torch.no_grad():
            memory = encode(decoder.adapter, job.ids().to(device))
        # a writer's limit is twice the length that it is given
        return lambda: writer.write(memory, job.length // 2), job.tokens

    def with_cache() -> Prepared:
        model = slowly(hugging_face(job.shape, device).to(dtype).eval())
        start = torch.zeros(job.windows, 1, dtype=torch.int64, device=device)
        new = {"max_new_tokens": job.length, "min_new_tokens": job.length, "do_sample": False}
        return lambda: model.generate(start, attention_mask=torch.ones_like(start), **new), job.tokens

    def official() -> Prepared:
        model = _official(job).to(dtype).eval()
        start = torch.zeros(job.windows, 1, dtype=torch.int64, device=device)
        return lambda: model.generate(start, max_length=job.length + 1, cg=True, top_k=1), job.tokens

    def of_the_paper() -> Prepared:
        decoder, encoder, data = _published(job, published)
        written = importlib.import_module("ouroboros.decoder_utils").reconstruct
        ids = job.ids().to(device)
        speaker = type("Tokenizer", (), {"bos_token_id": 0, "eos_token_id": -1})

        @torch.no_grad()
        def run() -> object:
            # it writes into the memory that it is given, so each call needs a new one
            return written(decoder.eval(), speaker, data.get_cache_params(ids, encoder), job.length)

        return run, job.tokens

    makers = {
        "mnemoscope": own,
        "Hugging Face eager": with_cache,
        "mamba-ssm (graph)": official,
        "published code (fp32, with reading)": of_the_paper,
    }
    work = f"greedy, {job.length} tokens, {job.windows} windows, {'bf16' if gpu else 'fp32'}"
    contestants = [Contestant(who, make, warm=2) for who, make in makers.items()]
    for row in contest("decoding", work, contestants, patience):
        row.facts |= {"flops a token": job.shape.decoding_flops()}
        yield row
