from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from transforms._errors import LockgateError
from transforms._registry import Registry, UnknownNameError
from transforms._transform import transforms


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[str]]:
    """A package with one thing, `good`, one piece of machinery, and one file that registers nothing."""
    package = tmp_path / "shelf_of_things"
    package.mkdir()
    register = "import builtins\nbuiltins.shelf_of_things.register('good', 'a good thing')\n"
    for name, text in {"__init__": "", "good": register, "_machinery": "raise SystemExit", "empty": ""}.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[str] = Registry("thing", package="shelf_of_things")
    monkeypatch.setattr("builtins.shelf_of_things", registry, raising=False)
    yield registry
    for module in [name for name in sys.modules if name.startswith("shelf_of_things")]:
        del sys.modules[module]


def test_files_without_an_underscore_are_names(shelf: Registry[str]) -> None:
    assert shelf.names() == ["empty", "good"]


def test_a_thing_is_imported_when_asked_for(shelf: Registry[str]) -> None:
    assert shelf.get("good") == "a good thing"


@pytest.mark.parametrize("name", ["god", "_machinery", "empty", ""])
def test_other_names_are_refused(shelf: Registry[str], name: str) -> None:
    with pytest.raises(UnknownNameError, match="is not a thing") as caught:
        shelf.get(name)
    assert caught.value.known == ["empty", "good"]


def test_a_near_miss_is_guessed(shelf: Registry[str]) -> None:
    with pytest.raises(UnknownNameError, match=r"^'god' is not a thing\. Did you mean 'good'\? Known: empty, good\.$"):
        shelf.get("god")


def test_a_name_is_given_once(shelf: Registry[str]) -> None:
    shelf.register("mine", "one")
    with pytest.raises(LockgateError, match="'mine' is registered twice"):
        shelf.register("mine", "two")
    assert shelf.get("mine") == "one"


def test_all_things_come_with_their_names(shelf: Registry[str]) -> None:
    shelf.register("empty", "now there is something")
    assert dict(shelf) == {"empty": "now there is something", "good": "a good thing"}


def test_the_catalogue_of_transforms() -> None:
    assert transforms.names() == [
        "aggregate", "calculate", "deduplicate", "filter", "join", "map", "normalize", "sort",
    ]  # fmt: skip
