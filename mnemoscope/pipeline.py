"""The stages, in order.  The only module that sees every layer; each stage can run again from the files before it.

prepare -> train -> reconstruct -> score -> estimate -> report
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch

from mnemoscope import annotating, config, learning, measuring, plugins, schema
from mnemoscope.codec.generate import Texts, Writer
from mnemoscope.codec.search import Particular
from mnemoscope.errors import ConfigError, RunError
from mnemoscope.memory import continuity
from mnemoscope.progress import Progress
from mnemoscope.rundir import RunDir, command, file_name, replacing
from mnemoscope.text import corpora
from mnemoscope.text.tokens import TokenStore
from mnemoscope.train import checkpoint, decoders
from mnemoscope.train.loop import fit
from mnemoscope.train.processes import accelerator, by_main
from mnemoscope.train.tracking import tracked
from mnemoscope.workshop import Workshop

_T = TypeVar("_T")

log = logging.getLogger(__name__)

STAGES = ("prepare", "train", "reconstruct", "score", "estimate", "report")


# ---- prepare --------------------------------------------------------------------------------------------------------


def prepare(shop: Workshop) -> None:
    """Everything that can go wrong with the input goes wrong here, before any long work: text, model, windows, room."""
    study, run = shop.study, shop.run
    if any(d.recipe != "trained" for d in study.decoders) and not study.text.train:
        raise ConfigError("decoders are to be trained and text.train is empty", remedy="Add [[text.train]]")
    if not study.text.measure:
        raise ConfigError("there is nothing to measure: text.measure is empty", remedy="Add [[text.measure]]")
    with run.stage("prepare"):
        with shop.progress.task("checking text", 1, "") as bar:
            inputs = corpora.check(
                [*study.text.train, *study.text.measure], lambda done, total: bar.at(done / max(1, total))
            )
        run.require_same("inputs", [asdict(i) for i in inputs])
        run.require_same("encoder", shop.loaded.digest)
        found = continuity.require(shop.loaded.adapter, shop.model_name)
        for decoder in study.decoders:
            decoders.check(decoder, run.checkpoints, shop.loaded.digest, study)
            if isinstance(search := plugins.load("search", decoder.search), Particular):
                search.require(shop.loaded.adapter)
            for name in decoder.conditions:
                condition = plugins.load("condition", name)
                for length in decoders.lengths_of(decoder, study):
                    condition.windows_to_read(shop.windows.windows[length])
                ids = torch.zeros(1, 1, dtype=torch.int64, device=shop.accelerator.device)
                condition.hand_over(shop.loaded.adapter.empty(1), ids, study.seed)
        tried = {decoder.name: _try(shop, decoder) for decoder in study.decoders if decoder.of is None}
        origins = {name: origin for name, (_, origin) in tried.items() if origin}
        run.require_same("origins", origins)
        searches = {d.name: _content(Path(d.path())) for d in study.decoders if d.path()}
        run.require_same("searches", searches)
        todo = [job for job in decoders.jobs(study) if not job.weights(run.checkpoints).exists()]
        for job in todo:
            job.plan(study.seed).require_shares(shop.accelerator.num_processes)
        for caution in dict.fromkeys(job.caution for job in todo if job.caution):
            shop.progress.say(caution)
        accounts = [asdict(a) for a in shop.windows.accounts.values()]
        nested = shop.windows_config.nested
        for a in accounts[-1:] if nested else accounts:
            if a["shorter"]:
                shop.progress.say(
                    f"{a['shorter']} of {a['documents']} documents are shorter than {a['length']} tokens and give no "
                    f"window{'' if nested else ' of that length'}"
                )
        annotating.annotate_windows(shop)
        run.require_room(_room(shop, sum(i.text_bytes for i in inputs), max(size for size, _ in tried.values())))
        run.note(
            inputs=[asdict(i) for i in inputs],
            encoder=shop.loaded.digest,
            origins=origins,
            searches=searches,
            continuity=asdict(found),
            windows=accounts,
            memory={"numbers": shop.loaded.adapter.spec().numbers, "bytes": shop.loaded.adapter.spec().bytes},
            parameters=sum(p.numel() for p in shop.loaded.adapter.parameters()),
        )


def _try(shop: Workshop, decoder: config.Decoder) -> tuple[int, str]:
    """Makes a decoder once before it is needed: its parameters, and the digest of the model that it begins as, empty if
    that is the encoder."""
    name, options = decoders.family_of(decoder, shop.run.checkpoints)
    if name == "native":
        return sum(p.numel() for p in shop.loaded.adapter.parameters()), ""
    made = shop.decoder(decoder)
    if made.origin:
        continuity.require(made.language, options["model"])
    decoders.require_origin(decoder, shop.run.checkpoints, made.origin)
    return sum(p.numel() for p in made.parameters()), made.origin


def _content(path: Path) -> dict[str, str]:
    """SHA-256 of a file, or of each file of a folder."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return {p.name: corpora.sha256(p) for p in files}


