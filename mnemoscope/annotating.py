"""Annotations of a study's windows: annotations/<name>.parquet of a run, a file for each annotation that it names."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mnemoscope import annotate, config, plugins
from mnemoscope.annotate._reader import Reader
from mnemoscope.errors import ConfigError
from mnemoscope.text import corpora
from mnemoscope.types import Document
from mnemoscope.workshop import Workshop

log = logging.getLogger(__name__)

_T = TypeVar("_T")


def annotate_windows(shop: Workshop) -> None:
    """Writes annotations/<name>.parquet: the spans of the documents that have a window, by each annotation of the
    study; those that are there already, made from the same, stay."""
    if not shop.study.annotations:
        return
    run, texts = shop.run, shop.windows.texts
    _refuse_strange_domains(shop)
    reader = Reader(shop.loaded, shop.windows, shop.bos, shop.study.compute.batch_tokens)
    for wanted in shop.study.annotations:
        made, before = _made_from(wanted), run.manifest.get("annotations", {})
        if before.get(wanted.name) == made and (run.path / "annotations" / f"{wanted.name}.parquet").exists():
            continue
        kind = plugins.load("annotation", wanted.kind)
        annotator = kind(wanted.argument, reader) if kind.reads else kind(wanted.argument)
        known: set[str] = set()
        with shop.progress.task(f"annotation {wanted.name}", len(texts), "documents") as bar:
            measured = _counted(_documents(shop, wanted, annotator.fields, known), bar)
            spans = annotate.collect(annotator, measured, wanted.labels)
            annotate.write(spans, run.path, wanted.name)
        if spans.is_empty():
            shop.progress.say(f"annotation {wanted.name}: there is none in these texts, and nothing is told of it")
        if strange := annotator.strangers(known):
            log.warning(
                "annotation %s: it has spans of %s that no text measured is called, and they are left out: %s",
                wanted.name,
                "1 document" if len(strange) == 1 else f"{len(strange):,} documents",
                ", ".join(map(repr, strange[:3])) + (" ..." if len(strange) > 3 else ""),
            )
        run.note(annotations={**before, wanted.name: made})
        run.undo("estimate", "bracket", "report")


def _documents(
    shop: Workshop, wanted: config.Annotation, fields: Sequence[str], known: set[str]
) -> Iterator[tuple[Document, dict[str, Any]]]:
    """The documents to be annotated, with their records; the ids of all there are become ``known``."""
    for document, record in corpora.read_with_record(shop.study.text.measure, fields):
        known.add(document.doc_id)
        if document.doc_id in shop.windows.texts and (wanted.domains is None or document.domain in wanted.domains):
            yield document, record


def _refuse_strange_domains(shop: Workshop) -> None:
    """Refuses an annotation of a domain of which there is no window: it would label nothing."""
    there = {w.domain for some in shop.windows.windows.values() for w in some}
    for wanted in shop.study.annotations:
        if strange := sorted(set(wanted.domains or ()) - there):
            raise ConfigError(
                f"the annotation {wanted.name!r} is of domains {strange}, of which there is no window",
                remedy=f"Name some of {sorted(there)}",
                file=shop.run.path / "study.toml",
            )


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
