"""All of it in one run:  python -m benchmarks [--quick] [--only steps] [--out DIR] [--published PATH] [--data DIR]

Writes speed.json and speed.md into DIR after every piece of work; parts that an earlier run left there, and those of
the other device, stay with their dates.  What cannot run on this machine is in the tables with its reason and without a
number.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import kernels, models, quality, scaling, show
from benchmarks.contest import QUICK, THOROUGH, Row, ceilings
from mnemoscope.rundir import revision, versions, write_atomically

PARTS = ("kernels", "steps", "decoding", "memory", "scaling", "quality")


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on, with what, by which command."""
    named = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = info.read_text().splitlines()
        named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), named)
    found = versions()
    for package in ("triton", "mamba-ssm", "causal-conv1d", "mambapy", "numba"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else named,
        "cpu": f"{named}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": found,
        "command": f"python -m benchmarks {' '.join(sys.argv[1:])}".strip(),
        "revision": revision(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer shapes and repeats: two minutes on a GPU")
    parser.add_argument("--only", choices=PARTS, action="append", help="just this part; may be given again")
    parser.add_argument("--out", type=Path, default=Path("build/speed"), help="folder for speed.json and speed.md")
    parser.add_argument("--published", type=Path, help="folder of the published code (dataminr-ai/ouroboros)")
    parser.add_argument("--data", type=Path, help="folder with pretrain/ and domains/, for the part quality")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    device, patience = torch.device(given.device), QUICK if given.quick else THOROUGH
    torch.manual_seed(0)
    rows: dict[str, Callable[[], Iterator[Row]]] = {
        "ceilings": lambda: ceilings(device, patience),
        "kernels": lambda: kernels.run(device, given.quick, patience),
        "steps": lambda: models.steps(device, given.quick, patience, given.published),
        "decoding": lambda: models.decoding(device, given.quick, patience, given.published),
        "memory": lambda: models.memory(device, given.quick, patience),
        "scaling": lambda: scaling.run(device, given.quick, patience),
        "quality": lambda: quality.run(device, patience, given.published, given.data),
    }
    file = given.out / "speed.json"
    held: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    console = Console()
    about = machine(device)
    for part in ("ceilings", *(given.only or PARTS)):
        name = part + ("" if device.type == "cuda" else show.ON_CPU)
        held[name] = {"machine": about, "rows": []}
        for row in rows[part]():
            median = row.median if row.seconds else None
            held[name]["rows"].append({**asdict(row), "part": name, "median": median})
            write_atomically(file, json.dumps(held, indent=1))
            write_atomically(given.out / "speed.md", show.markdown(held))
            console.print(show.line(held, held[name]["rows"][-1]), highlight=False, soft_wrap=True)
    console.print(show.table(held))
    console.print(f"{file} and {given.out / 'speed.md'}")


if __name__ == "__main__":
    main()
