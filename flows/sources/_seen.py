"""Which files were read before: what `only_new` remembers from run to run, in the target's own transaction."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from flows._errors import ExtractError
from flows.sources._found import Found, stamped


@dataclass(frozen=True)
class Seen:
    """The files that were read, and the columns they had.

    Attributes:
        files: size and stamp of each, by its key. A file that went away stays here: should it come back
            as it was, it was read.
        schema: of their rows; None where none was read.
    """

    files: Mapping[str, tuple[int | None, str]] = field(default_factory=dict)
    schema: pl.Schema | None = None

    @classmethod
    def parse(cls, state: Any) -> Seen:
        """From what `state` gave.

        Raises:
            ExtractError: it is not that.
        """
        if state is None:
            return cls()
        try:
            files = {key: (size, stamp) for key, (size, stamp) in state["files"].items()}
            schema = pl.read_ipc(io.BytesIO(base64.b64decode(state["schema"]))).schema
        except (KeyError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
            raise ExtractError(
                "what the target keeps of this source is no list of files. Delete its row in the table of states."
            ) from error
        return cls(files, schema)

    def new(self, files: Sequence[Found]) -> list[Found]:
        """Those of `files` that were not read, or have changed since."""
        return [file for file in files if self.files.get(file.key) != (file.size, file.stamp)]

    def state(self, files: Sequence[Found], schema: pl.Schema) -> dict[str, Any]:
        """What to remember when `files` are read, too."""
        buffer = io.BytesIO()
        pl.DataFrame(schema=schema).write_ipc(buffer)
        read = {file.key: [file.size, file.stamp] for file in files}
        return {"files": {**self.files, **read}, "schema": base64.b64encode(buffer.getvalue()).decode()}


def require_unchanged(file: Found) -> None:
    """Confirm that a file is as it was found.

    Raises:
        ExtractError: it changed while it was read, so that nobody knows what was.
    """
    now = stamped(file)
    if (now.size, now.stamp) != (file.size, file.stamp):
        raise ExtractError(
            f"{file.name!r} changed while it was read. Write files under another name and rename them when they are "
            "whole; then run again."
        )
