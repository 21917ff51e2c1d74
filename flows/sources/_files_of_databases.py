"""Databases that are a file of this machine: found, and readable, before a driver is asked."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from flows._dialects import Dialect, database_file
from flows._sides import Side


class FileSide(Side):
    """An end of a run that is a file."""

    def require_driver(self, dialect: Dialect) -> None:
        """Confirm that what reads the file is installed.

        Raises:
            ExtractError: it is not; the message says what to install.
        """
        if find_spec(dialect.driver) is None:
            raise self.error("driver", f"{dialect.title} needs a package. Run: pip install '{dialect.package}'.")

    def file(self, url: str) -> Path:
        """The file that a URL names, which is there and may be read.

        Raises:
            ExtractError: it is not.
        """
        try:
            file = database_file(url)
        except ValueError as error:
            raise self.error("missing", str(error)) from error
        if not file.is_file():
            raise self.error("missing", f"{self.address}: there is no such file, seen from {str(Path.cwd())!r}.")
        effective = os.access in os.supports_effective_ids
        if not os.access(file, os.R_OK, effective_ids=effective):
            raise self.error("permission", f"{self.address}: this user may not read the file. Grant it.")
        return file