def _room(shop: Workshop, text_bytes: int, parameters: int) -> int:
    """Bytes that the run may still take: weights and optimiser of each decoder in training, weights of each trained
    one, training text as tokens (at most as many bytes as the text), records at a generous 200 bytes a token.

    Args:
        parameters: of the largest decoder.
    """
    weights = 4 * parameters
    trained = [job for job in decoders.jobs(shop.study) if not job.weights(shop.run.checkpoints).exists()]
    measured = sum(len(d.seeds) * len(d.conditions) for d in shop.study.decoders)
    tokens = sum(a.windows * a.length for a in shop.windows.accounts.values())
    training = weights * (len(trained) + 6) + text_bytes if trained else 0
    return training + 200 * tokens * measured


# ---- train ----------------------------------------------------------------------------------------------------------


def train(shop: Workshop, only: Sequence[str] = ()) -> None:
    """Trains every decoder of the study that is not trained yet; goes on from checkpoints.

    Args:
        only: train just those whose names begin so, e.g. ``growing/seed-1``, in this order: several processes can
            share a run's decoders among them.  The stage is done when all are trained.

    Raises:
        RunError: no decoder of the study is called so.
    """
    run, study, main = shop.run, shop.study, shop.accelerator.is_main_process
    todo = decoders.jobs(study)
    if not todo:
        return
    mine = _named(only, {f"{job.decoder.name}/{job.name}": job for job in todo}, run)
    unfinished = lambda: not all(job.weights(run.checkpoints).exists() for job in todo)  # noqa: E731
    with run.stage("train", unfinished, device=shop.device_name, processes=shop.accelerator.num_processes):
        with (
            shop.accelerator.main_process_first(),
            shop.progress.task("tokenising the training text", 1, "documents") as bar,
        ):
            store = TokenStore.build(
                study.text.train,
                shop.tokenizer,
                run.path / "cache",
                lambda n, t: bar.at(0, f"{n:,} documents, {t:,} tokens"),
            )
        untrained = [job for job in mine if not job.weights(run.checkpoints).exists()]
        for length in sorted({length for job in untrained for length in job.plan(study.seed).lengths.tolist()}):
            store.sample(np.random.default_rng(0), length, 1)  # a length that no document has is refused here
        for job in mine:
            if not job.weights(run.checkpoints).exists():
                _train(shop, store, job)
        if main:
            for decoder in study.decoders:
                if decoder.recipe != "trained":
                    folder = decoders.folder_of(decoder, run.checkpoints)
                    origin = run.manifest["origins"].get(decoder.name, "")
                    lengths = decoders.lengths_of(decoder, study)
                    decoders.describe(folder, decoder, lengths, shop.loaded.digest, origin)
            checkpoint.gather(sorted(run.checkpoints.glob("*/seed-*/*.curve.parquet")), run.path / "curves.parquet")
            learning.gather(run)
    if main and run.is_done("train"):
        checkpoint.discard(run.checkpoints / "training")


def _named(only: Sequence[str], things: dict[str, _T], run: RunDir) -> list[_T]:
    """The things whose names begin with the whole parts of one of ``only``, all if there is none: seed-1 is not
    seed-10."""
    found: dict[str, _T] = {}
    for start in only or [""]:
        mine = {n: t for n, t in things.items() if f"{n}/".startswith(f"{start.rstrip('/')}/" if start else "")}
        if not mine:
            raise RunError(f"no decoder is called {start!r}", remedy=f"There are: {', '.join(things)}", file=run.path)
        found |= mine
    return list(found.values())


