"""Which facts of given texts a memory no longer holds after N tokens.

texts -> facts, by rules -> windows that begin with them -> decoder, with memory and without -> bits, worst first
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from mnemoscope import pipeline
from mnemoscope.facts.find import Found, Rules, find
from mnemoscope.facts.request import Request
from mnemoscope.progress import Progress
from mnemoscope.report import facts as page
from mnemoscope.rundir import RunDir, command
from mnemoscope.stats import facts as table
from mnemoscope.text import corpora
from mnemoscope.text.windows import WindowSet
from mnemoscope.workshop import Workshop


class _Shop(Workshop):
    """A workshop whose windows begin with facts."""

    def __init__(self, run: RunDir, request: Request, progress: Progress | None):
        super().__init__(run, progress)
        self.request, self.rules = request, Rules(request.kinds)

    @cached_property
    def found(self) -> Found:
        return find(
            corpora.read_with_record(self.study.text.measure, self.rules.fields),
            self.loaded.tokenizer,
            self.rules,
            self.windows_config.lengths,
            seed=self.study.seed,
            most=self.request.most,
        )

    @cached_property
    def windows(self) -> WindowSet:
        return self.found.windows


def check(request: Request, out: str | Path, progress: Progress | None = None) -> RunDir:
    """Measures the facts of texts; the same call after an interruption goes on.

    Writes ``facts.parquet``, ``facts_summary.parquet`` and ``facts.html``, beside the tables of a run.

    Raises:
        MnemoscopeError: whatever is wrong with the request, its texts, model or decoder, before any long work.
    """
    study = request.study()
    Rules(request.kinds)
    run = RunDir(out, study)
    asked = {"kinds": list(request.kinds), "most": request.most}
    run.require_same("check", asked)
    shop = _Shop(run, request, progress)
    pipeline.prepare(shop)
    found = shop.found
    run.note(check=asked, command=command(), facts={"total": found.total, "held": found.held})
    for length, facts in found.facts.items():
        if len(facts) < found.held[length]:
            shop.progress.say(f"after {length} tokens: {len(facts):,} of {found.held[length]:,} facts, drawn")
    for stage in (pipeline.reconstruct, pipeline.score):
        if not run.is_done(stage.__name__):
            stage(shop)
    with run.stage("estimate"):
        table.write(run.path, found.facts, study)
    with run.stage("report"):
        page.write(run.path, study, run.manifest)
    return run
