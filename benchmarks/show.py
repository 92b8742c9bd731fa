"""What was measured, for people: a line as it comes, a table, Markdown."""

from __future__ import annotations

from typing import Any

from rich.table import Table

Record = dict[str, Any]
#: what the names of parts that were measured on a CPU end with
ON_CPU = ", on a CPU"
COLUMNS = ("work", "who", "median", "min to max", "rate", "ours is faster by", "peak", "what else")


def _seconds(value: float) -> str:
    unit, scale = ("s", 1) if value >= 1 else ("ms", 1e3) if value >= 1e-3 else ("µs", 1e6)
    return f"{value * scale:.3g} {unit}"


def _rate(amount: float, unit: str, seconds: float) -> str:
    value = amount / seconds
    if unit == "tokens":
        return f"{value:,.0f} tokens/s"
    return f"{value / 1e12:.3g} T{unit}/s" if value >= 1e12 else f"{value / 1e9:.3g} G{unit}/s"


def _ceiling(held: Record, row: Record, who: str) -> float | None:
    """FLOP or bytes a second at most, as measured beside; the best repeat, as it is a ceiling."""
    part = "ceilings" + (ON_CPU if row["part"].endswith(ON_CPU) else "")
    rows = held.get(part, {}).get("rows", [])
    return next((r["amount"] / min(r["seconds"]) for r in rows if r["who"] == who and r["seconds"]), None)


def derived(held: Record, row: Record) -> dict[str, str]:
    """Shares of what the machine does at most."""
    facts, out = row["facts"], dict[str, str]()
    if row["median"] is None:
        return out
    peak = _ceiling(held, row, "bfloat16" if "bf16" in row["work"] else "float32")
    if (flops := facts.get("flops a token")) and peak:
        out["MFU"] = f"{flops * row['amount'] / row['median'] / peak:.1%}"
    if (products := facts.get("seconds of the matrix products alone")) is not None:
        out["matrix products alone"] = f"{facts['tokens a step'] / products:,.0f} tokens/s"
        if copy := _ceiling(held, row, "uint8"):
            floor = facts["tokens a step"] / (products + facts["bytes a step"] / copy)
            out["floor (products and bytes)"] = f"{floor:,.0f} tokens/s"
            out["share of the floor"] = f"{row['amount'] / row['median'] / floor:.1%}"
    if (windows := facts.get("windows at once")) is not None:
        out["windows at once"] = f"{windows:.0f}"
    for name in ("exponent", "exponent of the larger half", "retention", "seconds of compilation, once"):
        if name in facts:
            out[name] = f"{facts[name]:.3g}"
    return out


def _cells(held: Record, row: Record) -> tuple[str, ...]:
    if row["median"] is None:
        return (row["work"], row["who"], "skipped", "", "", "", "", row["skipped"])
    low, high = min(row["seconds"]), max(row["seconds"])
    ratio = row["facts"].get("ours over theirs")
    return (
        row["work"],
        row["who"],
        _seconds(row["median"]),
        f"{_seconds(low)} to {_seconds(high)}" if len(row["seconds"]) > 1 else "once",
        _rate(row["amount"], row["unit"], row["median"]),
        f"{ratio:.2f}" if ratio else "",
        f"{row['peak_bytes'] / 2**30:.2f} GiB" if row["peak_bytes"] else "",
        ", ".join(f"{name} {value}" for name, value in derived(held, row).items()),
    )


def line(held: Record, row: Record) -> str:
    return "  ".join(filter(None, _cells(held, row)))


def table(held: Record) -> Table:
    made = Table(*COLUMNS, title="speed")
    for part in held.values():
        for row in part["rows"]:
            made.add_row(*_cells(held, row))
        made.add_section()
    return made


def markdown(held: Record) -> str:
    lines = ["# Speed", ""]
    for name, part in held.items():
        about = part["machine"]
        made_with = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
        lines += [
            f"## {name}",
            "",
            f"{about['device']} ({about['cpu']}), {about['date']}, revision `{about['revision'] or 'unknown'}`,",
            f"`{about['command']}`.  {made_with}.",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"| {' | '.join('---' if c in ('work', 'who', 'what else') else '---:' for c in COLUMNS)} |",
            *(f"| {' | '.join(cell.replace('|', '/') for cell in _cells(held, row))} |" for row in part["rows"]),
            "",
        ]
    return "\n".join(lines)
