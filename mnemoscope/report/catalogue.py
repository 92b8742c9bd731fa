"""Which charts there are: of a run, for its page; of several, for a paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from mnemoscope.report import bracket as ends
from mnemoscope.report import groups, learning, lengths
from mnemoscope.report.charts import PALETTE, Chart, colours, conditions

#: what a paper shows, with what it takes
WANTED = {
    "length": "estimates under some condition",
    "size": "runs of models of two sizes or more, on the same texts",
    "domain": "two kinds of text or more, and 'domain' in estimate.by",
    "dialect": "two dialects or more, and 'pair' or 'dialect' in estimate.by",
    "pos": "an annotation named 'pos', and 'pos' in estimate.by",
    "entity": "an annotation named 'entity', and 'entity' in estimate.by",
    "position": "'position' in estimate.by",
    "surprisal": "an annotation named 'surprisal', and 'surprisal' in estimate.by",
    "frequency": "an annotation named 'frequency', and 'frequency' in estimate.by",
}
_FIRST = ("domain", "position", "pos", "entity", "surprisal", "frequency")


@dataclass(frozen=True, slots=True)
class Source:
    """A run, as charts need it.

    Attributes:
        name: of its study.
        label: of its model, such as ``mamba-nano, 1.9 M``.
        parameters: of its model; 0 if the run does not say.
        texts: equal for runs that measured the same texts in the same windows.
        decoders: that it has, in the study's order; where a chart shows one, it is the first.
        estimates: by ``schema.ESTIMATES``.
        effects: by ``schema.EFFECTS``, if there are any.
    """

    name: str
    label: str
    parameters: int
    texts: str
    decoders: list[str]
    estimates: pl.DataFrame
    effects: pl.DataFrame | None = None

    def by(self, by: str) -> pl.DataFrame:
        """Estimates of the first decoder, seeds pooled."""
        return self.estimates.filter(pl.col("by") == by, seed="all", decoder=self.decoders[0])


def of_run(
    estimates: pl.DataFrame,
    curves: pl.DataFrame | None,
    decoders: list[str],
    effects: pl.DataFrame | None = None,
    convergence: pl.DataFrame | None = None,
    floor: pl.DataFrame | None = None,
    bracket: pl.DataFrame | None = None,
    floors: pl.DataFrame | None = None,
) -> list[Chart]:
    """Every chart that the tables of a run can fill, in the order of the page.

    Args:
        estimates: by ``schema.ESTIMATES``.
        curves: by ``schema.CURVES``, if there are any.
        decoders: the decoders in the study's order.
        effects: by ``schema.EFFECTS``, if there are any.
        convergence: by ``schema.CONVERGENCE``, if training was evaluated.
        floor: by ``schema.ESTIMATES``, what is certainly lost at one precision of storage, if that is known.
        bracket, floors: tables of these names, if the run has a bracket.
    """
    pooled = estimates.filter(pl.col("seed") == "all")
    present = [d for d in decoders if d in pooled["decoder"]]
    if not present:
        return []
    run = Source("", "", 0, "", present, pooled, effects)
    everything = pooled.filter(pl.col("by") == "all")
    charts = [
        lengths.kept(everything, present),
        lengths.lost(everything, present, floor),
        *([] if bracket is None else ends.of_bracket(bracket, floors, convergence is not None)),
        lengths.decoders_compared(everything, present),
        lengths.beside_published("rouge", "What is kept, as it was published", {"": run.by("all")}, ("rouge1",)),
        *_over_length([run]),
        *(_by_condition(run, by) for by in _groupings([run])),
        *([] if effects is None else groups.of_effects(effects)),
        None if curves is None else lengths.learning(curves, present),
        *([] if convergence is None else learning.of_training(convergence, present)),
    ]
    return [c for c in charts if c is not None and c.panels]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page, with its anchor."""

    anchor: str
    title: str
    charts: list[Chart]


#: the parts of the page that hold charts by group, in order
_SECTIONS = {
    "text": "By kind of text",
    "class": "By class of token",
    "dialect": "By dialect",
    "position": "By place in the window",
    "quantity": "By frequency, surprisal and other quantities",
}


def sections(charts: list[Chart]) -> list[Section]:
    """The charts by length, then those by group, in the order of the page; parts without a chart are left out."""
    of: dict[str, list[Chart]] = {"length": [], "bracketed": [], **{anchor: [] for anchor in _SECTIONS}}
    for chart in charts:
        if chart.name in ("retention", "omission", "decoders", "rouge"):
            of["length"].append(chart)
        elif chart.name in ("bracket", "bracket-classes", "floors"):
            of["bracketed"].append(chart)
        elif chart.name in ("convergence", "asymptote") and of["bracketed"]:
            of["bracketed"].append(chart)  # a loss is shown beside its curve
        elif chart.name == "domain-length" or chart.name == "by-domain":
            of["text"].append(chart)
        elif chart.name in ("dialect-length", "by-dialect", "by-pair"):
            of["dialect"].append(chart)
        elif chart.name == "by-position":
            of["position"].append(chart)
        elif chart.name.startswith("by-"):
            of["quantity" if chart.kind == "lines" else "class"].append(chart)
    named = {"length": "What is kept as texts grow longer", "bracketed": "Whose loss is it"}
    titles = {**named, **_SECTIONS}
    return [Section(anchor, titles[anchor], found) for anchor, found in of.items() if found]


