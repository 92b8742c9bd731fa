"""A study of annotated text, from gold columns and rules to estimates by class and the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import small
import torch

from mnemoscope import config, pipeline
from mnemoscope.annotate._reader import Reader
from mnemoscope.memory.load import load
from mnemoscope.text.windows import cut
from mnemoscope.types import Document

#: word, part of speech, entity, whether a space follows
SENTENCE = [
    ("Ada", "PROPN", "B-PER", 1), ("Byron", "PROPN", "I-PER", 1), ("sold", "VERB", "O", 1), ("12", "NUM", "O", 1),
    ("rocks", "NOUN", "O", 0), (".", "PUNCT", "O", 1),
]  # fmt: skip
ANNOTATIONS = [
    {"name": "pos", "kind": "tags", "argument": "upos"},
    {"name": "entity", "kind": "entities", "argument": "ner"},
    {"name": "numbers", "kind": "numbers"},
    {"name": "subwords", "kind": "subwords"},
    {"name": "mention", "kind": "repetition", "argument": "window"},
    {"name": "surprisal", "kind": "surprisal", "argument": "4 8"},
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> config.Study:
    folder = tmp_path_factory.mktemp("annotated")
    file = small.study(folder)
    values = config.load(file).model_dump(mode="json")
    words, upos, ner, spaces = map(list, zip(*SENTENCE, strict=True))
    record = {"words": words, "upos": upos, "ner": ner, "spaces": spaces, "genre": "news"}
    with (folder / "tokens.jsonl").open("w") as out:
        for number in range(12):
            out.write(json.dumps({"id": number // 2, **record}) + "\n")
    corpus = {"path": str(folder / "tokens.jsonl"), "tokens": "words", "space_after": "spaces", "doc_id": "id"}
    values["text"]["measure"] = [corpus | {"domain": "genre"}]
    values["annotations"] = ANNOTATIONS
    values["decoders"] = [{**values["decoders"][0], "tokens": 256, "conditions": ["memory", "none"]}]
    values["estimate"] = {"by": [str(a["name"]) for a in ANNOTATIONS], "resamples": 50}
    return config.Study.model_validate(values)


def test_estimates_by_class(study: config.Study, tmp_path: Path) -> None:
    run = pipeline.run(study, tmp_path / "run")
    found = run.table("estimates").filter(pl.col("metric") == "nats", condition="memory", seed="all", length=12)
    counts = {(by, group): n for by, group, n in found.select("by", "group", "n_tokens").iter_rows()}
    # a document is "Ada Byron sold 12 rocks. Ada Byron sold 12 rocks.", 49 characters and as many tokens: the model's
    # tokens are bytes.  The windows of 12 end before " 12 rock", "s. Ada Byron" and "old 12 rocks"; 96 tokens are 8 of
    # the 24 windows, one or two of each of the 6 documents
    assert sum(n for (by, _), n in counts.items() if by == "pos") == 96
    assert {g for by, g in counts if by == "pos"} <= {"PROPN", "VERB", "NUM", "NOUN", "PUNCT", "(unlabelled)"}
    assert {g for by, g in counts if by == "entity"} <= {"PER", "O", "(unlabelled)"}
    assert {g for by, g in counts if by == "numbers"} == {"2 digits", "(unlabelled)"}
    assert {g for by, g in counts if by == "mention"} == {"first", "(unlabelled)"}  # 12 bytes repeat no word
    assert ("surprisal", "4-8 bits") in counts
    assert counts["surprisal", "(unlabelled)"] == 8  # the first token of each window
    for name in study.estimate.by:
        assert name in (run.path / "report.html").read_text(encoding="utf-8")
    # by hand, from the tokens: a byte of a word has the word's label, the space before it none
    tokens = run.table("tokens").filter(condition="memory", length=12)
    text = "Ada Byron sold 12 rocks. Ada Byron sold 12 rocks."
    is_number = pl.col("char_start").is_in([i for i, c in enumerate(text) if c.isdigit()])
    assert counts["numbers", "2 digits"] == tokens.filter(is_number).height
    mean = tokens.filter(is_number)["nats"].mean()
    value = found.filter(by="numbers", group="2 digits")["value"].item()
    assert value == pytest.approx(mean, rel=1e-5)

    # a second call keeps the annotations
    made = {p.name: p.stat().st_mtime_ns for p in (run.path / "annotations").iterdir()}
    assert len(made) == len(ANNOTATIONS)
    pipeline.run(study, tmp_path / "run")
    assert {p.name: p.stat().st_mtime_ns for p in (run.path / "annotations").iterdir()} == made


def test_what_is_asked_of_a_run_may_change_and_nothing_is_measured_again(
    study: config.Study, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another [[effects]], other labels and a mended file of spans: the decoded windows stay, what follows is anew."""
    spans = tmp_path / "spans.jsonl"
    spans.write_text(
        "".join(f'{{"doc_id": "{d}", "char_start": 0, "char_end": 9, "label": "NAME"}}\n' for d in range(6))
    )
    values = study.model_dump(mode="json")
    values["annotations"] = [values["annotations"][0], {"name": "mine", "kind": "file", "argument": str(spans)}]
    values["estimate"]["by"] = ["pos"]

    def again(**changed: object) -> tuple[set[str], dict[str, int]]:
        run = pipeline.run(config.Study.model_validate({**values, **changed}), tmp_path / "run")
        found = run.table("estimates").filter(pl.col("by") == values["estimate"]["by"][0])
        return set(found["group"]), {f.name: f.stat().st_mtime_ns for f in (run.path / "decoded").iterdir()}

    groups, decoded = again()
    assert "NUM" in groups
    assert "left out" not in caplog.text
    assert not (tmp_path / "run" / "effects.parquet").exists()

    values["annotations"][0]["labels"] = {"NUM": "FIGURE", "PUNCT": ""}
    values["effects"] = [{"by": "mine", "metrics": ["nats"]}]
    groups, same = again()
    assert "FIGURE" in groups
    assert not {"NUM", "PUNCT"} & groups
    assert same == decoded
    effects = tmp_path / "run" / "effects.parquet"
    assert set(pl.read_parquet(effects)["group"]) == {"NAME"}

    lines = spans.read_text().replace("NAME", "PERSON").splitlines(keepends=True)
    spans.write_text("".join([*lines, lines[0].replace('"doc_id": "0"', '"doc_id": "nowhere"')]))
    assert again()[1] == decoded
    assert set(pl.read_parquet(effects)["group"]) == {"PERSON"}
    assert "annotation mine: it has spans of 1 document that no text measured is called" in caplog.text
    assert "left out: 'nowhere'" in caplog.text


