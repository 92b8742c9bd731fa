"""How much of what decoders of a Mamba or Mamba-2 write back the convolution hands over verbatim:
`python -m benchmarks.verbatim bridged runs/family-nano --page docs/results/kept.md`.

The first layer's convolution keeps its last K - 1 inputs, and each is one token's, so the last K - 1 tokens of a window
are in the memory word for word, whatever the recurrent state holds.  Of each length::

    read      the share of these tokens that are told from the convolution's memory alone, by the nearest input
    verbatim  their nats without a memory, divided by those of the whole window: retention for which no recurrent state
              is needed
    retention of the decoder, of the same windows

Of the first seed's reconstructions; windows of K - 1 tokens and less would be verbatim as a whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.decoders import FloatArray, put, ratios
from mnemoscope.codec.decoder import encode
from mnemoscope.errors import RunError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.load import load
from mnemoscope.report.export import label
from mnemoscope.rundir import RunDir
from mnemoscope.types import IntArray

CONV = "layers.0.conv"
#: windows that are read at once, and of a length at most
TOGETHER, READ = 64, 256


def shares(last: int, nats: FloatArray, guessed: FloatArray) -> FloatArray:
    """What is summed over documents [n, 3]: nats without a memory of the ``last`` tokens of each window, nats that the
    memory spares, and nats without a memory of all; from the nats of each token [n, L]."""
    return np.stack([guessed[:, -last:].sum(1), (guessed - nats).sum(1), guessed.sum(1)], 1)


def inputs_of_tokens(adapter: Adapter) -> torch.Tensor:
    """What the first layer's convolution keeps of each token of the vocabulary [V, D]: read alone, it is the last."""
    tokens = torch.arange(adapter.model.config.vocab_size)[:, None]
    return torch.cat([encode(adapter, some)[CONV][..., -1].float() for some in tokens.split(TOGETHER)])


def told(inputs: torch.Tensor, conv: torch.Tensor, ids: torch.Tensor) -> int:
    """How many of the last K - 1 tokens of windows [n, L] are those whose inputs [V, D] the convolution's memory
    [n, D, K - 1] of the first layer is nearest to."""
    last = conv.shape[2]
    found = torch.cdist(conv.float().transpose(1, 2).flatten(0, 1), inputs).argmin(1).view(-1, last)
    return int((found == ids[:, -last:]).sum())


def table(run: RunDir, decoder: str) -> Iterator[str]:
    """Lines of Markdown."""
    model, guessing, windows = run.study.model, run.study.estimate.guesses, run.study.windows
    if model is None or guessing is None or windows is None:
        raise RunError("a run of one model and a decoder that guesses is needed", remedy="See studies/family-nano.toml")
    adapter = load(model.name).adapter.requires_grad_(False)
    inputs, last = inputs_of_tokens(adapter), adapter.model.config.conv_kernel - 1
    yield f"**{label(model.name, int(run.manifest['parameters']))}**, decoder `{decoder}`, seed 0\n"
    yield f"| tokens | last {last} told by it | verbatim | retention | verbatim, of retention | documents |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for length in windows.lengths:
        columns = ["window_id", "doc_id", "reference_ids", "token_nats"]
        written, guesses = (
            pl.read_parquet(run.path / "decoded" / f"{name}.L{length}.parquet", columns=columns).sort("window_id")
            for name in (f"{decoder}.seed-0.memory", f"{guessing}.seed-0.none")
        )
        ids: IntArray = np.array(written["reference_ids"].to_list())
        nats, guessed = (np.array(t["token_nats"].to_list(), np.float64) for t in (written, guesses))
        read = 0
        for first in range(0, min(READ, len(ids)), TOGETHER):
            some = torch.from_numpy(ids[first : first + TOGETHER])
            read += told(inputs, encode(adapter, some)[CONV], some)
        sums = pl.DataFrame(shares(last, nats, guessed), schema=["last", "spared", "all"])
        by_document = sums.with_columns(written["doc_id"]).group_by("doc_id").sum().sort("doc_id")
        last_spared_all = by_document.select("last", "spared", "all").to_numpy()
        num, den = last_spared_all[:, [0, 1, 0]], last_spared_all[:, [2, 2, 1]]
        cells = ratios(num, den, list(by_document["doc_id"]), run.study.seed)
        of = f"{read:,} of {last * min(READ, len(ids)):,}"
        yield f"| {length} | {of} | {' | '.join(cells)} | {by_document.height:,} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoder", help="of every run")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs that were measured (reconstruct)")
    parser.add_argument("--page", type=Path, required=True, help="Markdown file that has the marks of tables")
    given = parser.parse_args()
    put(given.page, "\n".join(line for run in given.runs for line in table(RunDir.open(run), given.decoder)))


if __name__ == "__main__":
    main()
