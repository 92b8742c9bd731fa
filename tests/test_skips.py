"""No test is skipped, or expected to fail, without a reason and a way to lift it in tests/SKIPS.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
_CALLS = {"pytest.skip", "pytest.importorskip", "pytest.xfail"}
_MARKS = {"pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"}


def skips(source: str) -> Iterator[str]:
    """What each skip in a test file says: its module for importorskip, else its reason."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in _MARKS:
            yield "a mark, which says less than a call: use pytest.skip"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _CALLS:
            said = node.args[0] if node.args else next((k.value for k in node.keywords if k.arg == "reason"), None)
            assert isinstance(said, ast.Constant), f"line {node.lineno}: give the reason as a string"
            yield str(said.value)


def test_every_skip_is_in_the_table_and_the_table_has_no_other() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in (HERE / "SKIPS.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    head, _, *table = rows
    assert head == ["file", "skips where", "reason", "to lift it"]
    assert all(len(row) == 4 and all(row) for row in table)
    found = {
        (file.relative_to(HERE).as_posix(), said)
        for file in HERE.rglob("*.py")
        for said in skips(file.read_text(encoding="utf-8"))
    }
    assert found == {(file, where) for file, where, *_ in table}


def test_what_counts_as_a_skip() -> None:
    source = """
@pytest.mark.skipif(True, reason="x")
def test_a():
    pytest.skip("no right")
    pytest.importorskip("triton", reason="why")
"""
    assert sorted(skips(source)) == ["a mark, which says less than a call: use pytest.skip", "no right", "triton"]
