"""The configuration: pipelines read from YAML, checked as a whole, parsed into things that can run.

`load` reports every mistake at once. After it nothing looks a name up by text, re-checks a type or reads
the environment, except for secrets, which are resolved when they are used. References in values that are
not secrets are resolved here, from the environment; those to Prefect are for secrets only, because
asking Prefect takes seconds and a server, and `validate` needs neither.

At the top of a file stands ``pipelines``; keys that begin with ``x-`` are a place for anchors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from flows import _overrides, _yaml
from flows._errors import ConfigError, Locate, Problem
from flows._incremental import Incremental, stray
from flows._keys import ErrorHandling, GuardKeys, Monitoring, PipelineKeys, QuarantineKeys, RuleKeys, StepKeys
from flows._ledger import Guards
from flows._mistakes import mistakes
from flows._plain import canonical, resolved
from flows._schedule import Schedule
from flows.sources._base import Source, sources
from flows.targets._base import Target
from flows.targets._several import Several
from transforms._errors import Path
from transforms._plan import Step
from transforms._transform import transforms
from transforms._words import did_you_mean
from validations._contract import BoundRule
from validations._rule import rules

if TYPE_CHECKING:
    from flows._backfill import Part

_NAME = re.compile(r"\w[\w-]*")
_VERSION_DIGITS = 12


@dataclass(frozen=True)
class Pipeline:
    """One pipeline, ready to run.

    Attributes:
        sources: by name, in the configuration's order; the steps start from the first. A single ``source``
            is called "source".
        target: where rows go; made of several where the configuration has ``targets``.
        incremental: what of the first source a run reads; None where it is all of it.
        remembers_rows: whether rows that an incremental load reads twice would be in the target twice.
        starts_over: whether what was remembered is forgotten, and the target rebuilt.
        rules: ``quality_rules``, held against the rows about to be published.
        source_rules: ``source.rules``, held against the rows of the first source as they are read.
        model: ``schema``, a reference like ``package.module:Class``, to be loaded by whoever judges rows.
        allows_shrink: whether this once a load may be empty, or take away any number of rows.
        version: a short hash of this pipeline's own keys, the same for the same meaning; without secrets.
        locate: where a path of this pipeline stands: ``flows/customer_etl.yaml:21``.
        resumes: the run whose landed files the next run takes over; asked for on the command line only.
        is_replay: whether its first source is the quarantine; see `_replay`.
        part: the window of a backfill that a run loads; such a run leaves what the sources remember as it is.
    """

    name: str
    type: str
    sources: dict[str, Source]
    target: Target
    steps: tuple[Step, ...]
    rules: tuple[BoundRule, ...]
    source_rules: tuple[BoundRule, ...]
    model: str | None
    schedule: Schedule | None
    monitoring: Monitoring
    error_handling: ErrorHandling
    guards: GuardKeys
    description: str | None
    tags: tuple[str, ...]
    version: str
    locate: Locate = field(repr=False, compare=False)
    resumes: str | None = None
    allows_shrink: bool = False
    quarantine: QuarantineKeys = field(default_factory=QuarantineKeys)
    is_replay: bool = False
    incremental: Incremental | None = None
    remembers_rows: bool = False
    starts_over: bool = False
    part: Part | None = None

    @property
    def limits(self) -> Guards:
        """What a run may take away from what the target has."""
        return Guards(allows_empty=True) if self.allows_shrink else Guards(self.guards.max_removed_ratio)

    def forgets_before(self, started: datetime) -> datetime | None:
        """Quarantined rows that are older are removed by a run that began then; None where all are kept."""
        days = self.quarantine.retention_days
        return None if days is None else started - timedelta(days=days)

    def afresh(self) -> Pipeline:
        """The same pipeline, loading everything anew: what was remembered is forgotten, and the target rebuilt.

        A pipeline that remembers nothing is left as it is: each of its runs reads everything.
        """
        remembers = self.incremental is not None or any(source.remembers for source in self.sources.values())
        return replace(self, target=self.target.rebuilt(), starts_over=True) if remembers else self


@dataclass(frozen=True)
class Configuration:
    """The pipelines of a file or folder.

    Attributes:
        pipelines: by name, in the files' order.
        file: the file or folder, as the user named it.
        locate: where a path like ``("pipelines", name, "source")`` stands.
    """

    pipelines: dict[str, Pipeline]
    file: str
    locate: Locate = field(repr=False, compare=False)

    def pipeline(self, name: str) -> Pipeline:
        """The pipeline called `name`.

        Raises:
            ConfigError: there is none; the message says which there are.
        """
        if name not in self.pipelines:
            raise ConfigError(f"{name!r} is not a pipeline of {self.file}.{did_you_mean(name, self.pipelines)}")
        return self.pipelines[name]


def load(
    path: str | File, *, overrides: Mapping[str, str] | None = None, environ: Mapping[str, str] = os.environ
) -> Configuration:
    """Read and check the configuration of a file or folder.

    Args:
        path: a YAML file, or a folder of them.
        overrides: values by their place, ``{"source.connection_string": "..."}``; see `_overrides`.
        environ: where ``LOCKGATE_PIPELINES__...`` and ``${NAME}`` are looked up. Secrets ask the process's own.

    Raises:
        ConfigError: with every mistake; each says where it is, what is wrong and what would work.
    """
    document = _yaml.read(path)
    problems = _check_top(document)
    if not problems:
        given = _overrides.given(overrides or {}, environ)
        problems = list(_overrides.applied(document, given, dict[str, PipelineKeys]))
    pipelines: dict[str, Pipeline] = {}
    for name, raw in _pipelines(document).items():
        reading = _Reading(document, str(name), raw, environ)
        if pipeline := reading.pipeline():
            pipelines[pipeline.name] = pipeline
        problems += reading.problems
    if problems:
        raise ConfigError(sorted(problems, key=_place), file=str(path))
    return Configuration(pipelines, document.file, document.locate)


def _place(problem: Problem) -> tuple[str, int]:
    where = problem.where or ""
    file, _, line = where.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (where, 0)


def _pipelines(document: _yaml.Document) -> dict[Any, Any]:
    found = document.data.get("pipelines")
    return found if isinstance(found, dict) else {}


def _check_top(document: _yaml.Document) -> list[Problem]:
    unknown = [key for key in document.data if key != "pipelines" and not str(key).startswith("x-")]
    problems = [
        Problem(f"{str(key)!r} is not a key here.{did_you_mean(str(key), ['pipelines'])}", (), document.locate((key,)))
        for key in unknown
    ]
    if not problems and not _pipelines(document):
        message = "there are no pipelines. Write their names below 'pipelines:', indented."
        problems.append(Problem(message, where=document.locate(("pipelines",))))
    return problems


class _Reading:
    """One pipeline on its way from raw values to a `Pipeline`, with the mistakes found on the way."""

    def __init__(self, document: _yaml.Document, name: str, raw: Any, environ: Mapping[str, str]) -> None:
        self.document = document
        self.name = name
        self.raw = raw
        self.problems: list[Problem] = []
        self._environ = environ

    def pipeline(self) -> Pipeline | None:
        """The pipeline; None where it has mistakes."""
        if not _NAME.fullmatch(self.name):
            self._problem((), f"{self.name!r} is not a name. Use letters, digits, '_' and '-'.")
        value = resolved(self.raw, PipelineKeys, self._environ, self._problem)
        keys = self._validated(value)
        if keys is None:
            return None
        named = self._sources(keys, value)
        steps = tuple(self._step(position, step, named) for position, step in enumerate(keys.transformations))
        target = self._target(keys)
        if keys.incremental is not None and named and target is not None:
            for path, message in stray(keys.incremental, next(iter(named.values())), target):
                self._problem(path, message)
        if self.problems or target is None:
            return None
        return Pipeline(
            name=self.name,
            type=keys.type,
            sources=named,
            target=target,
            steps=steps,
            rules=_bound(keys.quality_rules),
            source_rules=_bound(self._source_rules(keys)),
            model=keys.model,
            schedule=keys.schedule,
            monitoring=keys.monitoring,
            error_handling=keys.error_handling,
            guards=keys.guards,
            description=keys.description,
            tags=keys.tags,
            version=_version(self.raw),
            locate=self._locate,
            quarantine=keys.quarantine,
            incremental=keys.incremental,
            remembers_rows=target.adds,
        )

    def _validated(self, value: Any) -> PipelineKeys | None:
        try:
            return PipelineKeys.model_validate(value)
        except ValidationError as error:
            unresolved = {problem.path for problem in self.problems}
            for path, message in mistakes(error, self.raw, value, PipelineKeys):
                if self._full(path) not in unresolved:
                    self._problem(path, message)
            return None

    def _sources(self, keys: PipelineKeys, value: Any) -> dict[str, Source]:
        if not self._one_of("source", keys.source, keys.sources):
            return {}
        raw = value["sources"] if keys.sources else {"source": value["source"]}
        # Without the rules, a source is of exactly the kind that its registry knows.
        named = {
            name: sources.get(options["type"]).model_validate({k: v for k, v in options.items() if k != "rules"})
            for name, options in raw.items()
        }
        for name, source in named.items():
            for path, wanted in source.needs.items():
                if wanted not in named:
                    others = [other for other in named if other != name]
                    self._needed(keys, name, path, f"{wanted!r} is not a source.{did_you_mean(wanted, others)}")
                elif name in _needed_by(named, wanted):
                    self._needed(keys, name, path, f"{wanted!r} itself reads {name!r}. One of them must come first.")
        return named

    def _needed(self, keys: PipelineKeys, name: str, path: Path, message: str) -> None:
        self._problem((*(("sources", name) if keys.sources else ("source",)), *path), message)

    def _target(self, keys: PipelineKeys) -> Target | None:
        if not self._one_of("target", keys.target, keys.targets):
            return None
        return keys.target if keys.targets is None else Several(members=keys.targets)

    def _one_of(self, key: str, one: Any, several: Any) -> bool:
        if (one is None) == (several is None):
            found = "is missing. Write it" if one is None else f"cannot stand beside '{key}s'. Write one of them"
            self._problem((), f"'{key}' {found}.")
            return False
        return True

    def _source_rules(self, keys: PipelineKeys) -> tuple[RuleKeys, ...]:
        if keys.sources is None:
            return tuple(keys.source.rules)
        first, *others = keys.sources.items()
        for name, other in others:
            if other.rules:
                self._problem(("sources", name, "rules"), f"only the first source, {first[0]!r}, can have rules.")
        return tuple(first[1].rules)

    def _step(self, position: int, step: StepKeys, named: Mapping[str, Source]) -> Step:
        transform = transforms.get(step.type)
        for argument in sorted(transform.frames):
            wanted = getattr(step.parameters, argument)
            if wanted not in named:
                path = ("transformations", position, "parameters", argument)
                self._problem(path, f"{wanted!r} is not a source.{did_you_mean(str(wanted), named)}")
        return Step(position, step.name or transform.name, transform, step.parameters)

    def _problem(self, path: Path, message: str) -> None:
        self.problems.append(Problem(message, self._full(path), self._locate(path)))

    def _full(self, path: Path) -> Path:
        return ("pipelines", self.name, *path)

    def _locate(self, path: Path) -> str:
        return self.document.locate(self._full(path))


def _bound(written: tuple[RuleKeys, ...]) -> tuple[BoundRule, ...]:
    return tuple(
        BoundRule(position, rules.get(rule.type), rule.fields, rule.parameters, rule.consequence)
        for position, rule in enumerate(written)
    )


def _needed_by(named: Mapping[str, Source], name: str) -> set[str]:
    """All sources that have to be read before the source called `name` is, itself included."""
    found, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one in named and one not in found:
            found.add(one)
            waiting += named[one].needs.values()
    return found


def _version(raw: Any) -> str:
    text = json.dumps(canonical(raw, PipelineKeys), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_VERSION_DIGITS]