def _train(shop: Workshop, store: TokenStore, job: decoders.Job) -> None:
    run, study = shop.run, shop.study
    plan = job.plan(study.seed)
    decoder = shop.decoder(job.decoder, job.seed)
    decoder.begin_training()
    unfinished = job.weights(run.checkpoints / "training").with_suffix("")
    identity = f"{study.digest(analysis=False)} {shop.loaded.digest} {job.decoder.name}/{job.name}"
    if decoder.origin:
        identity += f" from {decoder.origin}"
    row = {"run": study.name, "decoder": job.decoder.name, "condition": job.condition, "seed": job.seed}
    watched = job.decoder.evaluate
    curves = None
    if watched is not None:
        curves = learning.Learning(shop, job, decoder, learning.windows_of(shop, watched), unfinished)
    name = f"{job.decoder.name}/{job.name}"
    with (
        shop.progress.task(f"training {name}", plan.tokens, "tokens") as bar,
        tracked(shop.accelerator, study.compute.track, run.path / "tracking", name) as log,
    ):
        curve = fit(
            decoder,
            shop.loss(job.condition),
            store.sample,
            plan,
            seed=(study.seed, job.seed),
            identity=identity,
            folder=unfinished,
            accelerator=shop.accelerator,
            row=row,
            progress=lambda seen, _, nats: bar.at(seen, f"{nats:.3f} nats/token"),
            log=log,
            look=None if curves is None else curves.look,
            at=() if watched is None else plan.points(watched.times, watched.first),
        )
    decoder.end_training()
    if shop.accelerator.is_main_process:
        target = job.weights(run.checkpoints)
        target.parent.mkdir(parents=True, exist_ok=True)
        if curves is not None:
            curves.save(target.with_suffix(".learning.parquet"))
        checkpoint.save_curve(curve, target.with_suffix(".curve.parquet"))
        checkpoint.save_weights(decoder, target)
        checkpoint.discard(unfinished)
    shop.accelerator.wait_for_everyone()


# ---- reconstruct ----------------------------------------------------------------------------------------------------


def reconstruct(shop: Workshop, only: Sequence[str] = ()) -> None:
    """Measures every decoder under every condition at every length; one file each, so nothing done is lost.

    Args:
        only: measure just the decoders whose names begin so, e.g. ``growing/seed-1``, in this order.
    """
    run, study = shop.run, shop.study
    # a decoder is loaded once; conditions that share its texts follow each other, first the one that may predict them
    todo = {
        f"{d.name}/seed-{seed}/{condition}/L{length}": (d, seed, condition, length)
        for d in study.decoders
        for seed in d.seeds
        for trained in dict.fromkeys(plugins.load("condition", condition).trained_as for condition in d.conditions)
        for length in decoders.lengths_of(d, study)
        for condition in sorted(d.conditions, key=lambda name: plugins.load("condition", name).written_as != name)
        if plugins.load("condition", condition).trained_as == trained
    }
    if shop.keeps:  # it is loaded for each length instead: what was read of the windows is for all that is given them
        todo = dict(sorted(todo.items(), key=lambda item: (study.decoders.index(item[1][0]), item[1][3])))
    files = {name: run.path / "decoded" / f"{file_name(name.replace('/', '.'))}.parquet" for name in todo}
    mine = _named(only, {name: (*todo[name], files[name]) for name in todo}, run)
    unfinished = lambda: not all(f.exists() for f in files.values())  # noqa: E731
    with run.stage("reconstruct", unfinished, device=shop.device_name):
        total = sum(length * len(shop.windows.windows[length]) for *_, length, _ in mine)
        done = 0
        made: tuple[str, dict[str, Any]] | None = None
        loaded: Path | None = None
        texts, written_by = Texts(), ""
        with shop.progress.task("reconstructing", total, "tokens") as bar:
            for d, seed, condition, length, target in mine:
                windows = shop.windows.windows[length]
                label = f"{d.name} seed {seed} {condition} L={length}"
                if not target.exists():
                    source = decoders.source(d, study)
                    folder = decoders.folder_of(source, run.checkpoints)
                    file = decoders.find(folder, seed, plugins.load("condition", condition).trained_as, length)
                    if (kind := decoders.family_of(source, run.checkpoints)) != made:
                        writer, made, loaded = Writer(shop.decoder(d).to(shop.accelerator.device).eval()), kind, None
                    if file != loaded:
                        decoders.load_weights(writer.decoder, file)
                        loaded, texts = file, Texts()
                    if d.search != written_by:
                        texts, written_by = Texts(), d.search
                    key: dict[str, Any] = {"run": study.name, "model": shop.model_name, "decoder": d.name}
                    key |= {"condition": condition, "length": length, "seed": seed}
                    target.parent.mkdir(exist_ok=True)
                    with (
                        replacing(target) as part,
                        pq.ParquetWriter(part, schema.arrow("decoded"), compression="zstd") as out,
                    ):
                        seen = 0
                        search = plugins.load("search", d.search)
                        for batch in measuring.measure(shop, writer, condition, windows, key, texts, search):
                            out.write_table(batch)
                            seen += batch.num_rows
                            bar.at(done + seen * length, label)
                done += length * len(windows)
                bar.at(done, label)


