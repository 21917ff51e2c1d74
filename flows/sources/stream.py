"""Messages of a Kafka topic; can be configured and checked for shape, and cannot run yet."""

from __future__ import annotations

from typing import Annotated, Literal, NoReturn

from pydantic import Field

from flows._errors import ExtractError
from flows._secrets import Secret
from flows.sources._base import OUTSIDE, Context, Source, source


@source
class Stream(Source):
    """Messages of a ``topic``; ``connection_string`` is ``kafka://broker:9092``, a path after it is of no meaning."""

    type: Literal["stream"] = "stream"
    connection_string: Secret
    topic: Annotated[str, Field(min_length=1)]

    def scan(self, name: str, context: Context = OUTSIDE) -> NoReturn:  # noqa: ARG002 - the signature of every source
        """Refuse to read.

        Raises:
            ExtractError: always.
        """
        raise ExtractError(
            "pipelines of type 'stream' cannot run in this version. Write a pipeline of type 'batch'.", source=name
        )

    def check(self) -> NoReturn:
        """Refuse to read.

        Raises:
            ExtractError: always.
        """
        self.scan("source")
