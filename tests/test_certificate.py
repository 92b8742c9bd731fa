"""The certificate: toys whose loss is known by construction, real models against brute force, a command from end to
end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import tiny
import torch
import toy_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mnemoscope import certificate, cli, schema
from mnemoscope.certificate import request, storage, windows
from mnemoscope.certificate.storage import PRECISIONS
from mnemoscope.certificate.windows import choose, compare, judge, propose, strata
from mnemoscope.cli.model import _show as show
from mnemoscope.errors import ConfigError, ModelError, RunError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory
from mnemoscope.rundir import RunDir
from mnemoscope.stats import certain

BOS, BLANK, V = 0, 1, 14
_TEXT = [i not in (BOS, BLANK) for i in range(V)]


def lost(adapter: Adapter, ids: Iterable[int], allowed: Iterable[bool] = _TEXT, **changes: Any) -> np.ndarray:
    """Bool [S, L]: whether each token of a window is certainly lost at each precision, by all its substitutes."""
    text = np.array([*allowed])
    wanted: dict[str, Any] = {"prefix": "none", "bos": BOS, "substitutes": int(text.sum()) - 1, "per_doubling": None}
    wanted |= {"precisions": PRECISIONS, "batch_tokens": 2048, "rng": np.random.default_rng(0), **changes}
    found = judge(adapter, np.array([*ids], dtype=np.int64), allowed=text, **wanted)
    assert found.unlike == 0
    assert found.positions.tolist() == list(range(len([*ids])))
    return (found.ulps == 0).any(1).T


def text(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(2, V, length)


# ---- toys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [5, 64, 150])
def test_last_k_loses_all_but_the_last_k(length: int) -> None:
    """In chunks of 64: rows are born in the middle of one, and carried over two more."""
    k = 7
    expected = np.arange(length) < length - k
    found = lost(toy_memory.LastK(V, BOS, BLANK, k), text(length))
    for row in found:
        assert row.tolist() == expected.tolist()


def test_perfect_loses_nothing_and_zero_everything() -> None:
    assert not lost(toy_memory.Perfect(V, BOS, BLANK), text(64)).any()
    assert lost(toy_memory.Zero(V, BOS, BLANK), text(20)).all()


def test_dropped_class_is_lost_where_a_substitute_is_of_it() -> None:
    members, ids = [3, 8, 9], np.array([5, 3, 4, 8, 8, 2, 9, 6])
    toy = toy_memory.DropClass(V, BOS, BLANK, members)
    for row in lost(toy, ids):
        assert row.tolist() == np.isin(ids, members).tolist()
    # with nothing else of the class to put in its place nothing is proven
    alone = [_TEXT[i] and i not in (8, 9) for i in range(V)]
    found = lost(toy, [5, 3, 4], alone)
    assert not found.any()


def test_quantised_memory_loses_what_is_rounded_together() -> None:
    """A toy keeps token i as the number i + 1; fp8 has 4 bits of significand, so it keeps 17 to 32 as even numbers and
    33 to 37 as multiples of 4."""

    def kept(number: int) -> int:
        step = 1 if number <= 16 else 2 if number <= 32 else 4
        return step * round(number / step)  # Python rounds halves to even, as the cast does: 18 is 9 * 2

    vocabulary = 37
    # the largest twice, so that no substitute changes the scale
    ids = [36, 2, 15, 16, 17, 30, 22, 33, 36]
    found = lost(toy_memory.Perfect(vocabulary, BOS, BLANK), ids, [i > 1 for i in range(vocabulary)])
    others = range(2, vocabulary)
    expected = [any(kept(j + 1) == kept(i + 1) for j in others if j != i) for i in ids]
    assert 2 < sum(expected) < len(ids)
    for precision, row in zip(PRECISIONS, found, strict=True):
        assert row.tolist() == (expected if precision == "fp8" else [False] * len(ids)), precision


def test_one_ulp_apart_is_apart() -> None:
    """bf16 has 8 bits of significand: numbers up to 256 are exact, 257 is not."""
    toy = toy_memory.LastK(300, BOS, BLANK, 3)
    found = judge(
        toy,
        np.array([255, 254, 256]),  # kept as 256, 255, 257
        **{"prefix": "none", "bos": BOS, "allowed": np.array([i > 250 for i in range(300)]), "substitutes": 48},
        **{"per_doubling": None, "precisions": ("bf16",), "batch_tokens": 999, "rng": np.random.default_rng(0)},
    )
    ulps = {
        (int(p), int(s)): int(u)
        for p, subs, row in zip(found.positions, found.substitutes, found.ulps[..., 0], strict=True)
        for s, u in zip(subs, row, strict=True)
    }
    assert ulps[0, 254] == 1  # 256 and 255
    assert ulps[0, 256] == 0  # 256 and 257, a tie that goes to the even 256
    assert ulps[0, 257] == 1  # 258
    assert ulps[1, 256] == 1  # 255 and 256
    assert ulps[2, 255] == 0  # 256 and 256
    assert (found.differing[found.ulps > 0] == 1).all()


# ---- positions and substitutes --------------------------------------------------------------------------------------


def test_strata_by_hand() -> None:
    # L = 11: position 10 is at distance 0, 9 at 1, 8 and 7 at 2 and 3, 6 to 3 at 4 to 7, the rest at 8 to 10
    assert [list(s) for s in strata(11)] == [[10], [9], [7, 8], [3, 4, 5, 6], [0, 1, 2]]
    assert [list(s) for s in strata(1)] == [[0]]


@pytest.mark.parametrize("length", [1, 2, 11, 64, 1000])
@pytest.mark.parametrize("per_doubling", [None, 1, 3])
def test_choice_stands_for_every_token(length: int, per_doubling: int | None) -> None:
    at, weights = choose(length, per_doubling, np.random.default_rng(0))
    assert (np.diff(at) > 0).all()
    assert weights.sum() == pytest.approx(length)
    for stratum in strata(length):
        inside = (at >= stratum[0]) & (at <= stratum[-1])
        assert inside.sum() == min(len(stratum), per_doubling or len(stratum))
        assert weights[inside].sum() == pytest.approx(len(stratum))


def test_proposals_are_the_models_likeliest() -> None:
    adapter, ids = tiny.adapter("mamba"), tiny.ids(1, 9)[0]
    allowed = torch.ones(37, dtype=torch.bool)
    allowed[[0, 5]] = False
    at = torch.tensor([0, 3, 8])
    tokens, nats, theirs = propose(adapter, ids, at, 4, 0, allowed)
    with torch.no_grad():
        logp = adapter(torch.cat([torch.tensor([0]), ids])[None])[0][0].log_softmax(-1)
    for row, p in enumerate(at.tolist()):
        expected = [t for t in logp[p].argsort(descending=True).tolist() if allowed[t] and t != ids[p]][:4]
        assert tokens[row].tolist() == expected
        assert nats[row].item() == pytest.approx(-logp[p, ids[p]].item(), abs=1e-5)
        assert theirs[row].tolist() == pytest.approx((-logp[p, expected]).tolist(), abs=1e-5)


# ---- real models ----------------------------------------------------------------------------------------------------


def forgetful(seed: int = 0, push: float = 4.0) -> Adapter:
    """A tiny Mamba whose steps are about ``push`` long, so that what was read fades by exp(-push) at every token."""
    adapter = tiny.adapter("mamba", seed=seed)
    with torch.no_grad():
        for layer in adapter.model.backbone.layers:
            layer.mixer.dt_proj.bias.fill_(push)
    return adapter


def every(adapter: Adapter, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All positions [P], and all other tokens at each of them [P, V - 1]."""
    tokens = torch.arange(adapter.vocabulary)
    return torch.arange(len(ids)), torch.stack([tokens[tokens != i] for i in ids])


