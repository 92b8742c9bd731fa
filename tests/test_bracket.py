"""The bracket: toys whose loss is known by construction, the choice of the decoder, noise by hand, the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import torch
from toy_memory import VOWELS, DropClass, LastK, Perfect, Quantised, Toy, group
from typer.testing import CliRunner

from mnemoscope import bracket, certificate, cli, config, schema, workshop
from mnemoscope.bracket import request
from mnemoscope.certificate.windows import apart
from mnemoscope.cli import bracketing
from mnemoscope.errors import ConfigError, ModelError, RunError
from mnemoscope.memory.load import Loaded
from mnemoscope.rundir import RunDir
from mnemoscope.stats import bracket as table
from mnemoscope.stats import certain, noise
from mnemoscope.train.tokenizer import train_tokenizer

V, BOS, BLANK, K = 257, 0, "_", 5
#: every other token of a byte-level tokenizer, and so a whole number of substitutes
ALL = 255
STUDY: dict[str, Any] = {
    "name": "toys",
    "seed": 3,
    "model": {"name": "toy"},
    "compute": {"device": "cpu", "batch_tokens": 131072},
    "windows": {"lengths": [4, 12], "tokens_per_length": 48},
    "decoders": [
        {
            **{"name": "growing", "recipe": "growing", "seeds": [0], "conditions": ["memory", "none"]},
            **{"tokens": 256, "batch_tokens": 64, "optimiser": {"learning_rate": 1e-2}},
        },
        {
            **{"name": "growing.beam-2", "recipe": "trained", "of": "growing", "seeds": [0]},
            **{"conditions": ["memory"], "search": "beam:2"},
        },
    ],
    "annotations": [{"name": "sound", "kind": "fields", "argument": "spans"}],
    "estimate": {"by": ["domain", "position", "sound"], "resamples": 100},
}


@dataclass(frozen=True)
class Kind:
    """A toy, and which tokens it forgets."""

    name: str
    make: Callable[[Callable[[str], int]], Toy]
    forgets: Callable[[int, str, int, int], bool]  # id, token, position, length


KINDS = [
    Kind("invertible", lambda i: Perfect(V, BOS, i(BLANK)), lambda *_: False),
    Kind("last-k", lambda i: LastK(V, BOS, i(BLANK), K), lambda i, t, p, n: p < n - K),
    Kind(
        "class-dropping",
        lambda i: DropClass(V, BOS, i(BLANK), map(i, VOWELS)),
        lambda i, t, p, n: t in VOWELS,
    ),
    # the letters a to z but those that share a cell with the blank; a cell is an even id and the next one
    Kind(
        "quantised",
        lambda i: Quantised(V, BOS, i(BLANK), range(i("a"), i("z"))),
        lambda i, t, p, n: t.isascii() and t.isalpha() and t.islower(),
    ),
]


@dataclass(frozen=True)
class Ran:
    kind: Kind
    folder: Path
    table: pl.DataFrame
    tokens: pl.DataFrame  # those of the real memory, once each, with the truth: forgotten


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    kind: Kind = request.param
    folder = tmp_path_factory.mktemp(kind.name)
    rng = np.random.default_rng(0)
    corpora = {}
    for use in ("train", "measure"):
        records = []
        for number in range(6):
            text = "".join(rng.choice(list("bcdaeiou stn 0123,"), 26))
            spans = [{"start": i, "end": i + 1, "label": "vowel"} for i, c in enumerate(text) if c in VOWELS]
            records.append({"text": text, "domain": ("prose", "sums")[number % 2], "spans": spans})
        (folder / f"{use}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        corpora[use] = [{"path": str(folder / f"{use}.jsonl"), "domain": "domain"}]
    tokenizer = train_tokenizer([], V, folder / "tokenizer", lambda line: None)
    loaded = Loaded(kind.make(tokenizer.convert_tokens_to_ids).eval(), tokenizer, "toy", "digest of a toy")
    settings = certificate.Settings(substitutes=ALL, per_doubling=None, precisions=("fp32",), noise=(0.5,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workshop, "load", lambda name, **_: loaded)
        run = bracket.bracket(config.Study.model_validate(STUDY | {"text": corpora}), folder / "run", settings)
    tokens = run.table("tokens").filter(condition="memory", decoder="growing")
    truth = [kind.forgets(*row) for row in tokens.select("token_id", "token", "position", "length").rows()]
    return Ran(kind, run.path, run.table("bracket"), tokens.with_columns(forgotten=pl.Series(truth)))


def truth(ran: Ran, by: str) -> dict[tuple[int, str], float]:
    """(length, group) -> the share forgotten, by the test's own reckoning; bins of positions hold one each here."""
    found = ran.tokens.group_by("length", group(by).alias("group")).agg(pl.col("forgotten").mean())
    return {(length, name): share for length, name, share in found.rows()}


