"""How the transforms speak: the full text of every kind of mistake, for reading as much as for testing."""

# ruff: noqa: E501 - a message stands on one line, as it is shown

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from transforms._errors import LockgateError, dotted
from transforms._plan import Step
from transforms._transform import transforms

FRAME = pl.LazyFrame(
    schema={
        "id": pl.Int64,
        "amount": pl.Float64,
        "price": pl.Decimal(10, 2),
        "status": pl.String,
        "created_at": pl.Date,
        "seen_at": pl.Datetime("us"),
        "at": pl.Datetime("us", "UTC"),
        "paid": pl.Boolean,
        "level": pl.Enum(["low", "high"]),
        "tags": pl.List(pl.String),
        "who": pl.Struct({"name": pl.String}),
        "who_name": pl.String,
    }
)
OTHER = pl.LazyFrame(schema={"id": pl.String, "status": pl.String, "label": pl.String})
PRESENT = "amount, at, created_at, id, level, paid, price, seen_at, status, tags, who, who_name"
OPERATORS = (
    "between, contains, ends_with, eq, gt, gte, in, is_null, lt, lte, matches, ne, not_in, not_null, starts_with"
)

FILTER: list[tuple[dict[str, Any], str]] = [
    (
        {"condition": {"field": "status", "operator": "equals", "value": "x"}},
        f"condition.operator: 'equals' is not an operator. Did you mean 'eq'? Known: {OPERATORS}.",
    ),
    (
        {"condition": {"field": "status", "operator": ">=", "value": "x"}},
        "condition.operator: '>=' is not an operator. Did you mean 'gte'?",
    ),
    (
        {"condition": {"field": "stauts", "operator": "eq", "value": "x"}},
        f"condition.field: no column 'stauts' at this step. Did you mean 'status'? Present: {PRESENT}.",
    ),
    (
        {"condition": {"field": "id", "operator": "eq", "value": "abc"}},
        "condition.value: 'abc' is not a whole number; column 'id' is Int64.",
    ),
    (
        {"condition": {"field": "id", "operator": "eq", "value": 1.5}},
        "condition.value: 1.5 is not a whole number; column 'id' is Int64.",
    ),
    (
        {"condition": {"field": "amount", "operator": "gt", "value": "much"}},
        "condition.value: 'much' is not a number; column 'amount' is Float64.",
    ),
    (
        {"condition": {"field": "price", "operator": "gt", "value": True}},
        "condition.value: True is not a number; column 'price' is Decimal(10, 2).",
    ),
    (
        {"condition": {"field": "created_at", "operator": "gt", "value": "01/02/2024"}},
        "condition.value: '01/02/2024' is not a date (YYYY-MM-DD); column 'created_at' is Date.",
    ),
    (
        {"condition": {"field": "seen_at", "operator": "gt", "value": "yesterday"}},
        "condition.value: 'yesterday' is not a timestamp (YYYY-MM-DD HH:MM:SS); column 'seen_at' is Datetime.",
    ),
    (
        {"condition": {"field": "seen_at", "operator": "gt", "value": "2024-01-01T00:00:00Z"}},
        "condition.value: '2024-01-01T00:00:00Z' has a time zone, and the column has none; column 'seen_at' is Datetime.",
    ),
    (
        {"condition": {"field": "paid", "operator": "eq", "value": "maybe"}},
        "condition.value: 'maybe' is not true or false; column 'paid' is Boolean.",
    ),
    (
        {"condition": {"field": "status", "operator": "eq", "value": 5}},
        "condition.value: 5 is not text. Quote it: '5'; column 'status' is String.",
    ),
    (
        {"condition": {"field": "level", "operator": "eq", "value": "lo"}},
        "condition.value: 'lo' is not a category. Did you mean 'low'? Known: high, low; column 'level' is Enum.",
    ),
    (
        {"condition": {"field": "tags", "operator": "eq", "value": "x"}},
        "condition.value: 'x' cannot be compared with anything; column 'tags' is List(String).",
    ),
    (
        {"condition": {"field": "id", "operator": "contains", "value": "x"}},
        "condition.operator: 'contains' needs a text column, and 'id' is Int64.",
    ),
    (
        {"condition": {"field": "status", "operator": "contains", "value": 5}},
        "condition.value: 5 is not text. Quote it: '5'.",
    ),
    (
        {"condition": {"field": "status", "operator": "matches", "value": "a(?=b)"}},
        "condition.value: '(?' in the pattern 'a(?=b)' does not mean the same everywhere. Leave it out.",
    ),
    (
        {"condition": {"field": "status", "operator": "matches", "value": "("}},
        "condition.value: '(' is not a pattern that Polars understands: unclosed group.",
    ),
    (
        {"condition": {"field": "status", "operator": "eq"}},
        "condition: 'eq' needs a value; for missing values there are 'is_null' and 'not_null'.",
    ),
    ({"condition": {"field": "status", "operator": "in", "value": "x"}}, "condition: 'in' needs a list of values."),
    (
        {"condition": {"field": "id", "operator": "between", "value": [1]}},
        "condition: 'between' needs two values, the lowest and the highest.",
    ),
    ({"condition": {"field": "id", "operator": "is_null", "value": 1}}, "condition: 'is_null' takes no value."),
    (
        {"condition": {"field": "id", "operator": "in", "value": [1, None]}},
        "condition: 'in' needs at least one value, and none of them null.",
    ),
    ({"condition": {"field": "id"}}, f"condition: 'operator' is missing. Known: {OPERATORS}."),
    ({"condition": {}}, "condition: a condition has either 'field' and 'operator', or one of 'all', 'any' and 'not'."),
    ({}, "a filter needs either 'condition' or 'where'. Give one of them."),
    (
        {"where": "amount"},
        "where: 'amount' is double precision, and a condition is true or false. Compare it: amount = ...",
    ),
    ({"where": "amout > 1"}, f"where: no column 'amout' at this step. Did you mean 'amount'? Present: {PRESENT}."),
]
FORMULAS: list[tuple[str, str]] = [
    ("amount +", "'amount +' cannot be read as SQL: '+' was not expected."),
    ("amount * ratee", f"no column 'ratee' at this step. Did you mean 'at'? Present: {PRESENT}."),
    (
        "foor(amount)",
        "'foor' is not a function that a formula can call. Did you mean 'floor'? Known: abs, btrim, ceil, char_length, coalesce, concat, concat_ws, current_date, current_timestamp, date_part, date_trunc, exp, extract, floor, greatest, least, left, length, ln, localtimestamp, log, lower, lpad, ltrim, now, nullif, position, power, regexp_replace, replace and 17 more.",
    ),
    (
        "sum(amount)",
        "'sum(amount)' needs many rows, and a formula sees one. Use the aggregate transform, or a window: ... OVER (PARTITION BY ...).",
    ),
    (
        "sum(amount) over (order by id)",
        "'sum(amount) OVER (ORDER BY id)' would be a running total, which is not understood. Leave ORDER BY out.",
    ),
    (
        "(select 1)",
        "'(SELECT 1)' is a query, and a formula is one expression over the columns of a row. Use the join transform.",
    ),
    (
        "id in (select 1)",
        "'(SELECT 1)' is a query, and a formula is one expression over the columns of a row. Use the join transform.",
    ),
    ("id; id", "'id; id' is more than one expression: leave out the ';'."),
    ("id -- note", "'id -- note' has a comment in it. Leave it out."),
    ("", "the formula is empty. Write one SQL expression over the columns of a row."),
    ("id as x", "'id AS x' is not understood. A formula is one SQL expression over the columns of a row."),
    ("t.id", "'t.id': a formula names columns without a table. Write id."),
    ("status + 1", "'status' is text, and numbers are needed in 'status + 1'."),
    ("status > 5", "'status' is text and '5' is integer: they cannot be compared. Cast one of them."),
    ("paid and id", "'id' is integer, and true or false is needed in 'paid AND id'."),
    ("id || amount", "'id || amount': neither side is text. Cast one: id::text."),
    ("upper(id)", "'id' is integer, and text is needed in 'upper(id)'."),
    ("created_at > 'abc'", "'abc' is not a date (YYYY-MM-DD), and it stands beside a date."),
    ("'abc'::int", "'abc' is not a whole number."),
    ("paid::date", "'paid' is boolean and cannot be cast to date."),
    (
        "id::char(3)",
        "'CAST(id AS CHAR(3))': char(n) pads with blanks that comparisons forget. Cast to varchar(n) or text.",
    ),
    ("amount % 2", "'amount % 2': PostgreSQL has no % for double precision. Cast both sides to numeric(p, s)."),
    (
        "round(amount, 2)",
        "'round(amount, 2)': PostgreSQL rounds to decimals only what is numeric. Write round(amount::numeric, 2).",
    ),
    ("1 / 0", "'1 / 0' divides by zero."),
    ("interval '3 fortnights'", "'3 fortnights' is not understood in \"INTERVAL '3 FORTNIGHTS'\"."),
    ("interval '1 month'", "\"interval '1 month'\" is an interval of months, which no column can hold."),
    ("d'", '"d\'" cannot be read as SQL.'),
    (
        "extract(hour from created_at)",
        "'hour' cannot be extracted from date. Known: day, dow, doy, epoch, isodow, isoyear, month, quarter, week, year.",
    ),
    (
        "extract(hour from at - seen_at)",
        "'EXTRACT(HOUR FROM at - seen_at)': of an interval, only epoch (seconds) is extracted, and day of a difference.",
    ),
    (
        "date_trunc('fortnight', at)",
        "'fortnight' is not a unit of date_trunc. Known: day, hour, minute, month, quarter, second, week, year.",
    ),
    ("seen_at at time zone 'Berlin'", "'Berlin' is not a time zone. Write a name such as 'Europe/Berlin' or 'UTC'."),
    (
        "to_char(at, 'Month')",
        "\"to_char(at, 'Month')\": a format is made of YYYY, MM, DD, HH24, MI, SS and the signs between them.",
    ),
    ("status like status", "'status' must be a text written in the formula, in single quotes."),
    ("status like 'a\\'", "'a\\' must not end with the escape character."),
    ("status ~ '\\bx'", "'\\b' in the pattern '\\bx' is not understood. Word boundaries are \\m, \\M and \\y."),
    (
        "regexp_replace(status, 'a|b', '')",
        "\"regexp_replace(status, 'a|b', '')\": only a text, one character class, or one with + is replaced the same everywhere, with the flags 'g' and 'i'. Write: regexp_replace(x, '[^0-9]+', '', 'g').",
    ),
    ("split_part(status, '-', 0)", "\"split_part(status, '-', 0)\": parts count from 1, or from -1 at the end."),
    ("tags = 'x'", "'tags' is List(String) and cannot be compared."),
    ("case when id then 1 end", "'id' is integer, and true or false is needed in 'CASE WHEN id THEN 1 END'."),
    ("case when paid then 1 else 'a' end", "'a' is not a whole number, and it stands beside an integer."),
    ("id < 1 = true", "'id < 1 = TRUE' compares a comparison. Put parentheses around the inner one."),
    (
        "lag(id)",
        "'lag(id)' needs many rows, and a formula sees one. Use the aggregate transform, or a window: ... OVER (PARTITION BY ...).",
    ),
    ("lag(id) over ()", "'lag(id) OVER ()' needs an order: OVER (... ORDER BY ...)."),
    (
        "id between symmetric 1 and 2",
        "'id BETWEEN SYMMETRIC 1 AND 2' is not understood because of its symmetric. Leave that out.",
    ),
    ("created_at + created_at", "'created_at' is date and 'created_at' is date: they cannot be added."),
    ("id is nan", "'id IS nan' is not understood. After IS stands NULL, TRUE, FALSE or DISTINCT FROM."),
    ("substring(status, 'a')", "'a' is not a whole number, and it stands beside an integer."),
    ("1e50", "'1E+50' has too many digits. At most 38, 18 of them decimals."),
]
MAP: list[tuple[dict[str, Any], str]] = [
    (
        {"select": ["id", "stat"]},
        f"select[1]: no column 'stat' at this step. Did you mean 'status'? Present: {PRESENT}.",
    ),
    ({"select": ["id", "id"]}, "select[1]: 'id' is listed twice."),
    ({"select": ["id"], "drop": ["at"]}, "drop: 'select' and 'drop' exclude each other. Keep one of them."),
    ({"rename": {"id": "at"}}, "rename.id: two columns would be called 'at'."),
    (
        {"cast": {"id": "number"}},
        "cast.id: 'number' is not a type. Did you mean 'numeric(p, s)'? Known: bigint, binary, bool, boolean, bytea, categorical, character varying, date, datetime, double, double precision, float, float32, float4, float64, float8, int, int16, int2, int32, int4, int64, integer, interval, numeric(p, s), real, smallint, str, string, text and 11 more.",
    ),
    (
        {"cast": {"id": "int8"}},
        "cast.id: 'int8' is 8 bits in Polars and 8 bytes in PostgreSQL. Write 'Int8' or 'bigint'.",
    ),
    ({"cast": {"id": "numeric"}}, "cast.id: 'numeric' has no precision and scale. Write them: 'numeric(18, 2)'."),
    (
        {"cast": {"id": "numeric(50, 2)"}},
        "cast.id: 'numeric(50, 2)' does not fit: at most 38 digits, and no more decimals than digits.",
    ),
    ({"cast": {"paid": "date"}}, "cast.paid: 'paid' is boolean and cannot be cast to date."),
    ({"values": {"id": {"x": 1}}}, "values.id: 'x' is not a whole number; column 'id' is Int64."),
    (
        {"values": {"id": {1: "x"}}},
        "values.id: the new values are String, and 'id' is Int64. Give other values a default.",
    ),
    ({"values": {"id": {1: "x", 2: 3}}}, "values.id: the new values are of several types. Write all alike."),
    ({"defaults": {"id": 1}}, "defaults.id: there are no 'values' for 'id', so it needs no default."),
    ({"constants": {"id": 1}}, "constants.id: there is a column 'id' already. Drop it first."),
    ({"constants": {"x": [1]}}, "constants.x: [1] is not one value."),
]
AGGREGATE: list[tuple[dict[str, Any], str]] = [
    (
        {"group_by": ["stat"], "aggregations": [{"field": "id", "function": "sum"}]},
        f"group_by[0]: no column 'stat' at this step. Did you mean 'status'? Present: {PRESENT}.",
    ),
    (
        {"aggregations": [{"field": "id", "function": "average"}]},
        "aggregations[0].function: 'average' is not an aggregate function. Did you mean 'avg'? Known: avg, count, count_distinct, first, last, max, mean, median, min, std, stddev, sum, var, variance.",
    ),
    (
        {"aggregations": [{"field": "status", "function": "sum"}]},
        "aggregations[0].function: 'sum' needs numbers, and 'status' is String.",
    ),
    (
        {"aggregations": [{"field": "*", "function": "sum"}]},
        "aggregations[0].function: '*' can only be counted, not 'sum'.",
    ),
    ({"aggregations": []}, "aggregations: there is nothing to aggregate. For distinct rows there is deduplicate."),
    (
        {"aggregations": [{"field": "id", "function": "sum"}, {"field": "id", "function": "sum"}]},
        "aggregations[1]: two outputs are called 'id_sum'. Give one an alias.",
    ),
]
JOIN: list[tuple[dict[str, Any], str]] = [
    ({"source": "othre", "on": "id"}, "source: no source 'othre'. Did you mean 'other'? Known: other."),
    (
        {"source": "other", "on": "id"},
        "on[0]: 'id' is Int64 and the source's 'id' is String. Cast one of them with the map transform.",
    ),
    (
        {"source": "other", "how": "lefft", "on": "id"},
        "how: Input should be 'inner', 'left', 'right', 'full', 'semi', 'anti' or 'cross'",
    ),
    ({"source": "other"}, "a join needs 'on', or both 'left_on' and 'right_on'."),
    (
        {"source": "other", "left_on": ["id"], "right_on": ["id", "label"]},
        "'left_on' and 'right_on' need the same number of columns, at least one.",
    ),
    (
        {"source": "other", "on": "status", "how": "cross"},
        "a cross join has no keys: leave 'on', 'left_on' and 'right_on' out.",
    ),
    (
        {"source": "other", "on": "status", "columns": ["lable"]},
        "columns[0]: no column 'lable' at this step. Did you mean 'label'? Present: id, label, status.",
    ),
    (
        {"source": "other", "on": "status", "how": "semi", "columns": ["label"]},
        "columns: a join of kind 'semi' brings no columns.",
    ),
    (
        {"source": "other", "how": "cross", "max_fan_out": 2},
        "a cross join has no keys to check: leave 'validate' and 'max_fan_out' out.",
    ),
]
DEDUPLICATE: list[tuple[dict[str, Any], str]] = [
    ({"key": ["di"]}, f"key[0]: no column 'di' at this step. Did you mean 'id'? Present: {PRESENT}."),
    (
        {"order_by": [{"field": "att"}]},
        f"order_by[0].field: no column 'att' at this step. Did you mean 'at'? Present: {PRESENT}.",
    ),
]
SORT: list[tuple[dict[str, Any], str]] = [
    ({"by": []}, "by: there is nothing to sort by. Name a column."),
    ({"by": ["amoun"]}, f"by[0]: no column 'amoun' at this step. Did you mean 'amount'? Present: {PRESENT}."),
]
NORMALIZE: list[tuple[dict[str, Any], str]] = [
    (
        {"flatten": True},
        "flatten: 'who.name' and 'who_name' would both be called 'who_name'. Rename one with the map transform.",
    ),
    ({"text": [{"fields": ["id"]}]}, "text[0].fields[0]: 'id' is Int64, not text."),
    ({"numbers": [{"field": "status", "method": "min_max"}]}, "numbers[0].field: 'status' is String, not a number."),
    ({"timestamps": [{"field": "created_at"}]}, "timestamps[0].field: 'created_at' is Date, not a timestamp."),
    (
        {"timestamps": [{"field": "seen_at"}]},
        "timestamps[0].time_zone: 'seen_at' has no time zone. Say which it is in.",
    ),
    (
        {"timestamps": [{"field": "at", "time_zone": "UTC"}]},
        "timestamps[0].time_zone: 'at' has a time zone: Datetime[UTC]. Leave this out.",
    ),
    (
        {"timestamps": [{"field": "at", "time_zone": "Berlin"}]},
        "timestamps[0].time_zone: 'Berlin' is not a time zone. Write a name such as 'Europe/Berlin' or 'UTC'.",
    ),
]


