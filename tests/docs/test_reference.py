"""The reference is what the code says today, and leaves nothing out."""

from __future__ import annotations

import re

import click
import polars as pl
import pytest

from docs._keys import annotated, keys, models
from docs._pages import FOLDER, pages, verbs
from flows.__main__ import main
from flows._cli._group import PROGRAM
from flows._keys import PipelineKeys, RuleKeys, StepKeys
from flows.alerts._base import alerts
from flows.sources._base import sources
from flows.sources.database import Database
from flows.targets._base import targets
from transforms._transform import transforms
from validations._rule import rules

REGISTRIES = {"transforms": transforms, "rules": rules, "sources": sources, "targets": targets, "alerts": alerts}
VERBS = list(verbs(click.Context(main, info_name=PROGRAM)))
GUIDE = (FOLDER.parent / "guide.md").read_text(encoding="utf-8")


def page(name):
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def section(name, title):
    """What stands under a heading of the second rank."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page(name), re.DOTALL | re.MULTILINE)
    assert found, f"{name}.md has no section {title!r}"
    return found[1]


@pytest.mark.parametrize("name", sorted(pages()))
def test_every_page_is_up_to_date(name):
    assert page(name.removesuffix(".md")) == pages()[name], "run: make docs"


def test_no_page_is_left_of_what_is_gone():
    assert {path.name for path in FOLDER.iterdir()} == set(pages())


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, registry in REGISTRIES.items() for name, _ in registry]
)
def test_everything_registered_is_documented(kind, name):
    assert len(section(kind, name).split()) > 5
    assert f"[`{name}`](#{name}): " in page(kind)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.command_path)
def test_every_verb_is_documented_with_all_its_options(verb):
    said = section("command_line", verb.command_path.removeprefix(PROGRAM).strip())

    assert verb.command.help
    options = [option for parameter in verb.command.params for option in parameter.opts if option.startswith("--")]
    assert [option for option in options if option not in said] == []


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.command_path)
def test_the_guide_names_every_verb(verb):
    assert f"`{verb.command_path.removeprefix(PROGRAM).strip()}" in GUIDE


def keys_below(model):
    """A model's keys, and those of the models inside of it."""
    for _name, key, field in keys(model):
        yield key
        for inner in models(annotated(field)):
            yield from keys_below(inner) if inner is not model else ()


def documented_keys():
    """Every key of YAML, with the page and the section that it belongs to."""
    for model in (PipelineKeys, StepKeys, RuleKeys):
        yield from (("configuration", None, key) for key in keys_below(model))
    for kind, registry in REGISTRIES.items():
        for name, entry in registry:
            yield from ((kind, name, key) for key in keys_below(getattr(entry, "parameters", entry)) if key != "type")


@pytest.mark.parametrize(("kind", "name", "key"), sorted(set(documented_keys()), key=str))
def test_every_key_says_what_it_means(kind, name, key):
    lines = (section(kind, name) if name else page(kind)).splitlines()

    rows = [line for line in lines if line.startswith(f"| `{key}` |")]
    prose = "".join(line for line in lines if not line.startswith("|"))
    assert rows
    assert f"`{key}`" in prose or all(row.split("|")[-2].strip() for row in rows)


# --- the guide's table of types ---


def types_of_the_guide():
    """Each PostgreSQL type with the dtype that it is read as."""
    table = GUIDE.partition("| PostgreSQL | Polars |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        names, dtypes = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3])
        yield from zip(names, dtypes if len(dtypes) == len(names) else dtypes * len(names), strict=True)


@pytest.mark.postgres
@pytest.mark.parametrize(("name", "dtype"), list(types_of_the_guide()))
def test_types_are_read_as_the_guide_says(name, dtype, database):
    precision, scale = (12, 2) if "(p, s)" in name else (38, 0)
    sql = name.replace("(p, s)", "(12, 2)").replace("(n)", "(3)")

    schema = Database(connection_string=database, query=f"SELECT NULL::{sql} AS v").scan("source").schema

    expected = eval(f"pl.{dtype}", {"pl": pl, "p": precision, "s": scale})
    assert schema["v"] == expected