# ---- toys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["all", "domain", "position", "sound"])
def test_the_bracket_holds_the_truth_of_every_class_and_is_tight(ran: Ran, by: str) -> None:
    """As every alternative is tried and every decoder reads all that is there, both ends meet."""
    shares = truth(ran, by)
    rows = ran.table.filter(by=by)
    assert {(r["length"], r["group"]) for r in rows.iter_rows(named=True)} == set(shares)
    for row in rows.iter_rows(named=True):
        share = shares[row["length"], row["group"]]
        assert row["floor"] - 1e-9 <= share <= row["ceiling"] + 1e-9, row
        assert row["gap"] == pytest.approx(row["ceiling"] - row["floor"])
        assert row["gap"] < 0.02, row
        assert row["n_certified"] == row["n_tokens"]


def test_no_recoverable_token_is_called_lost(ran: Ran) -> None:
    """And each that is not is: every other token is tried in its place."""
    lost = certain.tokens(ran.folder).collect().select("length", "window_id", "position", "lost")
    both = ran.tokens.join(lost, on=["length", "window_id", "position"], validate="1:1")
    assert both.height == ran.tokens.height
    assert both["lost"].to_list() == both["forgotten"].to_list()


def test_a_guess_is_no_recovery(ran: Ran) -> None:
    """The quantised toy writes the first of two: right half of the time, and yet forgotten."""
    whole = ran.table.filter(by="all")
    written = ran.tokens.filter("forgotten")["recovered_in_place"].sum()
    if ran.kind.name != "quantised":
        assert written == 0
        assert whole["guessed"].to_list() == [0.0, 0.0]
    else:
        assert written > 10
        assert (whole["guessed"] * whole["n_tokens"]).sum() == pytest.approx(written)


def test_noise_goes_beyond_equality(ran: Ran) -> None:
    """Numbers of a toy's memory differ by one and more, and vary by about 100: half of that drowns neighbours."""
    floors = pl.read_parquet(ran.folder / "floors.parquet").filter(by="all")
    exact = dict(floors.filter(metric="certainly_lost", condition="fp32").select("length", "value").rows())
    noisy = dict(floors.filter(metric="lost_to_noise", condition="noise:0.5").select("length", "value").rows())
    assert all(exact[n] <= noisy[n] <= 1 for n in (4, 12))
    assert any(exact[n] < noisy[n] for n in (4, 12))


def test_the_page_shows_every_class_as_a_bar(ran: Ran) -> None:
    page = (ran.folder / "report.html").read_text(encoding="utf-8")
    data = page.partition('id="data-figures">')[2].partition("</script>")[0]
    drawn = json.loads(data)
    bars = [trace for trace in drawn["bracket"][0]["data"] if trace["type"] == "bar"]
    whole = ran.table.filter(by="all").sort("length", descending=True)
    assert bars[0]["base"] == pytest.approx([100 * v for v in whole["floor"]])
    assert bars[0]["x"] == pytest.approx([100 * v for v in whole["gap"]], abs=1e-9)
    panels = {(p["tab"], len(p["data"][0]["y"])) for p in drawn["bracket-classes"]}
    assert panels == {(f"{n} tokens", count) for n in (4, 12) for count in (2, n)}
    points = json.loads(page.partition('id="data-points">')[2].partition("</script>")[0])["bracket-classes"]
    assert {row[3] for row in points["rows"]} == {
        "certainly lost",
        "not recovered by the best reader",
        "open, between the two",
    }
    assert "No learning curve lies beside it" in page


