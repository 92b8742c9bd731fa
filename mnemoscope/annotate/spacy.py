"""Part of speech and named entities from any installed spaCy pipeline, for text without gold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mnemoscope.annotate import Annotator, Span
from mnemoscope.annotate._gold import chunks
from mnemoscope.errors import ConfigError, TextError
from mnemoscope.types import Document


class Spacy(Annotator):
    """``pos en_core_web_sm`` or ``ner /path/of/a/pipeline``: Universal POS tags, or entities and ``O`` between them.

    What it says is the pipeline's guess; the pipeline's name and version belong beside any number made of it.  Raw text
    is tokenised by the pipeline, and its white space has no label.

    Raises:
        ConfigError: spaCy or the pipeline is not installed, or the pipeline has no entities to give.
    """

    wants = "pos or ner, a space, and the name or the path of a spaCy pipeline: pos en_core_web_sm"

    def __init__(self, argument: str):
        super().__init__(argument)
        self.what, _, self.name = argument.partition(" ")
        if self.what not in ("pos", "ner") or not self.name.strip():
            raise ConfigError(f"the argument {argument!r} of a spacy annotation", remedy=f"Give {self.wants}")
        try:
            import spacy
        except ImportError:
            raise ConfigError("spaCy is not installed", remedy="Install it: pip install 'mnemoscope[spacy]'") from None
        try:
            self._nlp = spacy.load(self.name.strip())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the spaCy pipeline {self.name!r} cannot be loaded ({str(error).splitlines()[0]})",
                remedy=f"Install it: python -m spacy download {self.name}",
            ) from None
        given = {what for pipe in self._nlp.pipe_names for what in self._nlp.get_pipe_meta(pipe).assigns}
        if self.what == "ner" and "doc.ents" not in given:
            raise self._gives_none("entities")

    def spans(self, document: Document, record: Mapping[str, Any]) -> Iterator[Span]:
        """Raises: TextError: a text longer than the pipeline takes.  ConfigError: it gives no parts of speech."""
        if len(document.text) > self._nlp.max_length:
            raise TextError(
                f"document {document.doc_id!r} is longer than the {self._nlp.max_length} characters that spaCy takes",
                remedy="Cut it into shorter documents",
                file=document.where or None,
            )
        parsed = self._nlp(document.text)
        tokens = [token for token in parsed if not token.is_space]
        if self.what == "ner":
            tags = [f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" for t in tokens]
            for first, last, label in chunks(tags):
                yield Span(document.doc_id, tokens[first].idx, tokens[last].idx + len(tokens[last]), label)
            return
        if tokens and not parsed.has_annotation("POS"):
            raise self._gives_none("parts of speech")
        for token in tokens:
            if token.pos_:
                yield Span(document.doc_id, token.idx, token.idx + len(token), token.pos_)

    def _gives_none(self, what: str) -> ConfigError:
        return ConfigError(
            f"the spaCy pipeline {self.name!r} ({', '.join(self._nlp.pipe_names) or 'empty'}) gives no {what}",
            remedy="Name one that does, such as en_core_web_sm",
        )


ANNOTATION = Spacy
