"""The playground without a browser: its numbers are the pipeline's, its places are right, its server refuses."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import small
import torch

from mnemoscope import pipeline
from mnemoscope.codec.generate import Texts, Writer
from mnemoscope.config import load as load_study
from mnemoscope.errors import ConfigError, MnemoscopeError, RunError, TextError
from mnemoscope.measuring import measure
from mnemoscope.memory.memory import Memory
from mnemoscope.playground import places, play
from mnemoscope.playground.places import Change, Place
from mnemoscope.playground.session import CHARACTERS, Session, moved, opened
from mnemoscope.rundir import RunDir
from mnemoscope.score import align


@pytest.fixture(scope="module")
def session() -> Session:
    return opened(None)


@pytest.fixture(scope="module")
def text(session: Session) -> str:
    return session.examples["news"].text


def pieces(session: Session, text: str, **changes: Any) -> dict[str, Any]:
    """The last piece of each kind, ``read changed`` for those of the changed text."""
    asked = {"text": text, "changed": None, "decoder": "shipped", "condition": "memory", "length": 16, "position": 16}
    found = list(play.play(session, play.Asked(**(asked | changes))))
    json.dumps(found, allow_nan=False)
    return {p["kind"] + (" changed" if p.get("of") == "changed" else ""): p for p in found}


# ---- places ---------------------------------------------------------------------------------------------------------


def test_a_change_and_where_places_go() -> None:
    """the cat sat on the mat -> the old dog sat on the mat: 1 token became 2, so what follows it moves by one."""
    what = places.change([1, 2, 3, 4, 1, 5], [1, 8, 9, 3, 4, 1, 5])
    assert what == Change(first=1, before_end=2, after_end=3)
    assert [what.moved(i) for i in range(7)] == [0, 1, 3, 4, 5, 6, 7]
    assert places.change([1, 2], [1, 2]) == (2, 2, 2)
    assert places.change([], [7]) == (0, 0, 1)
    # one of two equal tokens is taken out: which, cannot be told, and its end does not overlap its beginning
    assert places.change([7, 7], [7]) == (1, 2, 1)


def test_a_window_ends_at_the_position(session: Session, text: str) -> None:
    tokens = session.encode(text)
    n = len(tokens.ids)
    assert session.place(tokens, "shipped", 16, 40) == (24, 40)
    assert session.place(tokens, "shipped", 16, 9) == (0, 9)
    assert session.place(tokens, "shipped", 16, 1) == (0, 4)  # trained on 4 tokens and more
    assert session.place(tokens, "shipped", 16, None) == session.place(tokens, "shipped", 16, 10**9) == (n - 16, n)
    window = session.window(tokens, Place(24, 40))
    assert window.token_ids.tolist() == tokens.ids[24:40].tolist()
    with pytest.raises(ConfigError, match="not trained on 17 tokens"):
        session.place(tokens, "shipped", 17, 40)
    with pytest.raises(TextError, match="has 1 token,"):
        session.place(session.encode("a"), "shipped", 16, 1)


def test_the_counterpart_reads_the_same_but_for_the_change(session: Session) -> None:
    before, after = session.encode("x " * 30 + "end"), session.encode("x " * 10 + "a new word " + "x " * 20 + "end")
    what = places.change(before.ids.tolist(), after.ids.tolist())
    added = what.after_end - what.before_end
    assert added > 0
    assert session.counterpart(Place(5, 25), what, after, "shipped", 32) == (5, 25 + added)
    assert session.counterpart(Place(0, 6), what, after, "shipped", 32) == (0, 6)
    # a change behind the window's end moves neither; taking out nearly all leaves what the decoder can still read
    short = session.encode("x x x end")
    what = places.change(before.ids.tolist(), short.ids.tolist())
    place = session.counterpart(Place(0, len(before.ids)), what, short, "shipped", 32)
    assert place.end - place.first == len(short.ids)


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["memory", "none", "wrong", "bits:3@memory", "layer_out:2@memory"])
def test_the_numbers_are_those_of_the_pipeline(session: Session, text: str, condition: str) -> None:
    """nats, predictions and reconstruction of two windows, as ``mnemoscope reconstruct`` measures them."""
    shop = session.shop
    window = next(w for w in shop.windows.windows[16] if w.doc_id == session.examples["news"].doc_id)
    other = session.stranger(window)
    shop.windows.texts[other.doc_id] = next(d.text for d in session.others if d.doc_id == other.doc_id)

    def measured(condition: str) -> dict[str, Any]:
        decoder = session.read(window, "shipped", condition, 16).decoder
        key = {"run": "r", "model": "m", "decoder": "shipped", "condition": condition, "length": 16, "seed": 0}
        return next(measure(shop, Writer(decoder), condition, [window, other], key, Texts())).to_pylist()[0]

    row, guessed = measured(condition), measured("none")
    found = session.read(window, "shipped", condition, 16)
    assert found.nats == pytest.approx(row["token_nats"], abs=2e-4)
    assert found.predicted[:-1].tolist() == row["predicted_ids"]
    assert list(found.write()) == row["reconstruction_ids"]
    bits = (np.array(guessed["token_nats"]) - np.array(row["token_nats"])) / math.log(2)
    assert found.bits == pytest.approx(bits, abs=1e-3)

    # and the page is told these, of the same document with the slider at 16
    told = pieces(session, text, condition=condition)
    assert told["read"]["bits"] == pytest.approx(bits, abs=1e-3)
    assert told["read"]["prior_bits"] == pytest.approx(sum(guessed["token_nats"]) / math.log(2), abs=1e-2)
    assert "".join(told["read"]["pieces"]) == row["reference"]
    assert told["written"]["text"] == row["reconstruction"]
    operations = align.align(row["reference_ids"], row["reconstruction_ids"]).operations
    assert told["written"]["kept"] == int((operations == align.MATCH).sum())


def test_the_alignment_is_that_of_the_scores() -> None:
    """the cat sat on the mat -> the dog sat the mat today."""
    operations, partners = play.aligned([1, 2, 3, 4, 1, 5], [1, 7, 3, 1, 5, 6])
    assert operations == ["kept", "altered", "kept", "lost", "kept", "kept"]
    assert partners == [1, 7, 3, None, 1, 5]
    rng = np.random.default_rng(0)
    named = {align.MATCH: "kept", align.SUBSTITUTE: "altered", align.OMIT: "lost"}
    for _ in range(50):
        a, b = rng.integers(4, size=rng.integers(12)).tolist(), rng.integers(4, size=rng.integers(12)).tolist()
        assert play.aligned(a, b)[0] == [named[int(o)] for o in align.align(a, b).operations]


def test_how_far_a_memory_moved() -> None:
    """A step of 3 and 4 is 5 long; the stranger is 10 away: half of the way."""
    origin = Memory({"layers.0.ssm": torch.zeros(1, 2), "layers.0.conv": torch.ones(1, 1)})
    after = Memory({"layers.0.ssm": torch.tensor([[3.0, 4.0]]), "layers.0.conv": torch.ones(1, 1)})
    stranger = Memory({"layers.0.ssm": torch.tensor([[0.0, 10.0]]), "layers.0.conv": torch.ones(1, 1)})
    found = moved(origin, after, stranger)
    assert found["layers.0.ssm"] == 0.5
    assert math.isnan(found["layers.0.conv"])


def test_a_changed_word_is_noticed_where_it_was_read(session: Session, text: str) -> None:
    first = text.split()[0]
    told = pieces(session, text, changed=text.replace(first, "Purple", 1))
    assert told["compared"]["inside"]
    assert told["compared"]["put_in"] >= 1
    assert max(p["share"] for p in told["moved"]["parts"]) > 0.01
    assert len(told["moved"]["parts"]) == len(session.memory(session.stranger(_window(session, text))))
    assert told["read changed"]["changes"] == list(range(told["compared"]["put_in"]))
    assert told["read changed"]["pieces"][-3:] == told["read"]["pieces"][-3:]
    # 100 tokens further on it lies before the window, which starts from an empty memory
    told = pieces(session, text, changed=text.replace(first, "Purple", 1), position=120)
    assert not told["compared"]["inside"]
    assert {p["share"] for p in told["moved"]["parts"]} == {0.0}
    assert told["written changed"]["text"] == told["written"]["text"]
    assert told["read changed"]["changes"] == []


def _window(session: Session, text: str) -> Any:
    tokens = session.encode(text)
    return session.window(tokens, session.place(tokens, "shipped", 16, 16))


def test_a_stranger_is_another_text(session: Session) -> None:
    document = session.others[0]
    window = _window(session, document.text)
    assert session.stranger(window).doc_id != document.doc_id
    assert session.stranger(window).length == window.length


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "a\x00b\x07c\x1b[31md\x7f e f g",
        "\u202eright to left\u202c \u05d0\u05d1\u05d2 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
        "👩‍👩‍👧‍👦 e\u0301\u0302\u0303\u0304 🏳️‍🌈 日本語",
        "<|endoftext|> is text like any other",
        "\n\n\t\t  \u2028\u2029 \u3000 ",
    ],
)
def test_hostile_text_changes_nothing_but_itself(session: Session, hostile: str) -> None:
    told = pieces(session, hostile, changed=hostile + "!", position=None, length=256)
    assert "".join(told["read"]["pieces"]) == hostile
    assert len(told["written"]["operations"]) == len(told["read"]["bits"]) == told["read"]["tokens"]


def test_what_is_refused(session: Session, text: str) -> None:
    with pytest.raises(TextError, match="20,001 characters"):
        session.encode("a" * (CHARACTERS + 1))
    with pytest.raises(TextError, match=r"\d+ tokens.*20,000"):
        session.encode("😀𓀀" * 9000)
    with pytest.raises(TextError, match="half a character"):
        session.encode("a\ud800")
    with pytest.raises(ConfigError, match="no decoder 'x'"):
        pieces(session, text, decoder="x")
    with pytest.raises(ConfigError, match="no condition 'bits:4'"):
        pieces(session, text, condition="bits:4")
    with pytest.raises(TextError, match="has 0 tokens"):
        pieces(session, "")


# ---- a run of one's own ---------------------------------------------------------------------------------------------


def test_a_run_with_decoders_of_both_recipes(tmp_path: Any) -> None:
    study = load_study(small.study(tmp_path))
    with pytest.raises(RunError, match="no run folder"):
        opened(tmp_path / "nothing")
    run = pipeline.run(study, tmp_path / "run", until="train")
    assert isinstance(run, RunDir)
    session = opened(run.path)
    about = play.about(session)
    assert [d["name"] for d in about["decoders"]] == ["growing", "fixed"]
    assert session.range("growing", 12) == (4, 12)
    assert session.range("fixed", 12) == (12, 12)
    assert "layer_out:1@memory" in session.conditions("growing")
    text = "the sea was calm and Ada slept"
    told = pieces(session, text, decoder="growing", length=12, position=7, condition="ssm_only@memory")
    assert told["read"]["position"] == 7
    # the fixed decoder of 12 tokens knows no other length, and nobody trained one without memory
    told = pieces(session, text, decoder="fixed", length=12, position=7)
    assert told["read"]["position"] == 12
    assert told["read"]["bits"] is None
    assert len(told["written"]["operations"]) == 12
    # a text with a word less still gives it 12 tokens
    told = pieces(session, text, decoder="fixed", length=12, position=20, changed=text.replace("calm ", ""))
    assert len(told["read changed"]["pieces"]) == 12

    for file in (run.checkpoints / "growing").rglob("none.safetensors"):
        file.unlink()
    with pytest.raises(MnemoscopeError, match="no decoder for condition 'none'"):
        opened(run.path)