def test_the_page_and_the_command_say_first_what_the_best_reader_wrote_back(
    ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ran.folder / "report.html").read_text(encoding="utf-8")
    row = ran.table.filter(by="all", length=12).row(0, named=True)
    share = f"{100 * (1 - row['ceiling']):.0f}\u202f%"
    assert f"<h1>Of 12 tokens, the best reader of toy’s memory, the decoder growing, wrote back <b>{share}</b>" in page
    bracketing._show(RunDir.open(ran.folder))
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("4 tokens: the best reader, the decoder growing, wrote back ")


def test_again_is_the_same_and_anothers_certificate_is_refused(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    study = config.load(ran.folder / "study.toml")
    assert table.brackets(ran.folder, study).equals(ran.table)
    file = ran.folder / "certificate" / "L4.parquet"
    whole = pq.read_table(file)
    try:
        shifted = pl.read_parquet(file).with_columns(position=(pl.col("position") + 1) % 4).cast({"position": pl.Int32})
        pq.write_table(shifted.to_arrow().cast(whole.schema), file)
        with pytest.raises(RunError, match=r"do not go together: .* tokens are not the run's"):
            table.brackets(ran.folder, study)
    finally:
        pq.write_table(whole, file)


# ---- the choice of the decoder --------------------------------------------------------------------------------------


def measured(missed: dict[tuple[str, int], dict[str, int]]) -> pl.LazyFrame:
    """Ten tokens a document; ``missed``: (decoder, seed) -> document -> how many of them were not recovered."""
    rows = [
        {"length": 8, "decoder": d, "seed": s, "doc_id": doc, "dialect": "", "recovered_in_place": i >= n}
        for (d, s), of in missed.items()
        for doc, n in of.items()
        for i in range(10)
    ]
    return pl.LazyFrame(rows, schema_overrides={"length": pl.Int32, "seed": pl.Int32})


def named(*decoders: str) -> config.Study:
    one = {"recipe": "trained", "weights": "w", "seeds": [0], "conditions": ["memory"]}
    values = {
        **{"name": "s", "seed": 0, "model": {"name": "m"}, "text": {}, "windows": {"lengths": [8]}},
        "decoders": [one | {"name": d} for d in decoders],
    }
    return config.Study.model_validate(values)


def test_each_half_is_read_by_the_best_of_the_other() -> None:
    """Documents a, b and c, d are halves in some way that the seed decides.  One decoder misses little in two of them
    and much in the others, another the reverse: whichever half a document is in, no decoder is chosen by it."""
    documents = ["a", "b", "c", "d"]
    # to learn which are halves, a choice among equals
    halves = table.best(measured({("x", 0): dict.fromkeys(documents, 1)}), named("x")).halves
    mine = halves.filter(half=0)["doc_id"].to_list()
    assert len(mine) == 2
    x = {d: 1 if d in mine else 9 for d in documents}
    y = {d: 10 - n for d, n in x.items()}
    found = table.best(measured({("x", 0): x, ("y", 0): y}), named("x", "y"))
    # x is the best on half 0, and so speaks for half 1, where it misses 9 of 10: never the smaller of two
    assert found.picked.sort("half").select("half", "decoder").rows() == [(0, "y"), (1, "x")]
    assert found.names(8) == ("y/seed-0, x/seed-0", "best of 2 on the other half of the documents")


def test_seeds_are_candidates_and_of_equals_the_first_is_taken() -> None:
    documents = ["a", "b", "c"]
    of = {
        ("x", 0): dict.fromkeys(documents, 5),
        ("x", 1): dict.fromkeys(documents, 4),
        ("y", 0): dict.fromkeys(documents, 4),
    }
    found = table.best(measured(of), named("y", "x"))
    assert found.picked.select("decoder", "seed").unique().rows() == [("y", 0)]
    alone = table.best(measured({k: {"a": v["a"]} for k, v in of.items()}), named("x", "y"))
    assert alone.names(8) == ("x/seed-0", "the first of 3: one document leaves none to choose by")


# ---- noise ----------------------------------------------------------------------------------------------------------


def test_lost_to_noise_by_hand() -> None:
    """Numbers 0, 2, 4, 6 have the mean 3 and the variance (9 + 1 + 1 + 9) / 4 = 5.  One that is 6 + 2 sqrt(5) instead
    of 6 lies 2 deviations away; with noise of 1 deviation that is d = 2, and 2 Phi(-1) = 0.3173; of 1/2, d = 4, and
    2 Phi(-2) = 0.0455; of 2, d = 1, and 2 Phi(-1/2) = 0.6171."""
    own = torch.tensor([[0.0, 2.0, 4.0, 6.0]], dtype=torch.float64)
    other = own.clone()
    other[0, 3] += 2 * math.sqrt(5)
    square = apart(own, torch.cat([own, other]))
    assert square.tolist() == pytest.approx([0, 4])
    for strength, expected in ((1, 0.31731), (0.5, 0.04550), (2, 0.61708)):
        assert noise.lost(square.sqrt().numpy(), strength) == pytest.approx([1, expected], abs=1e-5)


def test_a_part_of_one_number_has_no_noise_and_tells_all() -> None:
    assert apart(torch.zeros(1, 3), torch.tensor([[0.0, 0, 0], [0, 0, 1e-9]])).tolist() == [0, math.inf]
    assert noise.lost(np.array([math.inf]), 3.0).tolist() == [0]


def test_no_test_beats_the_bound_and_the_best_one_attains_it() -> None:
    """The errors of the nearest-memory rule over draws, in three dimensions with parts of unlike deviation."""
    rng = np.random.default_rng(0)
    a, b, deviation, strength, n = np.zeros(3), np.array([0.5, -4.0, 1.0]), np.array([1.0, 10.0, 2.0]), 0.4, 200_000
    distance = math.sqrt((((a - b) / deviation) ** 2).sum())
    errors = 0.0
    for truth_, other in ((a, b), (b, a)):
        seen = truth_ + strength * deviation * rng.standard_normal((n, 3))
        far = [(((seen - m) / deviation) ** 2).sum(1) for m in (truth_, other)]
        errors += float((far[0] > far[1]).mean())
    assert errors == pytest.approx(float(noise.lost(np.array([distance]), strength)[()][0]), abs=4 / math.sqrt(n))


def test_noise_of_an_earlier_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "certificate").mkdir()
    wanted = [c for c in schema.arrow("certificate") if c.name != "apart"]
    pq.write_table(pa.schema(wanted).empty_table(), tmp_path / "certificate" / "L4.parquet")
    with pytest.raises(RunError, match="an earlier version made it"):
        certain.shares(tmp_path, (), (0.1,), seed=0, confidence=0.95, resamples=10)


