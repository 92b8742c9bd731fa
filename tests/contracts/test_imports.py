"""Imports flow one way, report and statistics know nothing of torch, and importing the package costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mnemoscope

#: from the top down: a module imports from its own layer and from those after it
LAYERS = (
    *("cli", "playground", "bench", "pretraining", "bracket", "certificate", "facts"),
    *("pipeline", "annotating", "report", "stats", "learning", "measuring", "workshop", "controls"),
    *("annotate", "score", "train", "codec", "undo", "request", "trained"),
    *(
        "frequency",
        "memory",
        "kernels",
        "text",
        "zoo",
        "rundir",
        "config",
        "plugins",
        "schema",
        "progress",
        "types",
        "errors",
    ),
)
ROOT = Path(mnemoscope.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))


def layer(module: str) -> str:
    """``mnemoscope.train.loop`` -> ``train``; ``mnemoscope`` itself -> empty."""
    return [*module.split("."), ""][1]


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, module of this package) of every import in a file, those inside functions too, those for type checkers
    alone left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            assert node.module is not None
            # "from mnemoscope import config" names a module, "from mnemoscope.config import load" does not
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "mnemoscope" else [node.module]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "mnemoscope")


def test_the_order_names_every_module_and_no_other() -> None:
    there = {layer(f"mnemoscope.{f.relative_to(ROOT).with_suffix('').parts[0]}") for f in MODULES} - {"__init__"}
    assert there == set(LAYERS)


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_imports_flow_down(file: Path) -> None:
    parts = file.relative_to(ROOT).with_suffix("").parts
    own = LAYERS.index(parts[0]) if parts[0] != "__init__" else -1
    for line, name in imports(file):
        target = layer(name)
        if target == "__version__" or not target:  # the package itself
            continue
        assert LAYERS.index(target) >= own, f"{file}:{line}: {parts[0]} imports {name}, which lies above it"


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_report_and_statistics_never_import_torch() -> None:
    modules = [
        ".".join(("mnemoscope", *f.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for layer in ("report", "stats")
        for f in MODULES
        if f.relative_to(ROOT).parts[0] == layer
    ]
    assert len(modules) > 6
    loaded = loaded_after(f"import {', '.join(modules)}\nfrom mnemoscope import plugins\nplugins.names('metric')")
    assert "polars" in loaded
    assert not {"torch", "transformers", "accelerate"} & loaded


def test_the_package_is_light_to_import() -> None:
    loaded = loaded_after("import mnemoscope; dir(mnemoscope); mnemoscope.__version__; import mnemoscope.cli")
    assert not {"torch", "transformers", "polars", "numpy", "pyarrow", "matplotlib", "plotly", "datasets"} & loaded


def test_public_names_are_what_they_say() -> None:
    assert set(mnemoscope.__all__) == set(dir(mnemoscope))
    for name in mnemoscope.__all__:
        assert getattr(mnemoscope, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mnemoscope.nothing  # noqa: B018
