"""The arithmetic of the benchmarks; their times are for no test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from synthetic_run import make_run

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import contest, cost, decoders, forgotten, quality, show, sizes, tables, verdicts
from mnemoscope import config
from mnemoscope.errors import ModelError, RunError
from mnemoscope.rundir import RunDir
from mnemoscope.stats import effects
from mnemoscope.stats.estimate import Sums
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


def test_tables_of_decoders_go_between_the_marks(tmp_path: Path) -> None:
    row = {
        "metric": "omission_in_place",
        "unit": "fraction",
        "value": 0.495,
        "low": 0.482,
        "high": 0.509,
        "n_documents": 9,
    }
    assert decoders.cell(row) == "49.5 (48.2 to 50.9)"
    assert decoders.cell({**row, "unit": "nats/token", "value": -0.0004}) == "0.000 (0.482 to 0.509)"
    assert decoders.cell(None) == decoders.cell({**row, "value": float("nan")}) == "–"
    page = tmp_path / "page.md"
    page.write_text(f"before\n{decoders.BEGIN}\nold\n{decoders.END}\nafter\n")
    decoders.put(page, "new")
    decoders.put(page, "newer")
    assert page.read_text() == f"before\n{decoders.BEGIN}\n\nnewer\n{decoders.END}\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(RunError, match="lacks the marks"):
        decoders.put(page, "new")


def of(*lost: list[int], metric: str = "omission_anywhere", documents: tuple[str, ...] = ("a", "b")) -> Sums:
    """Tokens lost of each document, which has 10, as each seed's decoder lost them."""
    num = np.array(lost, dtype=np.float64)
    by_seed = np.stack([num, np.full_like(num, 10.0)], axis=2)
    key = {"metric": metric, "unit": "fraction", "condition": "memory", "seed": "all"}
    return Sums(key, list(documents), *by_seed.sum(0).T, 10 * len(documents), by_seed)


def model(name: str, cells: dict[Any, Sums], architecture: str = "mamba", memory: int = 100) -> sizes.Member:
    study = SimpleNamespace(name=f"family-{name}", estimate=SimpleNamespace(confidence=0.95))
    run = SimpleNamespace(study=study, manifest={"memory": {"numbers": memory}})
    return sizes.Member(cast(RunDir, run), 1_000_000, architecture, cells)


ALL = ("all", "all", "omission_anywhere", 16)


def test_sizes_are_compared_document_by_document() -> None:
    """A tenth more of each document is lost, or kept less, by the smaller: paired, nothing varies, though 40 and 80 %
    do."""
    kept = ("all", "all", "retention", 16)
    small = model("small", {ALL: of([4, 8]), kept: of([6, 2], metric="retention")})
    large = model("large", {ALL: of([3, 7]), kept: of([7, 3], metric="retention")})
    for step in sizes.steps([small, large]):
        assert (step.row["value"], step.row["low"], step.row["high"]) == pytest.approx((0.1, 0.1, 0.1))
        assert verdicts.verdict(step.row) == "replicated"
    assert {s.metric for s in sizes.steps([small, large])} == {"omission_anywhere", "retention"}
    (back, _) = sizes.steps([large, small])
    assert verdicts.verdict(back.row) == "opposite"


def test_what_decoder_seeds_disagree_about_is_in_the_interval_of_two_sizes() -> None:
    """One seed's smaller model loses 0.2 more, the other's nothing: 0.1 -+ t_1 sqrt(0.02 / 2), t_1 = 12.706."""
    (step,) = sizes.steps([model("s", {ALL: of([4, 8], [4, 8])}), model("l", {ALL: of([2, 6], [4, 8])})])
    assert step.row["value"] == pytest.approx(0.1)
    assert step.row["high"] == pytest.approx(0.1 + 12.706 * 0.1, abs=1e-3)
    assert verdicts.verdict(step.row) == "not"


def test_models_that_read_other_documents_are_not_compared() -> None:
    other = model("l", {ALL: of([3, 7], documents=("a", "c"))})
    with pytest.raises(ValueError, match="did not read the same documents"):
        list(sizes.steps([model("s", {ALL: of([4, 8])}), other]))


def test_neighbours_and_the_ends_are_tallied_apart() -> None:
    """40 and 80 % are lost, then 30 and 70, then 30 and 70 again: the last step is of equals."""
    family = [model(str(i), {ALL: of(lost)}) for i, lost in enumerate(([4, 8], [3, 7], [3, 7]))]
    beside, ends = sizes.summary(family)
    assert beside.startswith("| Larger models lose less | 0 to 2 | neighbours | 1 / 1 / 0 | –")
    assert ends.startswith("|  |  | smallest to largest | 1 / 0 / 0 | –")
    (alone,) = sizes.summary(family[:1])
    assert alone.count("not measured yet") == len(verdicts.COLUMNS)
    assert not [*sizes.summary([]), *sizes.page([])]


