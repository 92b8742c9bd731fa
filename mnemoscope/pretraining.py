"""``mnemoscope pretrain``: tokenizer, tokens, model; a folder that every other command takes as a model."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from mnemoscope import config
from mnemoscope.errors import ConfigError, TextError
from mnemoscope.memory.tokenizer import named_tokenizer, rows
from mnemoscope.progress import Progress, Silent
from mnemoscope.rundir import RunDir, command, write_atomically
from mnemoscope.text import corpora
from mnemoscope.text.tokens import TokenStore
from mnemoscope.train import checkpoint
from mnemoscope.train.language_model import LanguageModel, Packed, held_out_nats, new_model
from mnemoscope.train.loop import fit
from mnemoscope.train.plan import Plan, fixed
from mnemoscope.train.processes import accelerator, by_main, device_name
from mnemoscope.train.tokenizer import sample, train_tokenizer
from mnemoscope.train.tracking import tracked
from mnemoscope.train.utilisation import flops_per_token, matmul_ceiling


def pretrain(study: config.Study, out: str | Path, progress: Progress | None = None) -> Path:
    """Pretrains the study's language model; resumable, by the same call.

    pretrained.json says what came of it: parameters, tokens, held-out nats, tokens a second (over all steps, with
    compilation and checkpoints) and how much of the device's matrix products that is (``train.utilisation``;
    ``device_flops`` and ``mfu`` are left out where they could not be measured).

    Returns:
        the model's folder, ``out``/model, in Hugging Face's layout.

    Raises:
        MnemoscopeError: whatever is wrong with the study or its text, before the training starts.
    """
    p, talk = study.pretrain, progress or Silent()
    if p is None or not study.text.train or not study.text.measure:
        raise ConfigError(
            "this study cannot pretrain", remedy="It needs [pretrain], [[text.train]] and held-out [[text.measure]]"
        )
    acc = accelerator(study.compute)
    by_main(acc, lambda: _prepare(RunDir(out, study), p, talk))
    run = RunDir(out, study, writes=acc.is_main_process)
    target = run.path / "model"
    if run.is_done("pretrain"):
        return target
    if not acc.is_main_process:
        talk = Silent()
    with run.stage("pretrain"):
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(str(run.path / "tokenizer"))
        adapter = new_model(p.architecture, p.shape, rows(tokenizer), tokenizer.eos_token_id, study.seed)
        adapter.scan = study.compute.scan
        parameters = sum(x.numel() for x in adapter.parameters())
        talk.say(
            f"{parameters:,} parameters, a memory of {adapter.spec().numbers:,} numbers, {rows(tokenizer):,} tokens"
        )
        train_store, test_store = _stores(run, tokenizer, talk)
        packed = Packed(train_store, tokenizer.eos_token_id)
        model = LanguageModel(adapter)
        plan = Plan(
            fixed(p.context, max(1, p.tokens // p.batch_tokens)), p.batch_tokens, p.optimiser, p.checkpoint_every
        )

        def loss(module: nn.Module, ids: Tensor) -> Tensor:
            nats: Tensor = module(ids)
            return nats

        before = _ceiling(acc)
        with (
            talk.task("pretraining", plan.tokens, "tokens") as bar,
            tracked(acc, study.compute.track, run.path / "tracking", "encoder") as log,
        ):
            curve = fit(
                model,
                loss,
                packed.draw,
                plan,
                seed=(study.seed,),
                identity=f"{study.digest()} pretrain",
                folder=run.checkpoints / "training" / "encoder",
                accelerator=acc,
                row={"run": study.name, "decoder": "encoder", "condition": "", "seed": study.seed},
                progress=lambda seen, _, nats: bar.at(seen, f"{nats:.3f} nats/token"),
                log=log,
            )
        if acc.is_main_process:
            nats, count = held_out_nats(
                model, test_store, p.context, p.held_out_tokens, max(1, study.compute.batch_tokens // p.context)
            )
            checkpoint.save_curve(curve, run.path / "curves.parquet")
            _save(adapter.model, tokenizer, target)
            facts = {
                "parameters": parameters,
                "training_tokens": curve[-1]["tokens"],
                "tokens_per_parameter": curve[-1]["tokens"] / parameters,
                "tokens_in_corpus": len(train_store.tokens),
                "held_out_nats_per_token": nats,
                "held_out_tokens": count,
                "seconds": curve[-1]["seconds"],
                **_speed(adapter.model, curve[-1]["tokens"] / curve[-1]["seconds"], before, acc),
                "device": device_name(acc),
            }
            write_atomically(run.path / "pretrained.json", json.dumps(facts, indent=1))
            run.note(command=command(), pretrained=facts)
            share = f"{facts['mfu']:.1%}" if "mfu" in facts else "not measured"
            talk.say(f"{facts['tokens_per_second']:,.0f} tokens/s; model-FLOPs utilisation {share}")
            talk.say(f"held-out loss {nats:.4f} nats/token over {count:,} tokens; the model is in {target}")
        acc.wait_for_everyone()
    if acc.is_main_process:
        checkpoint.discard(run.checkpoints / "training")
    return target


def _save(model: Any, tokenizer: Any, target: Path) -> None:
    """Writes the model's folder whole, or not at all."""
    unfinished = target.with_name("model.new")
    for stale in (unfinished, target):
        shutil.rmtree(stale, ignore_errors=True)
    model.save_pretrained(str(unfinished))
    tokenizer.save_pretrained(str(unfinished))
    os.replace(unfinished, target)