def of_runs(runs: list[Source]) -> tuple[list[Chart], dict[str, str]]:
    """The charts of a paper from runs, and those of ``WANTED`` that the runs cannot fill, with what each takes.

    Runs on the same texts share a chart; where runs on several texts fill the same one, the study's name tells them
    apart.  Charts by group show the longest windows; their tables are those of :func:`of_run`.
    """
    of_texts: dict[str, list[Source]] = {}
    for run in sorted(runs, key=lambda run: run.parameters):
        of_texts.setdefault(run.texts, []).append(run)
    # in the order in which the runs were given
    batches = [of_texts[texts] for texts in dict.fromkeys(run.texts for run in runs)]
    made = [(batch[0].name, chart) for batch in batches for chart in _of_batch(_told_apart(batch))]
    made.sort(key=lambda of: list(WANTED).index(topic) if (topic := _topic(of[1])) in WANTED else len(WANTED))
    names = [chart.name for _, chart in made]
    charts: dict[str, Chart] = {}
    for study, chart in made:
        name = stem = chart.name if names.count(chart.name) == 1 else f"{chart.name}-{study}"
        again = 1
        while name in charts:
            again += 1
            name = f"{stem}-{again}"
        title = chart.title if name == chart.name else f"{chart.title} ({study})"
        charts[name] = replace(chart, name=name, title=title)
    there = {_topic(chart) for _, chart in made}
    return list(charts.values()), {name: takes for name, takes in WANTED.items() if name not in there}


def _topic(chart: Chart) -> str:
    """Which of ``WANTED`` it is, if any."""
    return chart.name.removeprefix("by-").removesuffix("-length")


def _told_apart(batch: list[Source]) -> list[Source]:
    """Runs of one model have their study's name in the label."""
    labels = [run.label for run in batch]
    return [r if labels.count(r.label) == 1 else replace(r, label=f"{r.label} ({r.name})") for r in batch]


def _of_batch(batch: list[Source]) -> Iterator[Chart]:
    """The charts of runs on the same texts, the smallest model first."""
    whole = {run.label: run.by("all") for run in batch}
    length = lengths.beside_published("length", "What is kept and lost, by length", whole, lengths.MEASURES)
    if length is not None:
        yield length
    sized = {run.label: run.by("all") for run in batch if run.parameters}
    if len({run.parameters for run in batch if run.parameters}) > 1:
        yield lengths.sizes(sized)
    yield from _over_length(batch)
    for by in _groupings(batch):
        # of dialects and kinds of text, the chart over lengths is the paper's
        if by not in ("domain", "dialect", "pair"):
            holding = [run for run in batch if run.by(by).height]
            chart = _by_condition(holding[0], by) if len(holding) == 1 else _by_model(holding, by)
            yield longest(chart)
    for run in batch:
        if run.effects is not None:
            for chart in map(longest, groups.of_effects(run.effects)):
                model = run.label.partition(",")[0]
                if len(batch) > 1:
                    chart = replace(chart, name=f"{chart.name}-{model}", title=f"{chart.title}, {model}")
                yield chart


def longest(chart: Chart) -> Chart:
    """Its last tab, which is that of the longest windows."""
    return replace(chart, panels=[p for p in chart.panels if p.tab == chart.tabs[-1]]) if chart.panels else chart


def _groupings(runs: list[Source]) -> list[str]:
    """What the runs are grouped by: those that the paper has first, then the others by name."""
    found = {by for run in runs for by in run.estimates["by"].unique()} - {"all"}
    return [b for b in _FIRST if b in found] + sorted(found - set(_FIRST))


def _over_length(runs: list[Source]) -> Iterator[Chart]:
    """Kind of text and dialect by length, where there are two of them; texts in pairs rather than all."""
    for choice in (("domain",), ("pair", "dialect")):
        for by in choice:
            of = {run.label: found for run in runs if (found := run.by(by))["group"].n_unique() > 1}
            chart = lengths.groups_by_length(by, of) if of else None
            if chart is not None:
                yield chart
                break


def _by_condition(run: Source, by: str) -> Chart:
    rows = run.by(by).with_columns(line="condition")
    effects = run.effects
    if effects is not None:
        effects = effects.filter(decoder=run.decoders[0]).with_columns(line="condition")
    return groups.by_group(by, rows, colours(conditions(rows)), effects)


def _by_model(runs: list[Source], by: str) -> Chart:
    """Under the real memory, a line per model."""
    colour = {run.label: PALETTE[i % len(PALETTE)] for i, run in enumerate(runs)}
    rows = [r.by(by).filter(condition="memory").with_columns(line=pl.lit(r.label)) for r in runs]
    effects = [
        r.effects.filter(decoder=r.decoders[0]).with_columns(line=pl.lit(r.label))
        for r in runs
        if r.effects is not None
    ]
    return groups.by_group(by, pl.concat(rows), colour, pl.concat(effects) if effects else None)