# ---- score, estimate, report ----------------------------------------------------------------------------------------


def score(shop: Workshop) -> None:
    """Aligns every reconstruction with its window; writes reconstructions.parquet, tokens.parquet, annotations/."""
    from mnemoscope.score import records

    with shop.run.stage("score"):
        spell = shop.tokenizer.convert_ids_to_tokens
        records.write(shop.run.path / "decoded", shop.run.path, spell)


def estimate(shop: Workshop) -> None:
    """Ratios of sums over documents with their intervals, and the differences that the study asks for; writes
    estimates.parquet and effects.parquet, and convergence.parquet where training was evaluated."""
    from mnemoscope.stats.convergence import converge
    from mnemoscope.stats.effects import effects
    from mnemoscope.stats.estimate import estimate as make

    with shop.run.stage("estimate"):
        make(shop.run.path, shop.study)
        effects(shop.run.path, shop.study)
        converge(shop.run.path, shop.study)


def report(shop: Workshop, markdown: Path | None = None) -> None:
    """Writes figures/ and report.html.

    Args:
        markdown: a file that the estimates are written to as tables, too.
    """
    from mnemoscope.report import html
    from mnemoscope.report import markdown as tables

    with shop.run.stage("report"):
        html.write(shop.run.path, shop.study, shop.run.manifest)
        if markdown is not None:
            tables.write(shop.run.path, shop.study, shop.run.manifest, markdown)


def run(study: config.Study, out: str | Path, progress: Progress | None = None, until: str = "report") -> RunDir:
    """All stages of a study, in a run folder; the same call after an interruption goes on where it stopped.

    Args:
        out: the run folder.
        until: the last stage to run.

    Raises:
        MnemoscopeError: whatever is wrong with the study, its text or its model, before any long work starts.
    """
    if until not in STAGES:
        raise ConfigError(f"there is no stage {until!r}", remedy=f"There are: {', '.join(STAGES)}")
    last = STAGES.index(until)
    shop = _begin(study, out, progress, estimates=last >= STAGES.index("estimate"))
    if shop.accelerator.is_main_process:
        shop.run.note(command=command())
    for stage in STAGES[1 : last + 1]:
        if stage == "report" or not shop.run.is_done(stage):
            _perform(shop, stage)
    return shop.run


def again(stage: str, folder: str | Path, progress: Progress | None = None, **arguments: Any) -> None:
    """One stage of an existing run, from the files before it; those that read text or model check them anew.

    Args:
        arguments: of the stage's function.

    Raises:
        MnemoscopeError: there is no such run, or what it was made from has changed.
    """
    study = RunDir.open(folder).study
    if stage in ("train", "reconstruct"):
        shop = _begin(study, folder, progress)
    else:
        shop = Workshop(RunDir(folder, study), progress)
    _perform(shop, stage, **arguments)


def _begin(study: config.Study, out: str | Path, progress: Progress | None, estimates: bool = False) -> Workshop:
    """The run, its input checked by the main process, while any others wait.

    Args:
        estimates: whether ``estimate.by`` has to be right by now.
    """

    def check() -> Workshop:
        shop = Workshop(RunDir(out, study), progress)
        prepare(shop)
        if estimates:
            from mnemoscope.stats import effects
            from mnemoscope.stats.estimate import require_groups

            require_groups(shop.run.path, study.estimate.by)
            effects.require(shop.run.path, study)
        return shop

    return by_main(accelerator(study.compute), check) or Workshop(RunDir(out, study, writes=False))


def _perform(shop: Workshop, stage: str, **arguments: Any) -> None:
    """Training is for all processes; whatever else there is, the main one does, and nobody waits for it."""
    if stage == "train" or shop.accelerator.is_main_process:
        globals()[stage](shop, **arguments)
