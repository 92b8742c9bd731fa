"""Every file in annotate/ keeps the protocol; a new one is picked up by listing the folder."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from mnemoscope import annotate, plugins
from mnemoscope.annotate import Annotator
from mnemoscope.errors import ConfigError, MnemoscopeError

FILES = sorted(p.stem for p in Path(annotate.__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def make(name: str, argument: str) -> Annotator:
    kind = plugins.load("annotation", name)
    no_reader: Any = None
    made: Annotator = kind(argument, no_reader) if kind.reads else kind(argument)
    return made


def test_the_folder_is_listed() -> None:
    assert plugins.names("annotation") == FILES
    assert len(FILES) >= 12


@pytest.mark.parametrize("name", FILES)
def test_it_says_what_it_is(name: str) -> None:
    kind = plugins.load("annotation", name)
    assert issubclass(kind, Annotator)
    assert inspect.cleandoc(kind.__dict__["__doc__"])
    assert isinstance(kind.wants, str)
    assert isinstance(kind.reads, bool)
    assert list(inspect.signature(kind).parameters) == ["argument", *(["reader"] if kind.reads else [])]


@pytest.mark.parametrize("name", FILES)
def test_an_argument_is_wanted_or_refused(name: str) -> None:
    if plugins.load("annotation", name).wants:
        with pytest.raises(ConfigError, match=f"kind '{name}' needs an argument. Give "):
            make(name, "")
    else:
        with pytest.raises(ConfigError, match=f"kind '{name}' is made with nothing"):
            make(name, "something")
        assert isinstance(make(name, ""), Annotator)


@pytest.mark.parametrize("name", FILES)
def test_an_argument_without_sense_is_refused_or_a_fields_name(name: str) -> None:
    if not plugins.load("annotation", name).wants:
        return
    try:
        fields = make(name, "no sense").fields
    except MnemoscopeError:
        return
    assert fields == ("no sense",)
