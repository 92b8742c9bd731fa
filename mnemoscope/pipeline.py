"""The stages, in order.  The only module that sees every layer; each stage can run again from the files before it.

prepare -> train -> reconstruct -> score -> estimate -> report
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mnemoscope import config, plugins, schema
from mnemoscope.codec.decoder import Decoder, encode
from mnemoscope.codec.generate import Reconstruction, Texts, Writer
from mnemoscope.controls import Condition
from mnemoscope.errors import ConfigError, RunError
from mnemoscope.memory import continuity
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.load import Loaded, load, special_tokens
from mnemoscope.memory.memory import Memory
from mnemoscope.progress import Progress, Silent
from mnemoscope.rundir import RunDir, command, file_name, replacing
from mnemoscope.text import corpora
from mnemoscope.text.tokens import TokenStore
from mnemoscope.text.windows import WindowSet, cut
from mnemoscope.train import checkpoint, decoders
from mnemoscope.train.loop import fit
from mnemoscope.train.processes import accelerator, by_main, device_name
from mnemoscope.train.step import Loss
from mnemoscope.types import IntArray, Window

_T = TypeVar("_T")

log = logging.getLogger(__name__)

#: tokens in a measuring batch on a CPU, at most
CPU_TOKENS = 4096

STAGES = ("prepare", "train", "reconstruct", "score", "estimate", "report")


class Workshop:
    """A run folder, and what several stages need: made once, when it is first needed."""

    def __init__(self, run: RunDir, progress: Progress | None = None):
        self.run, self.study = run, run.study
        self.progress: Progress = progress or Silent()
        if self.study.model is None or self.study.windows is None or not self.study.decoders:
            raise ConfigError(
                "this study measures nothing",
                remedy="It needs [model], [windows] and a [[decoders]]; to pretrain, use mnemoscope pretrain",
                file=run.path / "study.toml",
            )
        self.model_name, self.windows_config = self.study.model.name, self.study.windows

    @cached_property
    def accelerator(self) -> Accelerator:
        return accelerator(self.study.compute)

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

    @cached_property
    def special(self) -> tuple[int, int]:
        assert self.loaded.tokenizer is not None
        return special_tokens(self.loaded.tokenizer, self.loaded.adapter.model.config)

    @cached_property
    def windows(self) -> WindowSet:
        w = self.windows_config
        return cut(
            corpora.read(self.study.text.measure),
            self.loaded.tokenizer,
            w.lengths,
            w.prefix,
            seed=self.study.seed,
            tokens_per_length=w.tokens_per_length,
        )

    def decoder(self) -> Decoder:
        """A fresh decoder, with the encoder's weights."""
        return Decoder.from_encoder(self.loaded.adapter, *self.special)

    def encode(self, reader: Adapter, ids: Tensor) -> Memory:
        """The memory of windows, the study's prefix read before them."""
        bos = self.special[0] if self.windows_config.prefix == "bos" else None
        return encode(reader, ids, bos=bos)

    @torch.no_grad()
    def start(self, condition: Condition, ids: Tensor) -> Memory:
        """What a decoder starts from under a condition, the encoder having read the windows [B, L]."""
        encoder, seed = self.loaded.adapter, self.study.seed
        read = self.encode(condition.reader(encoder, seed), ids) if condition.reads else encoder.empty(len(ids))
        return condition.hand_over(read, ids, seed)

    def loss(self, condition_name: str) -> Loss:
        """What a decoder that is trained under a condition has to make small."""
        condition = plugins.load("condition", condition_name)

        def loss(decoder: nn.Module, ids: Tensor) -> Tensor:
            nats: Tensor = decoder(self.start(condition, ids), ids)[0]
            return nats

        return loss


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
        same_as_before(run, "inputs", [asdict(i) for i in inputs])
        same_as_before(run, "encoder", shop.loaded.digest)
        found = continuity.require(shop.loaded.adapter, shop.model_name)
        for decoder in study.decoders:
            decoders.check(decoder, run.checkpoints, shop.loaded.digest, study)
            for name in decoder.conditions:
                condition = plugins.load("condition", name)
                for length in decoders.lengths_of(decoder, study):
                    condition.windows_to_read(shop.windows.windows[length])
                ids = torch.zeros(1, 1, dtype=torch.int64, device=shop.accelerator.device)
                condition.hand_over(shop.loaded.adapter.empty(1), ids, study.seed)
        for job in decoders.jobs(study):
            job.plan(study.seed).require_shares(shop.accelerator.num_processes)
        accounts = [asdict(a) for a in shop.windows.accounts.values()]
        for a in accounts:
            if a["shorter"]:
                shop.progress.say(
                    f"{a['shorter']} of {a['documents']} documents are shorter than {a['length']} tokens and give no "
                    f"window of that length"
                )
        _annotate(shop)
        run.require_room(_room(shop, sum(i.text_bytes for i in inputs)))
        run.note(
            inputs=[asdict(i) for i in inputs],
            encoder=shop.loaded.digest,
            continuity=asdict(found),
            windows=accounts,
            memory={"numbers": shop.loaded.adapter.spec().numbers, "bytes": shop.loaded.adapter.spec().bytes},
            parameters=sum(p.numel() for p in shop.loaded.adapter.parameters()),
        )


