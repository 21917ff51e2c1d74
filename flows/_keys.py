"""The keys of a pipeline in YAML, as pydantic models: what `_config` parses and the JSON Schema describes."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from flows._incremental import Incremental
from flows._schedule import Schedule, Seconds
from flows._shape import Tagged
from flows.alerts._base import alerts
from flows.sources._base import sources
from flows.targets._base import targets
from transforms._transform import transforms
from validations._contract import OnViolation
from validations._rule import rules


class Keys(BaseModel):
    """Unknown keys are refused; a value never stands in the text of an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class StepKeys(Keys):
    """One of ``transformations``.

    Attributes:
        type: the transform.
        name: what the ledger, messages and ``preview --step`` call the step; its type where left out.
        parameters: those of the transform; may be left out where each of them has a default.
    """

    type: str
    name: Annotated[str, Field(min_length=1)] | None = None
    parameters: Any


class RuleKeys(Keys):
    """One of ``quality_rules``, or of a source's ``rules``.

    Attributes:
        type: the rule.
        field: the column it is about, or a list of them; none for a rule about the whole set.
        parameters: those of the rule; may be left out where each of them has a default.
        severity: `warn` is short for ``on_violation: warn``.
        on_violation: what becomes of a broken rule: `quarantine`, unless given, takes the rows out and keeps
            them; `fail` refuses the whole load; `warn` publishes the rows and tells people.
    """

    type: str
    field: str | tuple[str, ...] = ()
    parameters: Any
    severity: Literal["warn", "error"] = "error"
    on_violation: OnViolation | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns it is about."""
        return (self.field,) if isinstance(self.field, str) else self.field

    @property
    def consequence(self) -> OnViolation:
        """What becomes of a broken rule."""
        return self.on_violation or ("warn" if self.severity == "warn" else "quarantine")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        least, most = rules.get(self.type).fields_wanted
        if most == 0 and self.fields:
            raise ValueError(f"{self.type!r} is about the whole set. Remove 'field'.")
        if len(self.fields) < least:
            raise ValueError(f"'field' is missing. {self.type!r} is about one column.")
        if most is not None and len(self.fields) > most:
            raise ValueError(f"{self.type!r} is about one column. Write a rule for each.")
        if self.severity == "warn" and self.on_violation not in {None, "warn"}:
            raise ValueError(f"'severity: warn' only tells people. Remove it, or 'on_violation: {self.on_violation}'.")
        return self


@cache
def _step(name: str) -> type[BaseModel]:
    transform = transforms.get(name)
    said, parameters = transform.function.__doc__, _parameters(transform.parameters)
    return create_model(f"{name}_step", __base__=StepKeys, __doc__=said, parameters=parameters)


@cache
def _rule(name: str) -> type[BaseModel]:
    rule = rules.get(name)
    said, parameters = rule.function.__doc__, _parameters(rule.parameters)
    return create_model(f"{name}_rule", __base__=RuleKeys, __doc__=said, parameters=parameters)


@cache
def _source(name: str) -> type[BaseModel]:
    """The options of a source, and the rules that its rows must keep as they are read."""
    kind = sources.get(name)
    said = "quality rules, held against the rows as they are read"
    held = Annotated[tuple[_Rule, ...], Field(description=said)]
    return create_model(f"{name}_source", __base__=kind, __doc__=kind.__doc__, rules=(held, ()))


def _parameters(model: type[BaseModel]) -> Any:
    """A field for parameters, which can be left out where each of them has a default."""
    is_needed = any(field.is_required() for field in model.model_fields.values())
    return (model, ... if is_needed else Field(default_factory=model))


_Step = Annotated[Any, Tagged(transforms, _step)]
_Rule = Annotated[Any, Tagged(rules, _rule)]
_Source = Annotated[Any, Tagged(sources, _source)]
_Target = Annotated[Any, Tagged(targets, targets.get)]
_Alert = Annotated[Any, Tagged(alerts, alerts.get)]


class Monitoring(Keys):
    """Whom a run tells how it ended.

    Attributes:
        alerts: the channels.
    """

    alerts: tuple[_Alert, ...] = ()


class ErrorHandling(Keys):
    """What a run does when something fails.

    Attributes:
        strategy: `retry` tries a stage again where the error is one that may pass; `fail` stops at once;
            `continue` lets the pipelines run that were to be run after this one (``run NAME NAME``, ``run --all``).
        max_retries: how many times a stage is tried again, where `strategy` is `retry`.
        retry_delay: seconds before the first retry; doubled for each that follows.
        on_transform_error: `skip` leaves a step out that cannot be planned, with a warning; never the default,
            because what the step stood for would silently be missing.
        max_failed_ratio: of the rows judged, the part that may be rejected before the whole load is refused.
    """

    strategy: Literal["retry", "continue", "fail"] = "fail"
    max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    retry_delay: Seconds = 300
    on_transform_error: Literal["skip", "fail"] = "fail"
    max_failed_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05


class RowCountKeys(Keys):
    """Whether a run reads as many rows as the pipeline's runs usually do.

    Usual is the median of the newest published runs, at most 30 of them; the spread is their median absolute
    deviation, times 1.4826 so that it is a standard deviation where rows come normally distributed (Iglewicz and
    Hoaglin, How to Detect and Handle Outliers, 1993). It counts as a tenth of the median at least, and as one row.

    Attributes:
        on_violation: `warn` tells people; `fail` refuses the load.
        minimum_runs: how many runs there have to be before anything is said.
        sensitivity: how many spreads away from the median is too far.
    """

    on_violation: Literal["warn", "fail"] = "warn"
    minimum_runs: Annotated[int, Field(ge=3, le=30)] = 7
    sensitivity: Annotated[float, Field(gt=0)] = 6


class GuardKeys(Keys):
    """What refuses a load that keeps every rule, and would do damage all the same.

    Attributes:
        max_removed_ratio: of the rows that the target has, the part that `overwrite`, `delete_insert` and closing
            versions may leave fewer; `run --allow-shrink` allows any, and an empty load, for one run.
        row_count: what is said of a run that reads far more or far fewer rows than usual.
    """

    max_removed_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    row_count: RowCountKeys = RowCountKeys()


class QuarantineKeys(Keys):
    """How long rows that broke a rule are kept.

    Attributes:
        retention_days: after so many days they are removed when a later run is published, whether they were replayed,
            discarded or wait still. Unless given, they are kept for good.
    """

    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None


def _one_of(key: str) -> dict[str, Any]:
    return {"oneOf": [{"required": [key]}, {"required": [f"{key}s"]}]}


class PipelineKeys(Keys):
    """Everything that stands under a pipeline's name.

    Attributes:
        type: how it runs.
        description: a sentence for people.
        tags: of its runs in Prefect.
        schedule: when it runs: a cron text, or the keys below.
        source: where rows come from.
        sources: several of them by name, instead of `source`; the steps start from the first, a join names others.
        target: where rows go.
        targets: several of them by name, instead of `target`; each is published whole, in this order.
        incremental: what of the first source a run reads, where it is not all of it.
        transformations: the steps, in order.
        quality_rules: what must hold for the rows about to be published.
        schema: a Pandera model of them, such as ``validations.schemas.customers:Customers``.
        monitoring: whom to tell.
        error_handling: what to do when something fails.
        guards: what refuses a load that would do damage.
        quarantine: how long rows that broke a rule are kept.
    """

    model_config = ConfigDict(json_schema_extra={"allOf": [_one_of("source"), _one_of("target")]})

    type: Literal["batch", "stream", "hybrid", "elt"]
    description: str | None = None
    tags: tuple[str, ...] = ()
    schedule: Schedule | None = None
    source: _Source = None
    sources: Annotated[dict[str, _Source], Field(min_length=1)] | None = None
    target: _Target = None
    targets: Annotated[dict[str, _Target], Field(min_length=1)] | None = None
    incremental: Incremental | None = None
    transformations: tuple[_Step, ...] = ()
    quality_rules: tuple[_Rule, ...] = ()
    model: Annotated[str | None, Field(alias="schema")] = None
    monitoring: Monitoring = Monitoring()
    error_handling: ErrorHandling = ErrorHandling()
    guards: GuardKeys = GuardKeys()
    quarantine: QuarantineKeys = QuarantineKeys()

    @field_validator("model")
    @classmethod
    def _model_reference(cls, value: str | None) -> str | None:
        module, _, name = (value or "").partition(":")
        if value is not None and not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise ValueError(f"{value!r} names no class. Write it like 'validations.schemas.customers:Customers'.")
        return value