def test_no_step_of_size_crosses_architectures() -> None:
    """nano, mini and small are sizes of each other; mini-2 stands beside mini, the nearest by memory, not by place."""
    of_family = {"nano": ("mamba", 10, [4, 8]), "mini-2": ("mamba2", 40, [5, 9]), "mini": ("mamba", 39, [3, 7])}
    of_family["small"] = ("mamba", 90, [2, 6])
    family = [model(name, {ALL: of(lost)}, kind, memory) for name, (kind, memory, lost) in of_family.items()]
    pairs = [(s.model.name, s.base.name) for s in sizes.steps(family)]
    assert pairs == [("nano", "mini"), ("mini", "small"), ("nano", "small")]
    (beside,) = sizes.abreast(family)
    assert (beside.model.name, beside.base.name, beside.row["value"]) == ("mini-2", "mini", pytest.approx(0.2))
    *_, last = sizes.summary(family)
    assert last.startswith(
        "| Not asked there: of two architectures, mini-2 loses more than mini | both | before | 1 / 0"
    )
    (alone, beside_mini) = sizes.summary(family[1:3])
    assert "not measured yet" in alone
    assert "mini loses more than mini-2" in beside_mini


def test_the_architecture_is_what_the_configuration_of_the_model_says(tmp_path: Path) -> None:
    assert sizes.architecture(config.Model(name="mamba-nano")) == "mamba"
    with pytest.raises(ModelError, match=r"has no config\.json"):
        sizes.architecture(config.Model(name=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "mamba2"}')
    assert sizes.architecture(config.Model(name=str(tmp_path))) == "mamba2"


def test_recency_compares_the_first_tokens_with_the_last_by_number() -> None:
    """As texts, 8-11 comes after 12-15."""
    lost = {"0-3": [9, 9], "4-7": [5, 5], "8-11": [2, 2], "12-15": [1, 1]}
    cells = {("position", bin, "omission_anywhere", 16): of(n) for bin, n in lost.items()}
    ((length, _, row),) = sizes.recency(model("s", cells))
    assert (length, row["value"]) == (16, pytest.approx(0.8))


def test_a_longer_window_is_compared_with_its_neighbour_and_the_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "READINGS", {"omission_anywhere": ""})
    cells: dict[Any, Sums] = {("all", "all", "omission_anywhere", n): of([i, i]) for i, n in enumerate((4, 8, 16), 1)}
    cells |= {("all", "all", "rouge1", n): of([9 - i, 9 - i], metric="rouge1") for i, n in enumerate((4, 8, 16))}
    found = [(a, b, metric, round(row["value"], 9)) for a, b, metric, row in sizes.longer(model("s", cells))]
    steps = [(4, 8, 0.1), (8, 16, 0.1), (4, 16, 0.2)]
    assert found == [(a, b, m, v) for m in ("rouge1", "omission_anywhere") for a, b, v in steps]


def test_one_decoder_of_a_member_reads_and_the_one_that_guesses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*conditions: list[str]) -> RunDir:
        decoders = [SimpleNamespace(name=f"d{i}", conditions=c) for i, c in enumerate(conditions)]
        study = SimpleNamespace(decoders=decoders, estimate=None, model=config.Model(name="mamba-nano"))
        return cast(RunDir, SimpleNamespace(path="runs/f", study=study, manifest={"parameters": 7}))

    place = {"by": "all", "group": "all", "length": 16}
    rows = [
        of(lost)._replace(key=of(lost).key | place | {"condition": condition, "seed": seed})
        for lost, condition, seed in (([4, 8], "memory", "all"), ([9, 9], "none", "all"), ([1, 1], "memory", "0"))
    ]
    monkeypatch.setattr(sizes, "sums", lambda *_: rows)
    found = sizes.member(run(["memory"], ["none"]), ["all"])
    assert (found.parameters, found.architecture, found.cells) == (7, "mamba", {ALL: rows[0]})
    with pytest.raises(ValueError, match="one decoder should read the memory, and here do d0, d1"):
        sizes.member(run(["memory"], ["memory", "none"]), ["all"])


def test_verdicts_are_tallied_by_reading() -> None:
    def row(low: float, high: float) -> verdicts.Row:
        return {"low": low, "high": high}

    nan = float("nan")
    rows = [("retention", row(0.1, 0.2)), ("retention", row(-0.1, 0.2)), ("retention", row(-0.2, -0.1))]
    rows += [("retention", row(nan, nan)), ("rouge1", row(0.1, 0.2)), ("omission_published", row(0.0, 0.2))]
    assert verdicts.tallied(rows) == "– | – | – | 1 / 1 / 1 (+ 1 untold) | 1 / 1 / 0"


def answered(name: str, rows: dict[forgotten.Question, tuple[float, float]]) -> forgotten.Measured:
    """Intervals around their middles."""
    study = SimpleNamespace(model=config.Model(name=name))
    run = SimpleNamespace(study=study, path=Path(name), manifest={"parameters": 7})
    unit = {"unit": "fraction", "n_documents": 9}
    found = {q: {"value": (low + high) / 2, "low": low, "high": high, **unit} for q, (low, high) in rows.items()}
    return forgotten.Measured(Path(), [cast(RunDir, run)], cast(dict[forgotten.Question, Any], found))