def test_against_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each substituted window read whole from the start, in float64; fp32 is then what its memory is stored at."""
    monkeypatch.setattr(windows, "CHUNK", 5)
    adapter, ids = tiny.adapter("mamba", torch.float64), tiny.ids(1, 13)[0]
    with torch.no_grad():
        for layer in adapter.model.backbone.layers:
            layer.mixer.dt_proj.bias.fill_(2.0)
    at, others = every(adapter, ids)
    others = others[:, :9]
    ulps, differing, *_ = compare(adapter, ids, adapter.empty(1), at, others, PRECISIONS, 200)
    texts = ids.repeat(len(at), 9, 1)
    for p in range(len(at)):
        texts[p, :, p] = others[p]
    with torch.no_grad():
        _, own = adapter.hidden(ids[None], None)
        _, rest = adapter.hidden(texts.flatten(0, 1), None)
    for s, precision in enumerate(PRECISIONS):
        pairs = [
            storage.apart(storage.store(own[part], precision), storage.store(rest[part], precision), precision)
            for part in own
        ]
        expected = torch.stack([u for u, _ in pairs]).amax(0), torch.stack([d for _, d in pairs]).sum(0)
        found = ulps[..., s].flatten(), differing[..., s].flatten()
        # what the last bits of float64 do, which may depend on the place in a batch, is seen in none but numbers next
        # to 0, where steps are tiny
        slack = 0 if precision in ("fp8", "int8") else 1e-3
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x.double(), y.double(), rtol=slack, atol=0, msg=precision)


def test_strong_decay_has_a_horizon() -> None:
    """A step that fades by exp(-4) loses 24 bits within 5 tokens a layer; the convolutions hold the last three."""
    adapter = forgetful()
    found = lost(adapter, tiny.ids(1, 66)[0].tolist(), [True] * 37, substitutes=2)
    assert not found[:, -3:].any()
    assert found[:, :20].all()
    # a token that is lost in a fine format is lost in a coarser one
    order = [PRECISIONS.index(p) for p in ("fp32", "bf16", "fp8")]
    assert (np.diff(found[order].astype(int), axis=0) >= 0).all()


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    push=st.floats(0.5, 6.0),
    length=st.integers(4, 16),
    more=st.lists(st.integers(0, 36), min_size=1, max_size=6),
)
def test_no_recoverable_token_is_called_lost(seed: int, push: float, length: int, more: list[int]) -> None:
    """Where two windows are called equal, whatever goes on from their stored memories is equal, bit for bit."""
    adapter, ids = forgetful(seed % 7, push), tiny.ids(1, length, seed)[0]
    at, others = every(adapter, ids)
    others = others[:, :6]
    ulps, *_ = compare(adapter, ids, adapter.empty(1), at, others, PRECISIONS, 4096)
    p = seed % length
    texts = ids.repeat(8, 1)
    texts[1:7, p] = others[p]
    with torch.no_grad():
        _, ends = adapter.hidden(texts, None)
        for s, precision in enumerate(PRECISIONS):
            stored = {part: storage.restore(storage.store(ends[part], precision)) for part in ends}
            start = Memory({part: x.view_as(ends[part]) for part, x in stored.items()})
            logits, _ = adapter(torch.tensor([more]).expand(8, -1), start)
            for row in torch.nonzero(ulps[p, :, s] == 0).flatten().tolist():
                assert torch.equal(logits[row + 1], logits[0]), precision


def test_prefix_is_read_before_the_window() -> None:
    adapter, ids = forgetful(), tiny.ids(1, 6)[0].numpy()
    wanted: dict[str, Any] = {"bos": BOS, "allowed": np.ones(37, np.bool_), "substitutes": 3, "per_doubling": None}
    wanted |= {"precisions": ("fp32",), "batch_tokens": 64}
    with_bos = judge(adapter, ids, prefix="bos", rng=np.random.default_rng(0), **wanted)
    without = judge(adapter, ids, prefix="none", rng=np.random.default_rng(0), **wanted)
    assert np.array_equal(with_bos.substitutes, without.substitutes)
    assert not np.array_equal(with_bos.ulps, without.ulps)


def test_a_memory_without_numbers_is_refused() -> None:
    adapter = tiny.adapter("mamba")
    with torch.no_grad():
        adapter.model.backbone.embeddings.weight[5] = math.nan
    ids = torch.tensor([5, 3])
    with pytest.raises(ModelError, match=r"no finite number, in layers\.0"):
        compare(adapter, ids, adapter.empty(1), torch.tensor([0]), torch.tensor([[4]]), ("fp32",), 64)


# ---- statistics -----------------------------------------------------------------------------------------------------


def table(folder: Path, rows: list[dict[str, Any]]) -> None:
    """certificate/L8.parquet of ``rows``, with what they leave out filled in."""
    filled = {"run": "r", "model": "m", "length": 8, "precision": "fp32", "weight": 1.0, "substitute_id": 3}
    whole = [filled | {"window_id": row["doc_id"], "domain": row["doc_id"][0], **row} for row in rows]
    (folder / "certificate").mkdir()
    columns = [c.name for c in schema.CERTIFICATE]
    arrow = pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in whole])
    pq.write_table(arrow.cast(schema.arrow("certificate")), folder / "certificate" / "L8.parquet")


def test_shares_and_horizons_by_hand(tmp_path: Path) -> None:
    """Two documents of a window of 8 each.  The last token of either is kept; at distances 2-3 one of two is lost, by
    its second substitute; at 4-7 one token stands for four and is lost in the first, kept in the second."""
    at = [(7, 1.0, False), (6, 1.0, False), (5, 1.0, True), (4, 1.0, False)]
    rows = [
        {"doc_id": doc, "position": p, "weight": w, "equal": e, "ulps": 0 if e else 5}
        for doc in ("a", "b")
        for p, w, gone in [*at, (1, 4.0, doc == "a")]
        for e in (False, gone)
    ]
    table(tmp_path, rows)
    found = certain.shares(tmp_path, ["distance", "domain"], seed=0, confidence=0.95, resamples=200, position_bins=4)
    assert found.columns == [c.name for c in schema.ESTIMATES]
    value = {(r["by"], r["group"]): r["value"] for r in found.iter_rows(named=True)}
    assert value == {
        ("all", "all"): 6 / 16,
        ("distance", "0"): 0.0,
        ("distance", "1"): 0.0,
        ("distance", "2-3"): 0.5,
        ("distance", "4-7"): 0.5,
        ("domain", "a"): 5 / 8,
        ("domain", "b"): 1 / 8,
    }
    row = found.filter(by="all").row(0, named=True)
    assert (row["condition"], row["decoder"], row["metric"]) == ("fp32", "certificate", "certainly_lost")
    assert (row["n_tokens"], row["n_documents"]) == (10, 2)
    assert row["low"] < row["value"] < row["high"]
    horizon = certain.horizons(tmp_path).row(0, named=True)
    assert horizon == {
        **{"run": "r", "model": "m", "length": 8, "precision": "fp32", "first": 2, "half": 2},
        **{"lost": 6 / 16, "n_tokens": 10, "n_documents": 2},
    }


def test_no_loss_has_no_horizon(tmp_path: Path) -> None:
    table(tmp_path, [{"doc_id": "a", "position": 3, "equal": False, "ulps": 9}])
    horizon = certain.horizons(tmp_path).row(0, named=True)
    assert (horizon["first"], horizon["half"], horizon["lost"]) == (None, None, 0.0)
    with pytest.raises(RunError, match="no certificate"):
        certain.horizons(tmp_path / "certificate")


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Any:
    """A random model to which t and h are the same byte, and a text."""
    with torch.random.fork_rng():
        folder = small.model(tmp_path / "model")
    from safetensors.torch import load_file, save_file

    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tensors = load_file(folder / "model.safetensors")
    tensors["backbone.embeddings.weight"][ids["t"]] = tensors["backbone.embeddings.weight"][ids["h"]]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    small.text(tmp_path / "text.jsonl", documents=4, words=6)
    return lambda **changes: request.study(
        str(folder), [str(tmp_path / "text.jsonl")], "6,9", 9, device="cpu", **changes
    )


def test_a_blind_model_end_to_end(tmp_path: Path, study: Any) -> None:
    wanted = certificate.Settings(substitutes=255, per_doubling=None)
    run = certificate.certify(study(domain="domain"), tmp_path / "run", wanted)
    found = pl.read_parquet(run.path / "certificate" / "*.parquet")
    assert found.columns == [c.name for c in schema.CERTIFICATE]
    tokens = found.group_by("window_id", "position", "precision", "token").agg(lost=pl.col("equal").any())
    blind = tokens.filter(pl.col("token").is_in(["t", "h"]))
    assert blind.height > 3
    assert blind["lost"].all()
    assert not tokens.filter(precision="fp32").join(blind, on=["window_id", "position"], how="anti")["lost"].any()
    # what is equal is the other of the two, and only that
    equal = found.filter(pl.col("equal"), precision="fp32")
    assert ((equal["token_id"] - equal["substitute_id"]).abs() == ord("t") - ord("h")).all()
    share = tokens.filter(precision="fp32")["lost"].mean()
    horizons = run.table("horizons").filter(precision="fp32")
    assert (horizons["lost"] * horizons["n_tokens"]).sum() / horizons["n_tokens"].sum() == pytest.approx(share)
    estimates = run.table("estimates").filter(condition="fp32", by="all")
    assert estimates.sort("length")["value"].to_list() == horizons.sort("length")["lost"].to_list()
    assert set(run.table("estimates")["by"]) == {"all", "position", "distance", "domain"}

    # again: nothing is computed anew; other settings do not mix with these
    (run.path / "certificate" / "L9.parquet").unlink()
    before = (run.path / "certificate" / "L6.parquet").stat().st_mtime_ns
    again = certificate.certify(study(domain="domain"), run.path, wanted)
    assert (run.path / "certificate" / "L6.parquet").stat().st_mtime_ns == before
    assert pl.read_parquet(again.path / "certificate" / "*.parquet").equals(found)
    with pytest.raises(RunError, match="certificate of this run changed"):
        certificate.certify(study(domain="domain"), run.path, certificate.Settings(substitutes=2, per_doubling=None))


def test_classes_are_those_of_the_study(tmp_path: Path, study: Any) -> None:
    """Labels called otherwise, of one domain alone, as a run of the same study has them; others, and they are made anew
    and the certificate is not."""
    wanted = certificate.Settings(substitutes=2, per_doubling=2)
    plain = study(domain="domain", annotations=["repetition:document"])
    plain = plain.model_copy(update={"windows": plain.windows.model_copy(update={"tokens_per_length": 99})})

    def of(**changes: Any) -> RunDir:
        annotations = [plain.annotations[0].model_copy(update=changes)]
        return certificate.certify(plain.model_copy(update={"annotations": annotations}), tmp_path / "run", wanted)

    with pytest.raises(ConfigError, match=r"'repetition' is of domains \['nwes'\].* Name some of \[.*'news'"):
        of(domains=["news", "nwes"])
    run = of(labels={"repeated": "old", "first": ""}, domains=["news"])
    tokens = pl.read_parquet(run.path / "certificate" / "*.parquet")
    news = tokens.filter(domain="news")["doc_id"]
    spans = pl.read_parquet(run.path / "annotations" / "repetition.parquet")
    assert 0 < spans["doc_id"].n_unique() <= news.n_unique() < tokens["doc_id"].n_unique()
    assert spans["doc_id"].is_in(news.unique().implode()).all()
    assert set(spans["label"]) == {"old"}
    assert "old" in run.table("estimates").filter(by="repetition")["group"]

    before = (run.path / "certificate" / "L6.parquet").stat().st_mtime_ns
    assert "new" in of(labels={"first": "new"}).table("estimates").filter(by="repetition")["group"]
    assert (run.path / "certificate" / "L6.parquet").stat().st_mtime_ns == before


def test_where_memory_runs_out_less_is_read_at_once(
    tmp_path: Path, study: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = certificate.Settings(substitutes=2, per_doubling=1)
    whole, room, asked = certificate.certify(study(), tmp_path / "whole", wanted), 300, []

    def cramped(*given: Any, batch_tokens: int, **more: Any) -> Any:
        asked.append(batch_tokens)
        if batch_tokens > room:
            raise torch.OutOfMemoryError
        return judge(*given, batch_tokens=batch_tokens, **more)

    monkeypatch.setattr(certificate, "judge", cramped)
    parts = certificate.certify(study(), tmp_path / "parts", wanted)
    tables = [pl.read_parquet(run.path / "certificate" / "*.parquet") for run in (whole, parts)]
    assert tables[0].equals(tables[1])
    assert min(asked) > room / 2
    # what fits at one length is where the next begins
    assert len(list(parts.path.glob("certificate/*.parquet"))) == 2
    assert asked == sorted(asked, reverse=True)
    assert asked.count(max(asked)) == 1
    assert "out of memory: about 256 tokens are now read at once" in caplog.text
    room = 0
    with pytest.raises(RunError, match="does not hold a window of 6 tokens"):
        certificate.certify(study(), tmp_path / "none", wanted)


def test_bad_input(tmp_path: Path, study: Any) -> None:
    with pytest.raises(ConfigError, match="whole numbers with commas"):
        request.study("m", ["t"], "64,many", 100)
    with pytest.raises(ConfigError, match="lengths must rise"):
        request.study("m", ["t"], "64,32", 100)
    with pytest.raises(ConfigError, match="no annotation named 'nombers'"):
        request.study("m", ["t"], "64", 100, annotations=["nombers"])
    with pytest.raises(ConfigError, match="no precision 'fp4'"):
        certificate.Settings(substitutes=1, per_doubling=None, precisions=("fp4",))
    with pytest.raises(ConfigError, match="per_doubling is 0"):
        certificate.Settings(substitutes=1, per_doubling=0)
    with pytest.raises(ConfigError, match="256 substitutes are wanted"):
        certificate.certify(study(), tmp_path / "run", certificate.Settings(substitutes=256, per_doubling=1))


def test_command(tmp_path: Path, study: Any) -> None:
    arguments = ["certify", str(tmp_path / "model"), "--text", str(tmp_path / "text.jsonl"), "--lengths", "8"]
    arguments += ["--per-doubling", "1", "--tokens-per-length", "16", "--device", "cpu", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "horizons.parquet").exists()
    assert "half from" in done.output


def test_what_is_lost_is_shown_with_its_interval_and_n(capsys: pytest.CaptureFixture[str]) -> None:
    key = {"run": "r", "model": "m", "length": 64}
    of = key | {"metric": "certainly_lost", "by": "all", "confidence": 0.9, "n_tokens": 1200}
    estimates = [
        of | {"condition": "fp32", "value": 0.25, "low": 0.125, "high": 0.5, "n_documents": 7},
        of | {"condition": "fp8", "value": 0.75, "low": math.nan, "high": math.nan, "n_documents": 1},
        of | {"condition": "fp32", "value": 0.9, "low": 0.9, "high": 0.9, "n_documents": 9, "by": "distance"},
        of
        | {"condition": "noise:1", "value": 0.9, "low": 0.9, "high": 0.9, "n_documents": 9, "metric": "lost_to_noise"},
    ]
    edges = [("fp32", 5, 2048), ("fp8", 1, None)]
    horizons = [
        key | {"precision": p, "first": first, "half": half, "n_tokens": 1200, "n_documents": 7}
        for p, first, half in edges
    ]
    show(pl.DataFrame(estimates), pl.DataFrame(horizons))
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.strip().startswith("64")]
    assert rows == [
        ["64", "fp32", "25.0", "(12.5-50.0)", "5", "2,048", "1,200", "7"],
        ["64", "fp8", "75.0", "(–)", "1", "never", "1,200", "1"],
    ]
    assert "90 % intervals over documents" in said