def same_as_before(run: RunDir, what: str, now: Any) -> None:
    """Raises RunError if the manifest says otherwise.  Where files lie, their ``name``, does not matter."""

    def content(value: Any) -> Any:
        is_list = isinstance(value, list)
        return [{k: v for k, v in item.items() if k != "name"} for item in value] if is_list else value

    before = run.manifest.get(what)
    if before is not None and content(before) != content(now):
        raise RunError(
            f"the {what} of this run changed since it was begun",
            remedy="Restore them, or give another --out: a run's numbers come from one set of files",
            file=run.path / "manifest.json",
        )


def _annotate(shop: Workshop) -> None:
    """Writes annotations/<name>.parquet: the spans of the documents that have a window, by each annotation of the
    study; those that are there already, made from the same, stay."""
    if not shop.study.annotations:
        return
    from mnemoscope import annotate
    from mnemoscope.annotate._reader import Reader

    run, texts = shop.run, shop.windows.texts
    bos = shop.special[0] if shop.windows_config.prefix == "bos" else None
    reader = Reader(shop.loaded, shop.windows, bos, shop.study.compute.batch_tokens)
    for wanted in shop.study.annotations:
        made, before = _made_from(wanted), run.manifest.get("annotations", {})
        if before.get(wanted.name) == made and (run.path / "annotations" / f"{wanted.name}.parquet").exists():
            continue
        kind = plugins.load("annotation", wanted.kind)
        annotator = kind(wanted.argument, reader) if kind.reads else kind(wanted.argument)
        documents = corpora.read_with_record(shop.study.text.measure, annotator.fields)
        with shop.progress.task(f"annotation {wanted.name}", len(texts), "documents") as bar:
            chosen = (
                (d, r)
                for d, r in documents
                if d.doc_id in texts and (wanted.domains is None or d.domain in wanted.domains)
            )
            measured = _counted(chosen, bar)
            spans = annotate.collect(annotator, measured, wanted.labels)
            annotate.write(spans, run.path, wanted.name)
        run.note(annotations={**before, wanted.name: made})
        run.undo("estimate", "report")


def _made_from(wanted: config.Annotation) -> str:
    """What decides an annotation's spans beside the texts: its section of the study, and its file's content."""
    path = Path(wanted.path()).expanduser()
    content = corpora.sha256(path) if wanted.path() and path.is_file() else wanted.argument
    kind = wanted.argument.removesuffix(wanted.path()) if wanted.path() else ""
    return json.dumps([wanted.kind, kind, content, wanted.labels, wanted.domains], sort_keys=True)


def _counted(items: Iterable[_T], bar: Any) -> Iterator[_T]:
    for number, item in enumerate(items):
        bar.at(number)
        yield item


def _room(shop: Workshop, text_bytes: int) -> int:
    """Bytes that the run may still take: weights and optimiser of each decoder in training, weights of each trained
    one, training text as tokens (at most as many bytes as the text), records at a generous 200 bytes a token."""
    weights = sum(p.numel() * 4 for p in shop.loaded.adapter.parameters())
    trained = [job for job in decoders.jobs(shop.study) if not job.weights(shop.run.checkpoints).exists()]
    measured = sum(len(d.seeds) * len(d.conditions) for d in shop.study.decoders)
    tokens = sum(a.windows * a.length for a in shop.windows.accounts.values())
    training = weights * (len(trained) + 6) + text_bytes if trained else 0
    return training + 200 * tokens * measured


# ---- train ----------------------------------------------------------------------------------------------------------


