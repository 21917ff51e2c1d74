"""Rows on their way to an API: batch after batch, what was accepted written down at once.

A batch that is refused as a whole is halved until the rows at fault stand alone. The halves are the
same in every run, and so are the keys that they are sent under: an API that knows such keys takes
a batch once, also where its first answer was lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import polars as pl

from flows._errors import RefusedError
from flows._http.calls import Page
from flows._http.jsonpaths import value_at, values_at
from flows._secrets import redact
from flows._sides import Side
from flows.targets._outbox import Outbox
from flows.targets._sender import Letter, Sender
from transforms._words import counted

if TYPE_CHECKING:
    from flows.targets.api import Api

ROWS, ROW = "rows", "row"
_LONGEST_REASON = 300
_DIGEST_BYTES = 16
_MARK = "\x00rows\x00"  # no configuration has such a text in it


@dataclass(frozen=True)
class Batch:
    """Some rows that stand together.

    Attributes:
        first: where the first of them stands in the load, from 0.
        texts: each row as a JSON object.
        digests: each row as some bytes that are the same for the same row.
        pending: whether each is still to be sent.
    """

    first: int
    texts: Sequence[str]
    digests: Sequence[bytes]
    pending: Sequence[bool]

    @classmethod
    def of(cls, first: int, rows: pl.DataFrame) -> Batch:
        """Rows of which none was sent."""
        texts = as_texts(rows)
        digests = [hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest() for text in texts]
        return cls(first, texts, digests, [True] * len(texts))

    def halves(self) -> tuple[Batch, Batch]:
        """The first and the second half."""
        middle = (len(self.texts) + 1) // 2
        return self._part(0, middle), self._part(middle, len(self.texts))

    def _part(self, begin: int, end: int) -> Batch:
        cut = slice(begin, end)
        return Batch(self.first + begin, self.texts[cut], self.digests[cut], self.pending[cut])


@dataclass
class Counts:
    """What became of the rows of a load.

    Attributes:
        accepted: in this run.
        known: accepted by an earlier run that came to no end, or an earlier try of this one.
    """

    accepted: int = 0
    known: int = 0
    refused: int = 0


@dataclass
class Delivery:
    """The rows of one load, and what became of them so far.

    Attributes:
        pipeline: whose rows they are.
        total: how many rows there are.
        number: of the load: how many were done before.
    """

    options: Api
    side: Side
    outbox: Outbox
    pipeline: str
    total: int
    number: int
    counts: Counts = field(default_factory=Counts)

    async def run(self, rows: Iterator[pl.DataFrame]) -> None:
        """Send every row that was not accepted before.

        Raises:
            LoadError: the API cannot be reached, or does not take rows at all; calls under way were awaited.
            RefusedError: it refused too many rows.
        """
        batches = self._batches(rows)
        failures: list[BaseException] = []

        async def work(sender: Sender) -> None:
            while not failures and (batch := next(batches, None)) is not None:
                try:
                    await self._deliver(sender, batch)
                except Exception as error:  # noqa: BLE001 - raised when the calls under way have come back
                    failures.append(error)

        async with Sender(self.options, self.side) as sender:
            await asyncio.gather(*(work(sender) for _ in range(self.options.concurrency)))
        if failures:
            raise failures[0]

    def _batches(self, rows: Iterator[pl.DataFrame]) -> Iterator[Batch]:
        """Batches of ``batch_rows``, wherever the frames end."""
        knows = self.outbox.accepted(self.pipeline) > 0
        first, rest = 0, pl.DataFrame()
        size = self.options.batch_rows
        for frame in rows:
            held = pl.concat([rest, frame]) if rest.height else frame
            whole = held.height - held.height % size
            for part in held[:whole].iter_slices(size):
                yield self._met(Batch.of(first, part), knows=knows)
                first += part.height
            rest = held[whole:]
        if rest.height:
            yield self._met(Batch.of(first, rest), knows=knows)

    def _met(self, batch: Batch, *, knows: bool) -> Batch:
        if not knows:
            return batch
        known = self.outbox.met(self.pipeline, batch.digests)
        self.counts.known += sum(known)
        return replace(batch, pending=[not each for each in known])

    async def _deliver(self, sender: Sender, batch: Batch) -> None:
        """Send what is pending of a batch: all of it at once, or else its halves."""
        if not any(batch.pending):
            return
        if all(batch.pending):
            page = await sender.page(self._letter(batch))
            if page.status not in self.options.refused_statuses:
                self._book(batch, self._rejections(batch, page))
                return
            if len(batch.texts) == 1:
                self._book(batch, {0: f"refused with {page.status}: {_shortened(page.body.decode(errors='replace'))}"})
                return
        for half in batch.halves():
            await self._deliver(sender, half)

    def _letter(self, batch: Batch) -> Letter:
        known_as = (self.pipeline, self.options.url, self.number, batch.first)
        key = hashlib.blake2b(json.dumps(known_as).encode(), digest_size=_DIGEST_BYTES)
        for digest in batch.digests:
            key.update(digest)
        url = addressed(self.options.url, batch.texts[0]) if self.options.columns_in_url else self.options.url
        return Letter(
            self.options.method, url, body=enveloped(self.options.body, batch.texts), idempotency_key=key.hexdigest()
        )

    def _rejections(self, batch: Batch, page: Page) -> dict[int, str]:
        """Which rows an answer refuses, by their place in the batch, and why."""
        rule = self.options.rejections
        if rule is None:
            return {}
        found = {}
        for each in values_at(rule.path, page.json) if page.json is not None else ():
            place = value_at(rule.index, each)
            if not isinstance(place, int) or not 0 <= place < len(batch.texts):
                raise self.side.error(
                    "other",
                    f"the answer to {page.call.shown} refuses row {place!r} of a batch of {len(batch.texts):,}. Check "
                    "'rejections.path' and 'rejections.index'.",
                )
            reason = value_at(rule.reason, each) if rule.reason else None
            found[place] = f"refused: {_shortened(reason if isinstance(reason, str) else json.dumps(reason or each))}"
        return found

    def _book(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Write down what became of the rows of a batch that was answered."""
        accepted = [digest for place, digest in enumerate(batch.digests) if place not in refused]
        if accepted:
            self.outbox.accept(self.pipeline, accepted)
            self.counts.accepted += len(accepted)
        if refused:
            self.outbox.refuse(
                self.pipeline, [(batch.first + at, batch.texts[at], why) for at, why in sorted(refused.items())]
            )
            self.counts.refused += len(refused)
        allowed = self.options.max_failed_ratio
        if self.counts.refused > allowed * self.total:
            example = next(iter(refused.values()), "")
            raise RefusedError(
                f"{self.side.label}: the API refused {self.counts.refused:,} of {counted(self.total, 'row')}, more "
                f"than target.max_failed_ratio {allowed:g} allows (such as: {example}).",
                guard="max_failed_ratio",
                observed=self.counts.refused / self.total,
                allowed=allowed,
            )