# ---- the command ----------------------------------------------------------------------------------------------------


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["bracket", *map(str, arguments)])


def test_a_checkpoint_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder is trained here; the same command goes on, and the run alone gives the same."""
    with torch.random.fork_rng():
        folder = small.model(tmp_path / "model")
    text, train = small.text(tmp_path / "text.jsonl", 4, 8), small.text(tmp_path / "train.jsonl", 8, 12, seed=1)
    arguments = [
        folder,
        "--text",
        text,
        "--lengths",
        "4,8",
        "--tokens-per-length",
        24,
        "--tokens",
        12288,
        "--learning-rate",
        3e-3,
    ]
    arguments += [
        "--learning-rate",
        3e-3,
        "--train",
        train,
        "--search",
        "greedy",
        "--search",
        "beam:2",
        "--domain",
        "domain",
        "--device",
        "cpu",
    ]
    arguments += ["--per-doubling", 1, "--noise", "0.1", "--out", tmp_path / "run"]
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    assert "for 6 steps of 2,048 tokens: hardly a beginning" in done.output
    assert "floor: certainly lost" in done.output
    found = pl.read_parquet(tmp_path / "run" / "bracket.parquet")
    assert found.columns == [c.name for c in schema.BRACKET]
    assert set(found["by"]) == {"all", "domain", "position"}
    assert (found["floor"].drop_nans() <= found.filter(pl.col("floor").is_not_nan())["ceiling"]).all()
    # what is not known is no less than nothing, and no more than all
    assert found["gap_low"].drop_nans().min() >= 0
    assert found["gap_high"].drop_nans().max() <= 1
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    shown = page.partition('<section id="bracketed">')[2].partition("</section>")[0]
    assert all(f'<figure id="{name}">' in shown for name in ("bracket", "bracket-classes", "floors", "convergence"))
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").glob("*/*.parquet")}
    again = invoke(tmp_path / "run", "--per-doubling", 1, "--noise", "0.1,1")
    assert again.exit_code == 0, again.output
    kept = [f for f in before if f.parent.name in ("certificate", "decoded")]
    assert kept
    assert all(f.stat().st_mtime_ns == before[f] for f in kept)
    assert pl.read_parquet(tmp_path / "run" / "bracket.parquet").equals(found)
    assert "noise:1" in set(pl.read_parquet(tmp_path / "run" / "floors.parquet")["condition"])
    other = invoke(tmp_path / "run", "--per-doubling", 2)
    assert isinstance(other.exception, RunError)
    assert "the certificate of this run changed" in str(other.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m"], "a model needs a text"),
        (["m", "--text", "t.txt", "--out", "o", "--noise", "much"], "--noise takes numbers"),
        (["m", "--text", "t.txt", "--out", "o", "--noise", "0"], "Give numbers above 0"),
        (["m", "--text", "t.txt", "--out", "o"], "no decoder is shipped with 'm'"),
        (["m", "--text", "t.txt", "--out", "o", "--learning-rate", "1e-3"], "--learning-rate, --train and --family"),
        (["m", "--text", "t.txt", "--out", "o", "--tokens", "9"], "at which rate is not said"),
        (["m", "--text", "t.txt", "--out", "o", "--tokens", "9", "--learning-rate", "1"], "no text to train"),
        (["m", "--text", "t.txt", "--out", "o", "--decoder", "nowhere"], "and there are none"),
        (
            ["mamba-nano", "--text", "t.txt", "--out", "o", "--lengths", "64,512"],
            "on windows of 4 to 256 tokens: what is",
        ),
        (["mamba-nano", "--text", "t.txt", "--out", "o", "--search", "beam"], "the search 'beam' needs"),
        (["mamba-nano", "--text", "t.txt", "--out", "o", "--search", "greedy", "--search", "greedy"], "given twice"),
        (
            [
                "m",
                "--text",
                "t.txt",
                "--out",
                "o",
                "--tokens",
                "9",
                "--learning-rate",
                "1",
                "--train",
                "t.txt",
                "--family",
                "f",
            ],
            "'f'",
        ),
    ],
)
def test_bad_input(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # a text that is not there would be said first
    Path("t.txt").write_text("The sea was calm.\n")
    done = invoke(*arguments)
    assert isinstance(done.exception, ConfigError | ModelError), done.output
    assert said in str(done.exception)


def test_a_run_takes_no_text(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "t.txt").write_text("The sea was calm.\n")
    assert "is a run, which has a text" in str(invoke(tmp_path, "--text", tmp_path / "t.txt").exception)


def test_the_embedded_model_has_a_decoder_and_three_searches() -> None:
    wanted = request.Request(model="mamba-nano", text=["t"], lengths="8", tokens_per_length=8).study()
    assert [(d.name, d.search) for d in wanted.decoders] == [
        ("decoder", "greedy"),
        ("decoder.beam-4", "beam:4"),
        ("decoder.reencode-4-16", "reencode:4:16"),
    ]
    assert [d.conditions for d in wanted.decoders] == [["memory", "none"], ["memory"], ["memory"]]