def train(shop: Workshop, only: str = "") -> None:
    """Trains every decoder of the study that is not trained yet; goes on from checkpoints.

    Args:
        only: train just those whose name begins so, e.g. ``growing/seed-1``: several processes can share a run's
            decoders among them.  The stage is done when all are trained.

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
                _tokenizer(shop),
                run.path / "cache",
                lambda n, t: bar.at(0, f"{n:,} documents, {t:,} tokens"),
            )
        for length in sorted({length for job in mine for length in job.plan(study.seed).lengths.tolist()}):
            store.sample(np.random.default_rng(0), length, 1)  # a length that no document has is refused here
        for job in mine:
            if not job.weights(run.checkpoints).exists():
                _train(shop, store, job)
        if main:
            for decoder in study.decoders:
                if decoder.recipe != "trained":
                    folder = decoders.folder_of(decoder, run.checkpoints)
                    decoders.describe(folder, decoder, decoders.lengths_of(decoder, study), shop.loaded.digest)
            _gather_curves(run)
    if main and run.is_done("train"):
        checkpoint.discard(run.checkpoints / "training")


def _named(only: str, things: dict[str, _T], run: RunDir) -> list[_T]:
    """The things whose name begins with the whole parts of ``only``: seed-1 is not seed-10."""
    found = [thing for name, thing in things.items() if f"{name}/".startswith(f"{only.rstrip('/')}/" if only else "")]
    if not found:
        raise RunError(f"no decoder is called {only!r}", remedy=f"There are: {', '.join(things)}", file=run.path)
    return found


def _tokenizer(shop: Workshop) -> Any:
    assert shop.loaded.tokenizer is not None
    return shop.loaded.tokenizer


def _train(shop: Workshop, store: TokenStore, job: decoders.Job) -> None:
    run, study = shop.run, shop.study
    plan = job.plan(study.seed)
    decoder = shop.decoder()
    unfinished = job.weights(run.checkpoints / "training").with_suffix("")
    identity = f"{study.digest(analysis=False)} {shop.loaded.digest} {job.decoder.name}/{job.name}"
    row = {"run": study.name, "decoder": job.decoder.name, "condition": job.condition, "seed": job.seed}
    with shop.progress.task(f"training {job.decoder.name}/{job.name}", plan.tokens, "tokens") as bar:
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
        )
    if shop.accelerator.is_main_process:
        target = job.weights(run.checkpoints)
        target.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save_curve(curve, target.with_suffix(".curve.parquet"))
        checkpoint.save_weights(decoder, target)
        checkpoint.discard(unfinished)
    shop.accelerator.wait_for_everyone()


def _gather_curves(run: RunDir) -> None:
    files = sorted(run.checkpoints.glob("*/seed-*/*.curve.parquet"))
    with replacing(run.path / "curves.parquet") as part:
        pq.write_table(pa.concat_tables([pq.read_table(f) for f in files]), part, compression="zstd")


# ---- reconstruct ----------------------------------------------------------------------------------------------------


def reconstruct(shop: Workshop, only: str = "") -> None:
    """Measures every decoder under every condition at every length; one file each, so nothing done is lost.

    Args:
        only: measure just the decoders whose name begins so, e.g. ``growing/seed-1``.
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
    files = {name: run.path / "decoded" / f"{file_name(name.replace('/', '.'))}.parquet" for name in todo}
    mine = _named(only, {name: (*todo[name], files[name]) for name in todo}, run)
    unfinished = lambda: not all(f.exists() for f in files.values())  # noqa: E731
    with run.stage("reconstruct", unfinished, device=shop.device_name):
        total = sum(length * len(shop.windows.windows[length]) for *_, length, _ in mine)
        done = 0
        decoder = shop.decoder().to(shop.accelerator.device).eval()
        writer = Writer(decoder)
        loaded: Path | None = None
        texts = Texts()
        with shop.progress.task("reconstructing", total, "tokens") as bar:
            for d, seed, condition, length, target in mine:
                windows = shop.windows.windows[length]
                label = f"{d.name} seed {seed} {condition} L={length}"
                if not target.exists():
                    folder = decoders.folder_of(d, run.checkpoints)
                    file = decoders.find(folder, seed, plugins.load("condition", condition).trained_as, length)
                    if file != loaded:
                        decoders.load_weights(decoder, file)
                        loaded, texts = file, Texts()
                    key: dict[str, Any] = {"run": study.name, "model": shop.model_name, "decoder": d.name}
                    key |= {"condition": condition, "length": length, "seed": seed}
                    with _decoded(target) as out:
                        seen = 0
                        for batch in measure(shop, writer, condition, windows, key, texts):
                            out.write_table(batch)
                            seen += batch.num_rows
                            bar.at(done + seen * length, label)
                done += length * len(windows)
                bar.at(done, label)


#: columns of schema.DECODED that are attributes of a window
_OF_WINDOW = ("doc_id", "window_id", "domain", "source", "dialect", "prefix")


@contextmanager
def _decoded(target: Path) -> Iterator[pq.ParquetWriter]:
    target.parent.mkdir(exist_ok=True)
    with replacing(target) as part, pq.ParquetWriter(part, schema.arrow("decoded"), compression="zstd") as out:
        yield out