def test_two_models_agree_where_their_intervals_lie_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, of rare words: the same side, both *not*, one *not*, opposite sides; after: opposite sides.  What only
    one has, or of which one has no interval, is no comparison."""
    monkeypatch.setattr(sizes, "architecture", lambda model: "")
    more, less, neither, untold = (0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (float("nan"), float("nan"))
    asked = [forgotten.Question("rare words", "ud", str(n), "retention", "before") for n in (4, 8, 16, 32, 64, 128)]
    after = forgotten.Question("numbers", "ud", "4", "omission_anywhere", "after")
    a = dict(zip([*asked, after], [more, neither, more, more, untold, more, less], strict=True))
    b = dict(zip([*asked[:5], after], [more, neither, neither, less, more, more], strict=True))
    lines = list(forgotten._agreement(answered("one", a), answered("runs/pretrain-two/model", b)))
    assert lines[0] == "### Do one and two agree?\n"
    assert "| rare words | before | 4 | 2 | 1 |" in lines
    assert "| numbers | after | 1 | 0 | 1 |" in lines
    assert lines[lines.index("| All | before | 4 | 2 | 1 |") + 1] == "|  | after | 1 | 0 | 1 |"
    against = [line for line in lines if line.startswith(("| rare words | ud", "| numbers | ud"))]
    assert [line.split(" | ")[2:5] for line in against] == [
        ["32", "by retention", "before"],
        ["4", "by bag (lost anywhere)", "after"],
    ]
    assert "| +15.0" in against[0]
    assert "| −15.0" in against[0]
    alone = list(forgotten._agreement(answered("one", a), answered("two", {asked[0]: more})))
    assert alone[-1] == "They are on opposite sides of nothing.\n"


def test_a_page_of_one_model_says_which_and_how_its_runs_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study of domains alone, with a made-up Mamba-2 and no family: nothing is said of sizes, and what was set
    otherwise than in the study's file is in the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/pretrain-two/model").mkdir(parents=True)
    (tmp_path / "runs/pretrain-two/model/config.json").write_text('{"model_type": "mamba2"}')
    folder = Path("runs/forgotten-two/domains")
    made = make_run(folder, decoders=("bridged",), lengths=(16, 64), documents=24).model_dump()
    made["model"]["name"], made["windows"]["tokens_per_length"] = "runs/pretrain-two/model", 4096
    kept = {k: made["decoders"][0][k] for k in ("name", "seeds", "conditions")}
    made["decoders"] = [kept | {"recipe": "trained", "weights": "runs/family-two/checkpoints/bridged"}]
    by_position = {"by": "position", "base": "last", "metrics": ["retention"]}
    study = config.Study.model_validate({**made, "effects": [by_position]})
    effects.effects(folder, study)
    manifest = {"study": study.digest(), "name": "domains", "stages": {"reconstruct": {}}, "parameters": 7}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "study.toml").write_text(config.dump(study))

    main = forgotten.measured(folder.parent)
    page = list(forgotten.page(main, [], [], "python -m this", "forgotten-two.md"))
    assert page[0] == "# What is forgotten, claim by claim: two\n"
    commands = page[page.index("```") + 1 : page.index("python -m this\n```\n")]
    assert [c for c in commands if " count " not in c] == [
        "mnemoscope pretrain studies/pretrain-two.toml --data DATA --out runs/pretrain-two",
        "mnemoscope run studies/family-two.toml --data DATA --out runs/family-two",
        "mnemoscope run studies/forgotten/domains.toml --set model.name=runs/pretrain-two/model "
        "--set decoders.bridged.weights=runs/family-two/checkpoints/bridged --data DATA "
        "--out runs/forgotten-two/domains",
    ]
    text = "\n".join(page)
    for absent in ("Larger models", "every size", "Another architecture", "mamba-nano (["):
        assert absent not in text
    assert "Nobody has read the memory of two (mamba2) by algebra" in text
    assert "Not measured yet of two: code, conll, groenwold, redial, sec, ud-ewt, ud-gum, wnut." in text
    assert "[forgotten.md](forgotten.md)" in text
    assert "was read last (recency) | two | before | – | – | – | 2 / 0 / 0 | – |" in text
    beside = "\n".join(forgotten.page(main, [main], [], "python -m this", "forgotten.md"))
    assert beside.startswith("# What is forgotten, claim by claim\n")
    assert beside.count("mnemoscope run studies/forgotten/domains.toml") == 1
    assert "They are on opposite sides of nothing." in beside
    with pytest.raises(RunError, match="no run here has effects"):
        forgotten.measured(tmp_path)


def test_a_run_of_the_study_as_it_stands_has_no_settings() -> None:
    study = config.load(forgotten.STUDIES / "code.toml")
    assert forgotten.settings(cast(RunDir, SimpleNamespace(path=Path("runs/code"), study=study))) == []