def said(name: str, parameters: dict[str, Any]) -> str:
    """What a person is told, with the path inside the step's parameters."""
    transform = transforms.get(name)
    try:
        step = Step(0, name, transform, transform.parameters.model_validate(parameters))
    except ValidationError as error:
        first = error.errors()[0]
        return f"{dotted(first['loc'])}: {first['msg'].removeprefix('Value error, ')}"
    with pytest.raises(LockgateError) as caught:
        step.apply(FRAME, {"other": OTHER})
    assert caught.value.path[:3] == ("transformations", 0, "parameters")
    path = dotted(caught.value.path[3:])
    return f"{path}: {caught.value.message}" if path else caught.value.message


@pytest.mark.parametrize(("formula", "message"), FORMULAS)
def test_formulas(formula: str, message: str) -> None:
    parameters = {"expressions": [{"field": "x", "formula": formula}]}
    assert said("calculate", parameters) == f"expressions[0].formula: {message}"


@pytest.mark.parametrize(("parameters", "message"), FILTER)
def test_filter(parameters: dict[str, Any], message: str) -> None:
    assert said("filter", parameters) == message


@pytest.mark.parametrize(("parameters", "message"), MAP)
def test_map(parameters: dict[str, Any], message: str) -> None:
    assert said("map", parameters) == message


@pytest.mark.parametrize(("parameters", "message"), AGGREGATE)
def test_aggregate(parameters: dict[str, Any], message: str) -> None:
    assert said("aggregate", parameters) == message


@pytest.mark.parametrize(("parameters", "message"), JOIN)
def test_join(parameters: dict[str, Any], message: str) -> None:
    assert said("join", parameters) == message


@pytest.mark.parametrize(("parameters", "message"), DEDUPLICATE)
def test_deduplicate(parameters: dict[str, Any], message: str) -> None:
    assert said("deduplicate", parameters) == message


@pytest.mark.parametrize(("parameters", "message"), SORT)
def test_sort(parameters: dict[str, Any], message: str) -> None:
    assert said("sort", parameters) == message


@pytest.mark.parametrize(("parameters", "message"), NORMALIZE)
def test_normalize(parameters: dict[str, Any], message: str) -> None:
    assert said("normalize", parameters) == message