def as_texts(rows: pl.DataFrame) -> list[str]:
    """Each row as a JSON object; timestamps in ISO 8601, decimals as texts."""
    moments = [pl.col(name).dt.to_string("iso:strict") for name, dtype in rows.schema.items() if dtype == pl.Datetime]
    frame = rows.with_columns(moments) if moments else rows
    return frame.select(pl.struct(pl.all()).struct.json_encode()).to_series().to_list()


def enveloped(body: Any, texts: Sequence[str]) -> bytes:
    """The rows in the body that the configuration asks for, where it says ``rows`` or ``row``."""
    rows = texts[0] if _holds(body, ROW) else f"[{','.join(texts)}]"
    before, _mark, after = json.dumps(_marked(body)).partition(json.dumps(_MARK))
    return f"{before}{rows}{after}".encode()


def addressed(url: str, text: str) -> str:
    """The URL of a row: ``/items/{id}`` with its values."""
    for name, value in json.loads(text).items():
        url = url.replace(f"{{{name}}}", quote(value if isinstance(value, str) else json.dumps(value), safe=""))
    return url


def _marked(body: Any) -> Any:
    if isinstance(body, Mapping):
        return {name: _marked(value) for name, value in body.items()}
    return _MARK if body in (ROWS, ROW) else body


def _holds(body: Any, word: str) -> bool:
    if isinstance(body, Mapping):
        return any(_holds(value, word) for value in body.values())
    return bool(body == word)


def _shortened(text: str) -> str:
    said = " ".join(redact(text).split())
    return said if len(said) <= _LONGEST_REASON else said[: _LONGEST_REASON - 1] + "…"