def _ceiling(acc: Accelerator) -> float:
    return matmul_ceiling(acc.device, torch.bfloat16 if acc.mixed_precision == "bf16" else torch.float32)


def _speed(model: nn.Module, tokens_per_second: float, before: float, acc: Accelerator) -> dict[str, float]:
    """Tokens a second of all processes together, and what share of their devices' matrix products that is; of the
    ceilings before and after the training the higher one, since others may use the device at either time."""
    per_token = flops_per_token(model)
    ceiling = max(before, _ceiling(acc))
    speed = {"tokens_per_second": tokens_per_second, "flops_per_token": per_token}
    if math.isnan(ceiling):
        return speed
    mfu = per_token * tokens_per_second / (ceiling * acc.num_processes)
    return {**speed, "device_flops": ceiling, "mfu": mfu}


def _prepare(run: RunDir, p: config.Pretrain, talk: Progress) -> None:
    """Everything that can go wrong with the input goes wrong here; the tokenizer and the token stores are made."""
    study = run.study
    with run.stage("prepare"):
        chosen = None if p.tokenizer is None else named_tokenizer(p.tokenizer)[0]
        vocabulary = p.vocabulary if chosen is None else rows(chosen)
        assert vocabulary is not None
        with torch.device("meta"):
            weights = 4 * sum(x.numel() for x in new_model(p.architecture, p.shape, vocabulary, 0, 0).parameters())
        with talk.task("checking text", 1, "") as bar:
            inputs = corpora.check([*study.text.train, *study.text.measure], lambda n, total: bar.at(n / max(1, total)))
        now = [asdict(i) for i in inputs]
        run.require_same("inputs", now)
        run.require_room(8 * weights + sum(i.text_bytes for i in inputs))
        run.note(inputs=now)
        if chosen is not None:
            taken = hashlib.sha256(chosen.backend_tokenizer.to_str().encode()).hexdigest()
            run.require_same("tokenizer", taken)
            run.note(tokenizer=taken)
        folder = run.path / "tokenizer"
        if not folder.exists():
            unfinished = folder.with_name("tokenizer.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            if chosen is None:
                assert p.tokenizer_bytes is not None
                texts = sample(corpora.read(study.text.train), p.tokenizer_bytes)
                train_tokenizer(texts, vocabulary, unfinished, talk.say)
            else:
                chosen.save_pretrained(str(unfinished))
            os.replace(unfinished, folder)
        train_store, test_store = _stores(run, PreTrainedTokenizerFast.from_pretrained(str(folder)), talk)
        for what, tokens in (
            ("text.train as a whole", len(train_store.tokens) - 1),
            (f"the longest document of text.measure, {test_store.longest!r},", int(np.diff(test_store.starts).max())),
        ):
            if tokens < p.context:
                raise TextError(
                    f"a context of {p.context} tokens does not fit into {what} which has {tokens}",
                    remedy="Give more text, or a shorter context",
                )


def _stores(run: RunDir, tokenizer: Any, talk: Progress) -> tuple[TokenStore, TokenStore]:
    """Training and held-out tokens."""
    with talk.task("tokenising", 1, "documents") as bar:
        show = lambda n, t: bar.at(0, f"{n:,} documents, {t:,} tokens")  # noqa: E731
        cache = run.path / "cache"
        train_store = TokenStore.build(run.study.text.train, tokenizer, cache, show)
        return train_store, TokenStore.build(run.study.text.measure, tokenizer, cache, show)
