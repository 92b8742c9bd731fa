"""The arithmetic of the benchmarks; their times are for no test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import contest, cost, quality, show, tables
from mnemoscope.train.plan import Plan


def test_operations_and_parameters_of_mamba_130m() -> None:
    """A layer's maps: 768 x 3072, 1536 x 80, 48 x 1536, 1536 x 768, two operations a weight."""
    shape = cost.MAMBA_130M
    assert shape.body_flops == 24 * 2 * (768 * 3072 + 1536 * 80 + 48 * 1536 + 1536 * 768)
    assert shape.autoencoder_flops / 1e6 == pytest.approx(948.9, abs=0.05)
    assert shape.parameters == 129_135_360  # what the published checkpoint holds


def test_the_least_traffic_is_of_the_parts_that_it_names() -> None:
    """256 x 64: 27,648 bytes forward twice and 43,008 backward for each token and layer; 46.2 GB in all."""
    found = cost.MAMBA_130M.autoencoder_bytes(256, 64)
    passes = 16384 * 24 * (2 * 27648 + 43008)
    logits, optimiser = 16384 * 4 * 50280, 30 * 129_135_360
    states = 2 * 64 * 24 * 1536 * (16 + 4) * 4
    assert found == passes + logits + optimiser + states
    assert found / 1e9 == pytest.approx(46.2, abs=0.05)


def test_exponents() -> None:
    sizes = [16, 64, 256, 4096]
    assert cost.exponent(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    assert cost.exponent(sizes, [7.0] * 4) == pytest.approx(0.0, abs=1e-12)


def test_who_cannot_take_part_gets_a_reason_and_no_number() -> None:
    def missing() -> tuple[contest.Work, float]:
        raise contest.NotHereError("it is not installed")

    def slow(calls: list[int]) -> contest.Contestant:
        return contest.Contestant("slow", lambda: (lambda: calls.append(1), 10.0), warm=2)

    calls: list[int] = []
    patience = contest.Patience(repeats=3, block=0.0, long=1e9)
    ours, theirs = contest.contest("steps", "work", [slow(calls), contest.Contestant("theirs", missing)], patience)
    assert len(calls) == 2 + 3 == 2 + len(ours.seconds)
    assert (theirs.seconds, theirs.skipped) == ([], "it is not installed")
    assert "ours over theirs" not in theirs.facts


def test_what_does_not_fit_is_halved_with_room_to_spare() -> None:
    """20 windows of which 7 fit: 20, 10, 5, and half of it."""

    def make(n: int) -> contest.Work:
        def work() -> None:
            if n > 7:
                raise torch.OutOfMemoryError("no room")

        return work

    assert contest.fitting(make, 20)[1] == 2
    assert contest.fitting(make, 6)[1] == 6


def test_shares_are_of_the_ceilings_measured_beside() -> None:
    """100 tokens a second of 1e9 FLOP each on a machine of 1e12 FLOP/s and 1e9 B/s; products take 0.5 s of a step of
    100 tokens, and its 2.5e8 bytes 0.25 s."""
    row = {
        **{"part": "steps", "work": "step, bf16", "amount": 100.0, "unit": "tokens", "median": 1.0},
        "facts": {
            **{"flops a token": 1e9, "seconds of the matrix products alone": 0.5},
            **{"tokens a step": 100, "bytes a step": 2.5e8},
        },
    }
    ceilings = [
        {"who": "bfloat16", "amount": 1e12, "seconds": [1.0, 1.5]},
        {"who": "uint8", "amount": 1e9, "seconds": [1.0]},
    ]
    found = show.derived({"ceilings": {"rows": ceilings}}, row)
    assert found["MFU"] == "10.0%"
    assert found["matrix products alone"] == "200 tokens/s"
    assert found["share of the floor"] == "75.0%"
    elsewhere = show.derived({"ceilings": {"rows": ceilings}}, row | {"part": "steps" + show.ON_CPU})
    assert "MFU" not in elsewhere


def test_the_smallest_budget_is_trained_once_more_for_its_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of 9 (with 6 of compilation), 3, 4 and 5 seconds; the second budget reaches one goal, the third two."""
    trained: list[int] = []

    def train(_where: object, plan: Plan, _precision: str, _family: str) -> tuple[int, float]:
        trained.append(len(plan.lengths))
        return trained[-1], [9.0, 3.0, 4.0, 5.0][len(trained) - 1]

    class Setting:
        def retention(self, steps: int, length: int) -> float:
            return steps / 1000 - length / 10_000

    budgets = [steps * quality.BATCH for steps in (100, 150, 225, 340)]
    monkeypatch.setattr(quality, "train", train)
    monkeypatch.setattr(quality, "BUDGETS", budgets)
    near, far = (64, 0.14), (256, 0.19)
    found = quality.ours(cast(quality.Setting, Setting()), "no", [near, far])
    assert trained == [100, 100, 150, 225]
    assert [(found[g].amount, found[g].seconds) for g in (near, far)] == [(budgets[1], [4.0]), (budgets[2], [5.0])]
    assert {row.facts["seconds of compilation, once"] for row in found.values()} == {6.0}


def test_the_page_of_tables_adds_up() -> None:
    stages = {
        name: {"wall": wall, "cpu": 2 * wall, "peak": peak, "load": 0.5}
        for name, wall, peak in (("annotate", 100.0, 1.5), ("score", 20.0, 0.5), ("estimate", 30.0, 3.5))
    }
    versions = dict.fromkeys(("python", "numpy", "polars", "scipy"), "1")
    machine = {"cpu": "a core", "date": "today", "revision": "abc", "versions": versions}
    said = tables.page(
        {"rows": 10_993_920, "documents": 7, "estimates": 3, "effects": 4, "stages": stages, "machine": machine}
    )
    assert "10,993,920 rows of tokens" in said
    assert "| estimate | 30 | 60 | 3.5 | 0.5 |" in said
    assert "| together | 150 | 300 | 3.5 | |" in said