@pytest.mark.parametrize("bos", [None, 0])
def test_surprisal_is_the_models(study: config.Study, bos: int | None) -> None:
    """Against a forward pass over one window at a time."""
    assert study.model is not None
    loaded = load(study.model.name, scan="reference")
    texts = [Document("a", "the sea was calm", "", ""), Document("b", "é日 and rain", "", "")]
    windows = cut(texts, loaded.tokenizer, [1, 5], "none", seed=0)
    reader = Reader(loaded, windows, bos, batch_tokens=10)
    for doc_id in "ab":
        some = reader.windows(doc_id)
        assert [w.length for w in some] == sorted(w.length for w in some)
        assert len(some) > 10
        for window, nats in zip(some, reader.nats(some), strict=True):
            assert nats.shape == (window.length,)
            ids = torch.from_numpy(np.concatenate([[0 if bos is None else bos], window.token_ids]))[None]
            with torch.no_grad():
                logits = loaded.adapter(ids[:, 1:] if bos is None else ids)[0].log_softmax(-1)[0, :-1]
            expected = -logits.gather(1, ids[0, -len(logits) :, None])[:, 0].numpy() if len(logits) else []
            assert np.isnan(nats[0]) == (bos is None)
            np.testing.assert_allclose(nats[1:] if bos is None else nats, expected, rtol=1e-4, atol=1e-5)
