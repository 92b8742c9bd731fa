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
    Column("reconstruction_ids", pa.list_(_I), "", "greedy output from the memory alone, up to and without EOS"),
    Column("stopped", _B, "", "whether EOS came before twice the window's length"),
    Column("reference", _S, "", "the window's text, a slice of the document"),
    Column("reconstruction", _S, "", "reconstruction_ids decoded"),
]

RECONSTRUCTIONS = [
    *_KEY,
    Column("reference", _S, "", "the window's text, a slice of the document"),
    Column("reconstruction", _S, "", "the greedy reconstruction's text"),
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

TABLES: dict[str, list[Column]] = {
    "decoded": DECODED,
    "reconstructions": RECONSTRUCTIONS,
    "tokens": TOKENS,
    "estimates": ESTIMATES,
    "effects": EFFECTS,
    "curves": CURVES,
    "annotations": SPANS,
    "counts": COUNTS,
    "certificate": CERTIFICATE,
    "horizons": HORIZONS,
}


def arrow(table: str) -> pa.Schema:
    """The pyarrow schema of a table, its column meanings kept as field metadata."""
    return pa.schema(
        [pa.field(c.name, c.dtype, metadata={"unit": c.unit, "meaning": c.meaning}) for c in TABLES[table]]
    )
