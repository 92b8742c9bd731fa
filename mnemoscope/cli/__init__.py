"""The command line: parse, call the pipeline, print.  No logic; a file for each kind of command."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from typing import Annotated

import typer
from rich.text import Text

import mnemoscope
from mnemoscope.cli import bracketing, comparing, facts, forecast, measure, model, playground, study, tables, undoing
from mnemoscope.cli.shared import err, out
from mnemoscope.errors import MnemoscopeError

HELP = """
Shows what a recurrent language model's fixed-size memory keeps, and what it forgets.

A frozen model reads a window of text into its memory; a decoder, started from that memory alone, writes the window \
back. [bold]mnemoscope demo[/bold] shows it in minutes on a laptop.

Typical use:

- mnemoscope inspect state-spaces/mamba-130m-hf: can this model be measured?

- mnemoscope measure mamba-nano TEXT.txt --out runs/text: a page about your text

- mnemoscope run STUDY.toml --out runs/mine: all stages, resumable

- mnemoscope report runs/mine: the page again, from the files

Exit codes: 0 done; 2 something in the input is wrong (the message says what, where and what to do); 3 the model \
does not carry its memory; 4 a class is worse by more than compare --fail-if-worse allows; 130 interrupted (the same \
command goes on).
"""

#: in the order of --help
COMMANDS = {
    "Studies": (study.demo, measure.measure, study.run, study.report, study.figures, comparing.compare, forecast.bench),
    "A study's stages, one at a time": (study.train, study.reconstruct, study.score, study.estimate),
    "Models": (
        *(model.inspect, bracketing.bracket, facts.check, playground.playground, model.certify, undoing.undo),
        model.pretrain,
    ),
    "Text and tables": (tables.count, tables.schema),
}

app = typer.Typer(
    name="mnemoscope",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=HELP,
)
for _panel, _commands in COMMANDS.items():
    for _command in _commands:
        # a paragraph's lines are broken where the terminal ends, not where the source does
        _paragraphs = [" ".join(_text.split()) for _text in inspect.cleandoc(_command.__doc__ or "").split("\n\n")]
        app.command(rich_help_panel=_panel, help="\n\n".join(_paragraphs))(_command)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="say which backends are chosen, and why")] = False,
) -> None:
    if version:
        out.print(mnemoscope.__version__)
        raise typer.Exit
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


def main() -> None:
    """Entry point: expected failures are printed, not traced."""
    # the library's advice about kernels that are not installed is not about what we run
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # nor are all attempts to reach the hub, each said twice: the last is ours to tell
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # OpenMP's threads wait for one another by spinning, for milliseconds by default: where another program has the core
    # of one of them, the others wait so at every operation (docs/notebook.md: a step of 7.3 s instead of 1.1)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app()
    except MnemoscopeError as error:
        # messages hold paths and TOML headers, whose brackets are no markup
        err.print(Text.assemble(("error", "bold red"), f" {error}"), soft_wrap=True)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == 130:  # typer's, of Ctrl-C
            err.print("interrupted; the same command goes on from here")
        raise
