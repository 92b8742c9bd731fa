"""The one place that says what every column of a run folder is called, holds, and means.

Missing is null in text columns and NaN in number columns; a column that may be missing says when.  Tables grow by
adding columns; a name once used keeps its meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    dtype: pa.DataType
    unit: str
    meaning: str


_S, _I, _F, _B = pa.string(), pa.int32(), pa.float32(), pa.bool_()

_KEY = [
    Column("run", _S, "", "name of the study"),
    Column("model", _S, "", "the encoder, as named in the study"),
    Column("decoder", _S, "", "name of the decoder in the study, e.g. growing or fixed"),
    Column(
        "condition", _S, "", "what the decoder was given: memory, none, bits:8, ...; bits:8@memory: memory's decoder"
    ),
    Column("length", _I, "tokens", "window length L"),
    Column("seed", _I, "", "seed of the decoder's training"),
    Column("doc_id", _S, "", "document, the unit of resampling"),
    Column("window_id", _S, "", "doc_id:length:index of the first token in the document"),
    Column("domain", _S, "", "kind of text, from the corpus"),
    Column("source", _S, "", "where the document came from, from the corpus"),
    Column("dialect", _S, "", "dialect, from the corpus; empty if the corpus names none"),
    Column("prefix", _S, "", "what the encoder read before the window: none, or bos (beginning-of-text token)"),
]

DECODED = [
    *_KEY,
    Column("reference_ids", pa.list_(_I), "", "token ids of the window [L]"),
    Column("char_start", pa.list_(_I), "characters", "start of each token's span in the document [L]"),
    Column("char_end", pa.list_(_I), "characters", "end (exclusive) of each token's span in the document [L]"),
    Column("predicted_ids", pa.list_(_I), "", "most likely token at each position under teacher forcing [L]"),
    Column("token_nats", pa.list_(_F), "nats", "teacher-forced -ln p of each true token [L]; EOS is not in it"),
    Column("reconstruction_ids", pa.list_(_I), "", "what was written from the memory alone, up to and without EOS"),
    Column("stopped", _B, "", "whether EOS came before twice the window's length"),
    Column("reference", _S, "", "the window's text, a slice of the document"),
    Column("reconstruction", _S, "", "reconstruction_ids decoded"),
]

RECONSTRUCTIONS = [
    *_KEY,
    Column("reference", _S, "", "the window's text, a slice of the document"),
    Column(
        "reconstruction",
        _S,
        "",
        "the text that was written back, greedily unless the study names a search",
    ),
    Column("exact", _B, "", "whether the reconstruction is the window, token for token"),
    Column("rouge1", _F, "fraction", "ROUGE-1 F1 of the texts; NaN if the reference holds no ROUGE token"),
    Column("rouge2", _F, "fraction", "ROUGE-2 F1; NaN if the reference holds no ROUGE bigram"),
    Column("rougeL", _F, "fraction", "ROUGE-L F1; NaN if the reference holds no ROUGE token"),
    Column("token_accuracy", _F, "fraction", "share of positions whose token is right under teacher forcing"),
    Column("matched", _I, "tokens", "source tokens matched by the monotone alignment"),
    Column("substituted", _I, "tokens", "source tokens aligned to another token"),
    Column("omitted", _I, "tokens", "source tokens aligned to nothing"),
    Column("inserted", _I, "tokens", "reconstruction tokens aligned to nothing"),
    Column("words", _I, "words", "whitespace-delimited words in the reference"),
    Column("words_recovered_anywhere", _I, "words", "of them, recovered by the paper's definition (k-th of a kind)"),
    Column("nats", _F, "nats", "sum of the window's token nats; EOS is not in it"),
    Column("stopped", _B, "", "whether EOS came before twice the window's length"),
]

TOKENS = [
    *_KEY,
    Column("position", _I, "tokens", "0-based place in the window"),
    Column("char_start", _I, "characters", "start of the token's span in the document"),
    Column("char_end", _I, "characters", "end (exclusive) of the token's span in the document"),
    Column("token_id", _I, "", "the true token"),
    Column("token", _S, "", "the true token as the tokenizer spells it (byte-level alphabet kept)"),
    Column("predicted_id", _I, "", "most likely token here under teacher forcing"),
    Column("operation", _S, "", "match, substitute or omit, from the monotone alignment of token ids"),
    Column(
        "written",
        _S,
        "",
        "what the reconstruction has for this token, as the tokenizer spells it, after what it inserted before it; "
        "empty if nothing",
    ),
    Column("recovered_in_place", _B, "", "operation == match"),
    Column("recovered_anywhere", _B, "", "the k-th occurrence counts if the reconstruction holds at least k of it"),
    Column("nats", _F, "nats", "teacher-forced -ln p of the true token"),
]

ESTIMATES = [
    Column("run", _S, "", "name of the study"),
    Column("model", _S, "", "the encoder"),
    Column("decoder", _S, "", "name of the decoder in the study"),
    Column("condition", _S, "", "condition measured; retention and bits_retained compare it with none"),
    Column("seed", _S, "", "seed of the decoder, or 'all': seeds pooled within each document"),
    Column("metric", _S, "", "what is estimated: a file in score/metrics/"),
    Column("unit", _S, "", "unit of value, low and high"),
    Column("length", _I, "tokens", "window length L"),
    Column("by", _S, "", "what the groups are: all, domain, dialect, position, or an annotation's name"),
    Column("group", _S, "", "the group, e.g. news; for positions the 0-based bin 'lo-hi', both inclusive"),
    Column("value", pa.float64(), "see unit", "the estimate; NaN if no unit of the group was measured"),
    Column("low", pa.float64(), "see unit", "lower end of the interval; NaN with fewer than two documents"),
    Column("high", pa.float64(), "see unit", "upper end of the interval; NaN with fewer than two documents"),
    Column("confidence", pa.float64(), "fraction", "coverage aimed at, e.g. 0.95"),
    Column("n_tokens", pa.int64(), "units", "units (tokens, words or windows, by metric) behind the value"),
    Column("n_documents", pa.int64(), "documents", "documents behind the value"),
    Column("method", _S, "", "how the interval was made, with the number of resamples"),
]

EFFECTS = [
    *(c for c in ESTIMATES if c.name in ("run", "model", "decoder", "condition", "length", "metric", "unit", "by")),
    Column("group", _S, "", "the group that is compared"),
    Column("base", _S, "", "the group that it is compared with"),
    Column(
        "kind",
        _S,
        "",
        "plain (as they are), adjusted (controls held constant), prior and share (the two parts of a plain difference "
        "in bits retained: what there was to retain, and the share of it that was), paper (the published test)",
    ),
    Column("controls", _S, "", "what was held constant, beside the length; empty unless adjusted"),
    Column("group_value", pa.float64(), "see unit", "the metric of the group; adjusted: were all tokens of the group"),
    Column("base_value", pa.float64(), "see unit", "the metric of the base; adjusted: were all tokens of the base"),
    Column("value", pa.float64(), "see unit", "group less base; NaN if it cannot be told, and method says why"),
    Column("low", pa.float64(), "see unit", "lower end of the interval; NaN if there is none"),
    Column("high", pa.float64(), "see unit", "upper end of the interval; NaN if there is none"),
    Column("confidence", pa.float64(), "fraction", "coverage aimed at by each interval alone, e.g. 0.95"),
    Column("p", pa.float64(), "", "two-sided p of no difference, taken alone; NaN if nothing can be tested"),
    Column("p_adjusted", pa.float64(), "", "p for the family: Holm's; Bonferroni's for paper, as published"),
    Column(
        "family",
        pa.int64(),
        "",
        "comparisons of one cell, metric, by and kind that have a p (paper: all)",
    ),
    Column("size", pa.float64(), "", "effect size without unit; NaN where size_kind is empty"),
    Column("size_kind", _S, "", "h: of shares (Cohen 1988, 6.2); d: difference / standard deviation between documents"),
    Column("n_tokens", pa.int64(), "units", "units of the smaller side; adjusted: of all; paper: words of both"),
    Column("n_documents", pa.int64(), "documents", "documents, or pairs, of either side"),
    Column("method", _S, "", "how interval and p were made"),
]

COMPARE = [
    Column("run", _S, "", "the run that is compared, by its folder"),
    Column("base", _S, "", "the run that it is compared with, by its folder"),
    Column("model", _S, "", "the run's encoder"),
    Column("base_model", _S, "", "the base's encoder"),
    Column("decoder", _S, "", "the run's decoder"),
    Column("base_decoder", _S, "", "the base's decoder"),
    Column("condition", _S, "", "what both decoders were given"),
    Column(
        "metric",
        _S,
        "",
        "a file in score/metrics/; where the runs cut the text into other tokens, bits_per_character and "
        "omission_of_characters instead of those that count tokens",
    ),
    *(c for c in ESTIMATES if c.name in ("unit", "length", "by", "group")),
    Column("direction", _S, "", "kept if a higher value means that more was kept, lost if that more was lost"),
    Column("run_value", pa.float64(), "see unit", "the metric of the run, over what both measured"),
    Column("base_value", pa.float64(), "see unit", "the metric of the base, over what both measured"),
    Column("value", pa.float64(), "see unit", "run less base; NaN if nothing of the group was measured"),
    *(c for c in EFFECTS if c.name in ("low", "high", "confidence", "p")),
    Column("p_adjusted", pa.float64(), "", "p for the family: Holm's"),
    Column("family", pa.int64(), "", "comparisons of one run and metric that have a p: all lengths and classes"),
    *(c for c in EFFECTS if c.name in ("size", "size_kind")),
    Column("n_tokens", pa.int64(), "units", "units (tokens, or characters, by metric) of the smaller side"),
    Column("n_documents", pa.int64(), "documents", "documents that both measured"),
    Column("method", _S, "", "how interval and p were made"),
]

FACTS = [
    Column("model", _S, "", "the encoder"),
    Column("after", _I, "tokens", "the memory is that of the window that begins with the fact and has so many tokens"),
    Column("doc_id", _S, "", "document"),
    Column("file", _S, "", "the file that it is from"),
    Column("line", pa.int64(), "", "1-based line of the file; in JSON lines, Parquet and columns, the record's"),
    Column("window_id", _S, "", "doc_id:after:index of the fact's first token in the document"),
    Column("kind", _S, "", "the annotation that found it"),
    Column("label", _S, "", "what the annotation calls it"),
    Column("char_start", _I, "characters", "start of the fact in the document"),
    Column("char_end", _I, "characters", "end (exclusive) of the fact in the document"),
    Column("fact", _S, "", "the fact as written"),
    Column("before", _S, "", "the text before it"),
    Column("following", _S, "", "the text behind it"),
    Column("tokens", _I, "tokens", "tokens that hold a character of it, from the window's first on"),
    Column("bits", pa.float64(), "bits", "what there was to retain: -log2 p of its tokens without memory"),
    Column("bits_retained", pa.float64(), "bits", "of them, what the memory saved; negative where it misled"),
    Column("retention", pa.float64(), "fraction", "bits_retained / bits; NaN if there was nothing to retain"),
    Column("omission_in_place", pa.float64(), "fraction", "share of its tokens lost from their place"),
    Column("whole", pa.float64(), "fraction", "share of the decoder's seeds that wrote all its tokens back in place"),
    Column("again", _I, "", "how often it stands in the rest of the window: each is another chance to keep it"),
    Column("written", _S, "", "the beginning of what the first seed's decoder wrote back"),
    Column("seeds", _I, "", "seeds of the decoder, over which bits and shares are means"),
]

FACTS_SUMMARY = [
    *(c for c in ESTIMATES if c.name not in ("metric", "by", "n_tokens")),
    Column("metric", _S, "", "whole (share of facts written back whole), or a file in score/metrics/, over all tokens"),
    Column("by", _S, "", "all, or kind: the annotation that found the facts"),
    Column("n_tokens", pa.int64(), "units", "facts (whole) or tokens behind the value"),
]

CURVES = [
    Column("run", _S, "", "name of the study"),
    Column("decoder", _S, "", "name of the decoder, or 'encoder' for pretraining"),
    Column("condition", _S, "", "condition trained: memory, none, bits:8, ...; empty for pretraining"),
    Column("seed", _I, "", "seed of the training"),
    Column("length", _I, "tokens", "window length of this step"),
    Column("step", _I, "steps", "optimiser step"),
    Column("tokens", pa.int64(), "tokens", "window tokens seen so far, all lengths together"),
    Column("nats", _F, "nats/token", "mean loss of the step over its targets (EOS among them)"),
    Column("learning_rate", _F, "", "learning rate of the step"),
    Column("seconds", _F, "s", "wall time of training so far, interruptions left out"),
]

LEARNING = [
    *(c for c in _KEY if c.name in ("run", "model", "decoder", "condition", "length", "seed", "doc_id", "dialect")),
    Column("step", _I, "steps", "optimiser steps done; 0 before the first"),
    Column(
        "tokens", pa.int64(), "tokens", "window tokens that the decoder was trained on by then, all lengths together"
    ),
    Column("n_tokens", pa.int64(), "tokens", "tokens of the document's windows of this length"),
    Column("nats", pa.float64(), "nats", "sum of their teacher-forced -ln p; EOS is not in it"),
]

CONVERGENCE = [
    *(c for c in ESTIMATES if c.name in ("run", "model", "decoder", "condition", "seed", "metric", "unit", "length")),
    Column(
        "kind",
        _S,
        "",
        "learning (after so many tokens of training), asymptote (after infinitely many, extrapolated), prequential (of "
        "the code that learns as it goes, over all tokens)",
    ),
    Column("tokens", pa.int64(), "tokens", "of training, all lengths together; null for an asymptote"),
    *(c for c in ESTIMATES if c.name in ("value", "low", "high", "confidence", "n_tokens", "n_documents")),
    Column("method", _S, "", "how value and interval were made; of an asymptote that is NaN, why it is not known"),
]

SPANS = [
    Column("doc_id", _S, "", "document"),
    Column("char_start", _I, "characters", "start of the span"),
    Column("char_end", _I, "characters", "end (exclusive) of the span"),
    Column("label", _S, "", "the span's label"),
    Column("window_id", _S, "", "the one window that the label is about; null in a table whose labels hold in all"),
]

COUNTS = [
    Column("kind", _S, "", "token (of the tokenizer that the file's metadata names) or word (frequency/words.py)"),
    Column("n", _I, "", "how many of them in a row make the item: 1 for a token or a word, 2 for a pair, ..."),
    Column("item", _S, "", "the item as written; words of a row joined by a space, bytes that are no text as U+FFFD"),
    Column("ids", pa.list_(_I), "", "token ids of the item [n], by which it is known; null for words"),
    Column("count", pa.int64(), "occurrences", "how often it occurs, never across two documents"),
    Column("documents", pa.int64(), "documents", "in how many documents it occurs"),
]

CERTIFICATE = [
    *(c for c in _KEY if c.name not in ("decoder", "condition", "seed")),
    *(c for c in TOKENS if c.name in ("position", "char_start", "char_end", "token_id", "token")),
    Column("weight", pa.float64(), "tokens", "how many of the window's tokens this one stands for; 1 if all are read"),
    Column("substitute_id", _I, "", "a token that the model held plausible here instead"),
    Column("precision", _S, "", "how the memory is stored: fp32, bf16, fp16, fp8 or int8 (certificate/storage.py)"),
    Column("equal", _B, "", "whether the memory after the window is the same with either token, bit for bit"),
    Column("ulps", pa.int64(), "ulp", "largest distance of two numbers of the two memories; 0 if and only if equal"),
    Column("differing", pa.int64(), "numbers", "how many numbers of the two memories differ"),
    Column(
        "apart",
        pa.float64(),
        "deviations",
        "distance of the two memories as computed: the root of the sum, over parts, of squared differences over the "
        "variance of the part's numbers in the window's memory; whatever the precision",
    ),
    Column("nats", _F, "nats", "-ln p of the true token under the encoder, which has read BOS and what stands before"),
    Column("substitute_nats", _F, "nats", "-ln p of the substitute, likewise"),
]

HORIZONS = [
    *(c for c in ESTIMATES if c.name in ("run", "model", "length")),
    Column("precision", _S, "", "how the memory is stored"),
    Column("first", pa.int64(), "tokens", "least distance to the window's end of a certainly lost token; null if none"),
    Column("half", pa.int64(), "tokens", "nearest edge of the first doubling of distance with half lost; null if none"),
    Column("lost", pa.float64(), "fraction", "share of the window's tokens that are certainly lost"),
    Column("n_tokens", pa.int64(), "tokens", "tokens that were read"),
    Column("n_documents", pa.int64(), "documents", "documents that they are from"),
]

BRACKET = [
    *(c for c in ESTIMATES if c.name in ("run", "model", "length", "by", "group")),
    Column("precision", _S, "", "how the memory is stored that both ends are about: the model's own precision"),
    Column("floor", pa.float64(), "fraction", "share of tokens certainly lost; NaN if the certificate read none"),
    Column("floor_low", pa.float64(), "fraction", "lower end of its interval; NaN with fewer than two documents"),
    Column("floor_high", pa.float64(), "fraction", "upper end of its interval; likewise"),
    Column(
        "ceiling",
        pa.float64(),
        "fraction",
        "share of tokens that the best reader did not write back in place, or that are certainly lost all the same",
    ),
    Column("ceiling_low", pa.float64(), "fraction", "lower end of its interval; NaN with fewer than two documents"),
    Column("ceiling_high", pa.float64(), "fraction", "upper end of its interval; likewise"),
    Column("gap", pa.float64(), "fraction", "ceiling less floor: what is not known"),
    Column("gap_low", pa.float64(), "fraction", "lower end of its interval; NaN with fewer than two documents"),
    Column("gap_high", pa.float64(), "fraction", "upper end of its interval; likewise"),
    Column(
        "guessed", pa.float64(), "fraction", "of the ceiling, tokens certainly lost that were written back: guesses"
    ),
    Column("confidence", pa.float64(), "fraction", "coverage aimed at by each interval alone, e.g. 0.95"),
    Column("n_tokens", pa.int64(), "tokens", "tokens that the decoder was to write"),
    Column("n_certified", pa.int64(), "tokens", "of them, tokens that the certificate read"),
    Column("n_documents", pa.int64(), "documents", "documents that they are from"),
    Column(
        "decoders",
        _S,
        "",
        "the best reader (a decoder by one search) of each half of the documents, chosen by the other half: name/seed",
    ),
    Column("method", _S, "", "how the decoder was chosen and the intervals were made"),
]

TABLES: dict[str, list[Column]] = {
    "decoded": DECODED,
    "reconstructions": RECONSTRUCTIONS,
    "tokens": TOKENS,
    "estimates": ESTIMATES,
    "effects": EFFECTS,
    "compare": COMPARE,
    "curves": CURVES,
    "learning": LEARNING,
    "convergence": CONVERGENCE,
    "annotations": SPANS,
    "counts": COUNTS,
    "certificate": CERTIFICATE,
    "horizons": HORIZONS,
    "floors": ESTIMATES,
    "bracket": BRACKET,
    "facts": FACTS,
    "facts_summary": FACTS_SUMMARY,
}


def arrow(table: str) -> pa.Schema:
    """The pyarrow schema of a table, its column meanings kept as field metadata."""
    return pa.schema(
        [pa.field(c.name, c.dtype, metadata={"unit": c.unit, "meaning": c.meaning}) for c in TABLES[table]]
    )
