"""What must hold before a load: rules and a Pandera model, as one contract over the columns of a plan.

`Contract.plan` finds every misfit before a row is read. `Contract.judge` parts a batch of rows
into accepted and rejected ones; `Contract.set_rules` are for whoever keeps the whole set;
`Contract.schema` is the same contract as Pandera sees it, and `Contract.validate` asks Pandera.
Pandera is imported only where it is needed: it would double the start of a small command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from validations._checks import BoundRule, OnViolation, RowCheck, SetRule, bind, unlike, violated
from validations._errors import ContractError
from validations._verdict import Verdict

if TYPE_CHECKING:
    import pandera.polars as pa

__all__ = ["BoundRule", "Contract", "OnViolation", "RowCheck", "SetRule"]


@dataclass(frozen=True)
class Contract:
    """What must hold for rows of certain columns.

    Attributes:
        columns: the columns and dtypes that it is about.
        row_checks: checks of single rows, those of `rules` first, then those of `model`.
        set_rules: checks of the whole set, in the same order.
    """

    columns: pl.Schema
    row_checks: tuple[RowCheck, ...]
    set_rules: tuple[SetRule, ...]

    @classmethod
    def plan(
        cls, rules: Sequence[BoundRule], schema: pl.Schema, model: type[pa.DataFrameModel] | None = None
    ) -> Contract:
        """Hold rules and a model against the columns they will see; reads no row.

        Args:
            rules: the pipeline's quality rules.
            schema: the columns to be judged.
            model: a Pandera model of the table. Its columns, dtypes, order and strictness are checked here,
                by Pandera. Its ``nullable`` and its checks become checks of rows. Its ``unique`` becomes
                the rule `unique`, for which a null is no duplicate of another (for Pandera's own it is).
                What `rules` already promise of a column is not asked twice.

        Raises:
            UnknownColumnError: a rule names a column that is not there.
            RuleError: a rule does not suit its column, or a parameter does not.
            TransformError: a formula cannot be understood.
            ModelError: the model does not fit the columns, changes rows, or looks at more than one row.
        """
        checks = [bind(rule, schema) for rule in rules]
        if model is not None:
            from validations import _model  # noqa: PLC0415 - only those who name a model pay for Pandera

            promised = {check.label for check in checks if check.on_violation != "warn"}
            checks += _model.bind(model, schema, promised)
        told_apart = unlike(checks)
        return cls(
            columns=schema,
            row_checks=tuple(check for check in told_apart if isinstance(check, RowCheck)),
            set_rules=tuple(check for check in told_apart if isinstance(check, SetRule)),
        )

    def with_checks(self, checks: Sequence[RowCheck]) -> Contract:
        """The same contract, and `checks` of single rows that somebody else asks for."""
        together = unlike([*self.row_checks, *checks, *self.set_rules])
        return Contract(
            self.columns,
            tuple(check for check in together if isinstance(check, RowCheck)),
            tuple(check for check in together if isinstance(check, SetRule)),
        )

    @cached_property
    def schema(self) -> pa.DataFrameSchema:
        """The whole contract as one Pandera schema; the names of its checks are the labels."""
        from validations import _pandera  # noqa: PLC0415 - as above

        return _pandera.compiled(self.columns, self.row_checks, self.set_rules)

    @property
    def labels(self) -> tuple[str, ...]:
        """What people call the checks, each once."""
        return tuple(check.label for check in self._checks)

    def judge(self, frame: pl.DataFrame) -> Verdict:
        """Part rows into accepted and rejected ones, by the checks of single rows.

        In: at least the contract's columns; batches of any size give the same.
        Out: every row once, with all its columns, in order.
        Nulls: a check that comes out null has no opinion.

        Raises:
            ContractError: the columns are not those of the plan, or a check of the model cannot run.
        """
        self._hold_columns(frame.schema)
        if not self.row_checks:
            return _all_good(frame, {})
        broken = self._broken(frame)
        counts = {check.label: int(broken.get_column(check.label).sum()) for check in self.row_checks}
        rejecting = [check for check in self.row_checks if check.on_violation != "warn" and counts[check.label]]
        if not rejecting:
            return _all_good(frame, counts)
        bad = broken.select(pl.any_horizontal(check.label for check in rejecting)).to_series()
        positions = bad.arg_true().rename("position")
        labels = [pl.when(check.label).then(pl.lit(check.label)) for check in rejecting]
        return Verdict(
            accepted=frame.filter(~bad),
            rejected=frame[positions],
            positions=positions,
            reasons=broken[positions].select(reasons=pl.concat_list(labels).list.drop_nulls()).to_series(),
            counts=counts,
            failed=tuple(check.label for check in rejecting if check.on_violation == "fail"),
        )

    def validate(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Have Pandera check columns and rows, whole-set rules included: for notebooks, tests and flows by hand.

        In: the contract's columns. The frame is collected once, so it must fit into memory.
        Out: the same rows, lazily, no longer to be read from their source.

        Raises:
            BrokenContractError: rows broke the contract; its ``counts`` say which checks and how often. Rules
                that warn do so as Python warnings.
            ContractError: the columns are not those of the plan, or a check of the model cannot run.
        """
        from validations import _pandera  # noqa: PLC0415 - as above

        rows = frame.collect()
        self._hold_columns(rows.schema)
        _pandera.validate(self.schema, rows.lazy())
        return rows.lazy()

    def summary(self, counts: Mapping[str, int]) -> list[dict[str, Any]]:
        """What became of each check, for a run's report; `counts` are the violations by label."""
        return [
            {
                "rule": check.label,
                "on_violation": check.on_violation,
                "violations": counts.get(check.label, 0),
                "passed": not counts.get(check.label, 0),
            }
            for check in self._checks
        ]

    @property
    def _checks(self) -> tuple[RowCheck | SetRule, ...]:
        return self.row_checks + self.set_rules

    def _broken(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A Boolean column of violations for each row check, under its label; no nulls."""
        lazy = frame.lazy()
        fused = {check.label: check.good for check in self.row_checks if isinstance(check.good, pl.Expr)}
        plans = [check.broken(lazy) for check in self.row_checks if check.label not in fused]
        if fused:
            plans.append(lazy.select(violated(good).alias(label) for label, good in fused.items()))
        try:
            return pl.concat(pl.collect_all(plans), how="horizontal")
        except Exception as error:  # checks of a model are foreign code, and raise what they like
            raise self._explained(error, lazy) from error

    def _explained(self, error: Exception, frame: pl.LazyFrame) -> ContractError:
        """Which check fails, found by running each alone."""
        for check in self.row_checks:
            try:
                check.broken(frame).collect()
            except Exception as culprit:  # noqa: BLE001 - as above; it is named, and its cause is kept
                reason = f"{type(culprit).__name__}: {culprit}".split("\n", maxsplit=1)[0]
                return ContractError(f"{check.label} cannot run on these rows: {reason}.")
        return ContractError(f"a check gives more or fewer results than there are rows: {error}.")

    def _hold_columns(self, given: pl.Schema) -> None:
        for name, dtype in self.columns.items():
            if given.get(name) != dtype:
                found = f"is {given[name]}" if name in given else "is missing"
                raise ContractError(f"the contract was planned for {name!r} as {dtype}, and in these rows it {found}.")


def _all_good(frame: pl.DataFrame, counts: dict[str, int]) -> Verdict:
    return Verdict(
        accepted=frame,
        rejected=frame.clear(),
        positions=pl.Series("position", [], pl.UInt32),
        reasons=pl.Series("reasons", [], pl.List(pl.String)),
        counts=counts,
    )
