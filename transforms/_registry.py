"""Registries of named things: one file adds one thing, found by its file name.

A `Registry` looks a name up in one package (a file without an underscore is a name a
user can write) and in one entry-point group (other people's packages), imports it only
when it is asked for, and says "did you mean" when there is no such thing.
All five kinds (transforms, rules, sources, targets, alerts) use it.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from transforms._errors import LockgateError, Path
from transforms._words import did_you_mean

Entry = TypeVar("Entry")


class UnknownNameError(LockgateError):
    """No registered thing of this kind has that name."""

    def __init__(self, kind: str, name: str, known: list[str], *, path: Path = ()) -> None:
        self.kind, self.name, self.known = kind, name, known
        article = "an" if kind[0] in "aeiou" else "a"
        super().__init__(f"{name!r} is not {article} {kind}.{did_you_mean(name, known)}", path=path)


class Registry(Generic[Entry]):
    """The things of one kind, by name; imported when first asked for."""

    def __init__(self, kind: str, *, package: str) -> None:
        self.kind = kind
        self.package = package
        self.group = f"lockgate.{package.rpartition('.')[2]}"
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, entry: Entry) -> Entry:
        """Add `entry`; a name can be taken only once.

        Raises:
            LockgateError: another thing already has that name.
        """
        if name in self._entries:
            raise LockgateError(f"{self.kind} {name!r} is registered twice. Give one of them another name.")
        self._entries[name] = entry
        return entry

    def names(self) -> list[str]:
        """Every name of this kind, sorted, without importing anything but the package itself."""
        return sorted({*self._modules(), *self._plugins(), *self._entries})

    def get(self, name: str) -> Entry:
        """The thing called `name`.

        Raises:
            UnknownNameError: there is none; the message says what there is.
        """
        if name not in self._entries:
            if name in self._modules():
                importlib.import_module(f"{self.package}.{name}")
            elif (plugin := self._plugins().get(name)) is not None:
                importlib.import_module(plugin)
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self.names())
        return self._entries[name]

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """Every name with its entry; imports them all."""
        return ((name, self.get(name)) for name in self.names())

    def _modules(self) -> list[str]:
        spec = importlib.util.find_spec(self.package)
        locations = spec.submodule_search_locations if spec else None
        found = pkgutil.iter_modules(list(locations or []))
        return [module.name for module in found if not module.name.startswith("_") and not module.ispkg]

    def _plugins(self) -> dict[str, str]:
        return {point.name: point.module for point in entry_points(group=self.group)}
