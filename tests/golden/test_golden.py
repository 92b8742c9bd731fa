"""The command line is what it was, and so is a training, to what platforms differ by."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import remake

HERE = Path(__file__).parent
AGAIN = "if this is meant, python tests/golden/remake.py makes the file anew"


def test_command_line() -> None:
    """New knobs go into the study file; an option that goes away breaks somebody's script."""
    assert remake.surface() == (HERE / "cli.txt").read_text(), AGAIN


def test_curve_of_fifty_steps() -> None:
    with (HERE / "curve.csv").open() as file:
        expected = [(int(r["step"]), int(r["length"]), float(r["nats"])) for r in csv.DictReader(file)]
    found = remake.curve()
    assert len(found) == len(expected) == remake.STEPS
    assert [row[:2] for row in found] == [row[:2] for row in expected], AGAIN
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected], rel=1e-4), AGAIN
    # and it learns: three letters, one of them half of all, are 1.04 nats
    assert found[-1][2] < 0.75 * found[0][2]
