"""What tests/golden/ holds, made anew:  python tests/golden/remake.py

Only after a change that is meant to change it; the difference belongs in the commit's message.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
import typer.main  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mnemoscope import cli, config  # noqa: E402
from mnemoscope.codec.decoder import encode  # noqa: E402
from mnemoscope.codec.families.native import Native  # noqa: E402
from mnemoscope.train.loop import fit  # noqa: E402
from mnemoscope.train.plan import Plan, growing  # noqa: E402
from mnemoscope.train.processes import accelerator  # noqa: E402

STEPS = 50


def surface() -> str:
    """The command line: a line per command, its arguments, then its options by every name they have."""
    root: Any = typer.main.get_command(cli.app)
    lines = []
    for name, command in [("", root), *sorted(root.commands.items())]:
        arguments = [p.name.upper() for p in command.params if p.param_type_name == "argument"]
        options = sorted("/".join(p.opts) for p in command.params if p.param_type_name == "option")
        lines.append(" ".join(["mnemoscope", *filter(None, [name]), *arguments, *options]))
    return "\n".join(lines) + "\n"


def curve() -> list[tuple[int, int, float]]:
    """(step, window length, nats a token) of a tiny decoder's first 50 steps, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    encoder = tiny.adapter("mamba", num_hidden_layers=2)

    def loss(module: nn.Module, ids: Tensor) -> Tensor:
        nats: Tensor = module(encode(encoder, ids), ids)[0]
        return nats

    optimiser = config.Optimiser(learning_rate=1e-2, warmup=0.1, weight_decay=0.1)
    with tempfile.TemporaryDirectory() as folder:
        rows = fit(
            Native.from_encoder(encoder, 0, 0),
            loss,
            # three letters, so that there is something to learn besides the memory
            lambda rng, length, count: rng.choice(np.array([3, 5, 7, 7]), size=(count, length)),
            Plan(growing((2, 4, 7), STEPS, 0.5, (0,)), 32, optimiser, STEPS),
            seed=(0,),
            identity="golden",
            folder=Path(folder),
            accelerator=accelerator(config.Compute(device="cpu")),
            row={},
            progress=lambda *_: None,
        )
    torch.set_num_threads(threads)
    return [(row["step"], row["length"], row["nats"]) for row in rows]


def main() -> None:
    (HERE / "cli.txt").write_text(surface())
    lines = ["step,length,nats", *(f"{step},{length},{nats:.6g}" for step, length, nats in curve())]
    (HERE / "curve.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