def batch_windows(shop: Workshop, length: int) -> int:
    """Windows of a length that are measured together: no more on a CPU than what its caches hold pays for."""
    most = CPU_TOKENS if shop.accelerator.device.type == "cpu" else shop.study.compute.batch_tokens
    return max(1, min(most, shop.study.compute.batch_tokens) // length)


def measure(
    shop: Workshop, writer: Writer, condition_name: str, windows: Sequence[Window], key: dict[str, Any], texts: Texts
) -> Iterator[pa.Table]:
    """Windows of one length in batches, by ``schema.DECODED``; ``key`` is the same for all rows, and so is the decoder
    whose ``texts`` are given."""
    decoder, device = writer.decoder, shop.accelerator.device
    condition = plugins.load("condition", condition_name)
    read = condition.windows_to_read(windows)
    length = windows[0].length
    held = texts.held(condition.written_as, length)
    size = batch_windows(shop, length)
    done = 0
    while done < len(windows):
        batch, source = windows[done : done + size], read[done : done + size]
        names = [w.window_id if condition.reads else "" for w in source]
        ids = np.stack([w.token_ids for w in batch])
        try:
            with torch.no_grad():
                memory = shop.start(condition, torch.from_numpy(np.stack([w.token_ids for w in source])).to(device))
                nats, predicted = decoder(memory, torch.from_numpy(ids).to(device))
            predictions = predicted.cpu().numpy()
            # while it predicts the window's own tokens, what it writes is these
            ends = np.pad(ids, ((0, 0), (0, 1)), constant_values=decoder.eos)
            for row in np.flatnonzero((predictions == ends).all(1)):
                held[names[row]] = Reconstruction(ids[row].tolist(), True)
            # the first row of each text that is missing
            rows = list({name: row for row, name in reversed([*enumerate(names)]) if name not in held}.values())
            if rows:
                new = writer.write(memory.rows(torch.tensor(rows, device=device)), length)
                held.update(zip((names[row] for row in rows), new, strict=True))
            written = [held[name] for name in names]
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise RunError(
                    f"the device's memory does not hold a window of {length} tokens",
                    remedy="Leave out the longest windows, or use a larger device",
                ) from error
            size = len(batch) // 2
        else:
            done += len(batch)
            yield columns(shop, key, batch, ids, nats.cpu().numpy(), predictions, written)
            continue
        # after the handler, whose traceback holds on to the tensors
        log.warning("out of memory: windows of %d tokens are now measured %d at a time", length, size)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def columns(
    shop: Workshop,
    key: dict[str, Any],
    batch: Sequence[Window],
    ids: IntArray,
    nats: npt.NDArray[np.float32],
    predicted: IntArray,
    written: Sequence[Reconstruction],
) -> pa.Table:
    """A batch's rows; nats and predicted [windows, L + 1], the last of them EOS."""
    texts = _tokenizer(shop).batch_decode([w.ids for w in written], clean_up_tokenization_spaces=False)
    columns = {
        **{name: [value] * len(batch) for name, value in key.items()},
        **{name: [getattr(w, name) for w in batch] for name in _OF_WINDOW},
        "reference_ids": _lists(ids),
        "char_start": _lists(np.stack([w.char_start for w in batch])),
        "char_end": _lists(np.stack([w.char_end for w in batch])),
        # EOS is scored in training and not here: it is no token of the source
        "predicted_ids": _lists(predicted[:, :-1]),
        "token_nats": _lists(nats[:, :-1]),
        "reconstruction_ids": [w.ids for w in written],
        "stopped": [w.stopped for w in written],
        "reference": [shop.windows.window_text(w) for w in batch],
        "reconstruction": texts,
    }  # fmt: skip
    wanted = schema.arrow("decoded")
    # _lists gives the widest integers, the schema says which
    return pa.table([pa.array(columns[c.name]).cast(c.type) for c in wanted], schema=wanted)


def _lists(rows: npt.NDArray[Any]) -> pa.ListArray:
    """An array [windows, L] as a column of lists."""
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(rows).reshape(-1))


# ---- score, estimate, report ----------------------------------------------------------------------------------------


def score(shop: Workshop) -> None:
    """Aligns every reconstruction with its window; writes reconstructions.parquet, tokens.parquet, annotations/."""
    from mnemoscope.score import records

    with shop.run.stage("score"):
        spell = _tokenizer(shop).convert_ids_to_tokens
        records.write(shop.run.path / "decoded", shop.run.path, spell)


def estimate(shop: Workshop) -> None:
    """Ratios of sums over documents with their intervals, and the differences that the study asks for; writes
    estimates.parquet and effects.parquet."""
    from mnemoscope.stats.effects import effects
    from mnemoscope.stats.estimate import estimate as make

    with shop.run.stage("estimate"):
        make(shop.run.path, shop.study)
        effects(shop.run.path, shop.study)


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
