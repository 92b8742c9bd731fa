"""An infini-gram index behind HTTP, such as the public ones of https://infini-gram.io (protocol: /api_doc there).

One POST a query, ``{"index", "query_type": "count", "query"}``; the answer is ``{"count", "approx", ...}``, or
``{"error"}``.  The service is a gift: we ask slowly, one thing at a time, and nothing twice.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import mnemoscope
from mnemoscope.errors import CountError
from mnemoscope.types import IntArray

PUBLIC = "https://api.infini-gram.io/"
_LONGEST_WAIT = 60.0


class RemoteIndex:
    """An index by its name.

    Args:
        index: e.g. ``v4_piletrain_llama``; the service's documentation lists them.
        cache: SQLite file of the answers so far; made if it is not there.
        url: of the service.
        timeout: seconds to wait for one answer.
        attempts: how often one query is tried; the waits in between double, or are what the service asks for.
        per_second: at most so many requests a second.
        at_most: at most so many requests by one call of :meth:`count`; more are refused before the first.
    """

    def __init__(
        self,
        index: str,
        cache: str | Path,
        *,
        url: str = PUBLIC,
        timeout: float = 30.0,
        attempts: int = 5,
        per_second: float = 4.0,
        at_most: int = 10_000,
    ):
        self.index, self.cache, self.url = index, Path(cache), url
        self._timeout, self._attempts, self._pause, self._at_most = timeout, attempts, 1 / per_second, at_most
        self._next = 0.0

    def count(self, items: Sequence[str]) -> IntArray:
        """How often each string occurs in the corpus, int64 [items].

        The index holds tokens: a string is tokenised there on its own (Llama's tokenizer puts a space before it), and
        only that sequence of tokens is found, so a part of a word is not.  What was answered is kept, whatever fails
        later.

        Raises:
            CountError: no answer, an answer that is none, one that is only an estimate, or too many to ask.
        """
        if any(not item for item in items):
            raise CountError("an empty item occurs everywhere", remedy="Leave it out", file=self.url)
        return np.array(self._counts(items), dtype=np.int64)

    @property
    def total(self) -> int:
        """Tokens of the corpus, as the service counts them: what it answers to an empty query."""
        return self._counts([""])[0]

    def per_million(self, items: Sequence[str]) -> npt.NDArray[np.float64]:
        """Occurrences for each million tokens of the corpus, float64 [items]."""
        return self.count(items).astype(np.float64) * (1e6 / self.total)

    # ---- answers that we have -------------------------------------------------------------------------------------

    def _counts(self, items: Sequence[str]) -> list[int]:
        with self._answers() as answers:
            known = {item: self._known(answers, item) for item in dict.fromkeys(items)}
            missing = [item for item, count in known.items() if count is None]
            if len(missing) > self._at_most:
                raise CountError(
                    f"{len(missing):,} queries, where at most {self._at_most:,} are allowed",
                    remedy="Ask for less, build an index of your own, or raise at_most",
                    file=self.url,
                )
            for item in missing:
                known[item] = self._ask(item)
                with answers:
                    answers.execute(
                        "INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?)", (*self._key(item), known[item])
                    )
        return [count for item in items if (count := known[item]) is not None]

    def _key(self, item: str) -> tuple[str, str, str]:
        return self.url, self.index, item

    def _known(self, answers: sqlite3.Connection, item: str) -> int | None:
        row = answers.execute('SELECT count FROM counts WHERE url = ? AND "index" = ? AND item = ?', self._key(item))
        found = row.fetchone()
        return None if found is None else int(found[0])

    @contextmanager
    def _answers(self) -> Iterator[sqlite3.Connection]:
        try:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.cache)) as answers:
                answers.execute(
                    'CREATE TABLE IF NOT EXISTS counts (url TEXT, "index" TEXT, item TEXT, count INTEGER,'
                    ' PRIMARY KEY (url, "index", item))'
                )
                yield answers
        except (sqlite3.Error, OSError) as error:
            raise CountError(
                f"the cache cannot be used ({error})", remedy="Give another file", file=self.cache
            ) from error

    # ---- answers that we have not ---------------------------------------------------------------------------------

    def _ask(self, item: str) -> int:
        for attempt in range(1, self._attempts + 1):
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + self._pause
            try:
                return self._count(item, self._post(item))
            except urllib.error.HTTPError as error:
                if error.code != 429 and error.code < 500:
                    raise CountError(
                        f"the service refuses {item!r} ({error.code} {error.reason})",
                        remedy="Check the index's name and the url",
                        file=self.url,
                    ) from None
                problem, wait = f"{error.code} {error.reason}", _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                problem, wait = str(getattr(error, "reason", error)) or type(error).__name__, None
            pause = 2.0 ** (attempt - 1) * self._pause if wait is None else wait
            self._next = time.monotonic() + min(_LONGEST_WAIT, pause)
        raise CountError(
            f"the service does not answer ({problem}; {self._attempts} attempts)",
            remedy="Check the network and try again later: answers so far are kept",
            file=self.url,
        )

    def _post(self, item: str) -> bytes:
        query = {"index": self.index, "query_type": "count", "query": item}
        headers = {"Content-Type": "application/json", "User-Agent": f"mnemoscope/{mnemoscope.__version__}"}
        request = urllib.request.Request(self.url, json.dumps(query).encode(), headers)
        with urllib.request.urlopen(request, timeout=self._timeout) as answer:
            body: bytes = answer.read()
        return body

    def _count(self, item: str, body: bytes) -> int:
        try:
            answer: Any = json.loads(body)
        except ValueError:
            answer = None
        count = answer.get("count") if isinstance(answer, dict) else None
        if isinstance(answer, dict) and "error" in answer:
            problem = f"the service refuses {item!r} ({answer['error']})"
        elif not isinstance(count, int) or isinstance(count, bool) or count < 0:
            problem = f"what came back for {item!r} is no count ({body[:80]!r})"
        elif answer.get("approx"):
            problem = f"the service only estimates how often {item!r} occurs"
        else:
            return count
        raise CountError(problem, remedy="Check the index's name, the query and the url", file=self.url)


def _seconds(header: str | None) -> float | None:
    """A Retry-After that is a number of seconds; its other form, a date, is not worth a clock's trust."""
    return float(header) if header is not None and header.isdecimal() else None
