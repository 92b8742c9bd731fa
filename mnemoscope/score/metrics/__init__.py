"""What is measured: one file per metric, found by its name.

A file exposes ``METRIC``, an instance of a subclass of :class:`Metric`.  Every estimate is a ratio of sums,
``sum(numerator) / sum(denominator)``, over tokens or windows: the statistics add both up within each document,
resample documents, and divide last.

A row that was not measured has a null numerator and is in neither sum.  The ratio is NaN where the denominator sums
to 0.  No value is clipped; an interval ends where the values that are possible end.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import polars as pl


class Metric:
    """One quantity, as two expressions over the columns of a table.

    The docstring of a metric says what it does not count, and what NaN means.

    Attributes:
        name: the name of its file.
        unit: unit of the ratio.
        direction: ``"kept"`` if a higher value means that more was kept, ``"lost"`` if it means that more was lost.
        level: the table that it reads: ``"token"`` is tokens.parquet, ``"window"`` is reconstructions.parquet.
        paired: whether each token is compared with the same token under the condition ``none``, whose nats must
            have been joined in as the column ``nats_none``.
        bounds: least and largest ratio that is possible.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    direction: ClassVar[Literal["kept", "lost"]]
    level: ClassVar[Literal["token", "window"]]
    paired: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    @property
    def numerator(self) -> pl.Expr:
        """Per row, Float64; null if the row was not measured."""
        raise NotImplementedError

    @property
    def denominator(self) -> pl.Expr:
        """Per row.  Int64 if it counts units (tokens, words or windows); Float64 if it weighs rows, which are then the
        units."""
        raise NotImplementedError


class Mean(Metric):
    """A metric that is the mean of one value per unit; a null or NaN value is left out and counted out."""

    value: ClassVar[pl.Expr]

    @property
    def numerator(self) -> pl.Expr:
        return self.value.cast(pl.Float64).fill_nan(None)

    @property
    def denominator(self) -> pl.Expr:
        return self.numerator.is_not_null().cast(pl.Int64)
