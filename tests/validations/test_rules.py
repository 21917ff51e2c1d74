"""Each rule, case by case: what passes, what does not, and what is refused at plan time."""

# ruff: noqa: E501, RUF001 - moments without a zone, messages in one piece, digits of other scripts

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal

import polars as pl
import pytest

from validations._contract import Contract
from validations._errors import RuleError

T, F = True, False


def texts(*values):
    return pl.Series(values, dtype=pl.String)


@pytest.mark.parametrize(
    ("rule", "parameters", "values", "expected"),
    [
        ("not_null", {}, texts("a", "", None), [T, T, F]),
        ("not_null", {}, pl.Series([1.5, float("nan"), None]), [T, T, F]),
        ("not_null", {}, pl.Series([None, None], dtype=pl.Null), [F, F]),
        ("not_null", {}, pl.Series([[1], None], dtype=pl.List(pl.Int8)), [T, F]),
        ("matches", {"pattern": "^[A-Z]{2}-"}, texts("AB-1", "ab-1", "xAB-1", "", None), [T, F, F, F, T]),
        ("matches", {"pattern": "b+"}, texts("abc", "aBc"), [T, F]),
        ("matches", {"pattern": "^ab$"}, texts("ab", "ab\n"), [T, F]),
        ("matches", {"pattern": "a"}, pl.Series([None], dtype=pl.Null), [T]),
        ("length_between", {"min": 1, "max": 3}, texts("", "a", "Zoë", "four", None), [F, T, T, F, T]),
        ("length_between", {"max": 2}, texts("", "ab", "abc"), [T, T, F]),
        ("length_between", {"min": 2}, texts("a", "日本"), [F, T]),
        ("between", {"min": 1, "max": 3}, pl.Series([0, 1, 3, 4, None]), [F, T, T, F, T]),
        ("between", {"min": 1, "max": 3, "inclusive": False}, pl.Series([1, 2, 3]), [F, T, F]),
        ("between", {"min": 0.5}, pl.Series([0, 1]), [F, T]),
        ("between", {"max": 1000}, pl.Series([127, -128], dtype=pl.Int8), [T, T]),
        ("between", {"min": -1}, pl.Series([0, 2**64 - 1], dtype=pl.UInt64), [T, T]),
        ("between", {"min": 0}, pl.Series([float("nan"), float("inf"), -0.0]), [F, T, T]),
        ("between", {"min": 0.1}, pl.Series([Decimal("0.10"), Decimal("0.09")]), [T, F]),
        ("between", {"min": "2024-01-01"}, pl.Series([date(2023, 12, 31), date(2024, 1, 1), None]), [F, T, T]),
        ("between", {"max": date(2024, 1, 1)}, pl.Series([date(2024, 1, 1), date(2024, 1, 2)]), [T, F]),
        ("between", {"max": "2024-01-01"}, pl.Series([datetime(2024, 1, 1), datetime(2024, 1, 1, 1)]), [T, F]),
        (
            "between",
            {"min": "2024-01-01T00:00:00+02:00"},
            pl.Series([datetime(2023, 12, 31, 22), datetime(2023, 12, 31, 21)]).dt.replace_time_zone("UTC"),
            [T, F],
        ),
        (
            "between",
            {"min": "2024-01-01"},
            pl.Series([datetime(2023, 12, 31, 23), datetime(2023, 12, 31, 22)])
            .dt.replace_time_zone("UTC")
            .dt.convert_time_zone("Europe/Berlin"),
            [T, F],
        ),
        ("between", {"min": "09:00", "max": "17:00"}, pl.Series([time(8, 59), time(17)]), [F, T]),
        ("between", {"min": "b"}, texts("a", "b", "é"), [F, T, T]),
        ("in_set", {"values": ["a", "b"]}, texts("a", "B", "b ", None), [T, F, F, T]),
        ("in_set", {"values": [1, 2.0]}, pl.Series([1, 2, 3, None]), [T, T, F, T]),
        ("in_set", {"values": [1, 2.5]}, pl.Series([1.0, 2.5, float("nan")]), [T, T, F]),
        ("in_set", {"values": [0.1]}, pl.Series([Decimal("0.1"), Decimal("0.2")]), [T, F]),
        ("in_set", {"values": ["2024-01-01"]}, pl.Series([date(2024, 1, 1), date(2024, 1, 2)]), [T, F]),
        (
            "in_set",
            {"values": ["2024-01-01T10:00"]},
            pl.Series([datetime(2024, 1, 1, 10), datetime(2024, 1, 1)]),
            [T, F],
        ),
        ("in_set", {"values": [True]}, pl.Series([True, False, None]), [T, F, T]),
        ("in_set", {"values": ["a", "z"]}, pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])), [T, F]),
        ("in_set", {"values": ["a"]}, pl.Series(["a", "b"], dtype=pl.Categorical), [T, F]),
    ],
)
def test_a_rule_says_which_values_are_good(good, rule, parameters, values, expected):
    assert good(rule, values, **parameters) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@example.com", T),
        ("ada.lovelace+tag@mail.example.co.uk", T),
        ("o'brien@example.com", T),
        ("UPPER@EXAMPLE.COM", T),
        ("a@b.c", T),
        ("x@1.2", T),
        ("ada@xn--bcher-kva.example", T),
        ("", F),
        ("ada", F),
        ("ada@localhost", F),
        ("ada@@example.com", F),
        ("@example.com", F),
        ("ada@example..com", F),
        ("ada@-example.com", F),
        ("ada@example-.com", F),
        ("ada@example.com.", F),
        (" ada@example.com", F),
        ("ada@example.com\n", F),
        ("ada@exa mple.com", F),
        ("Ada <ada@example.com>", F),
        ("bücher@example.com", F),
        ("a@" + "b" * 63 + ".com", T),
        ("a@" + "b" * 64 + ".com", F),
        ("a" * 242 + "@example.com", T),
        ("a" * 243 + "@example.com", F),
        (None, T),
    ],
)
def test_email(good, text, expected):
    assert good("email", texts(text)) == [expected]


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("YYYY-MM-DD", "2024-02-29", T),
        ("YYYY-MM-DD", "2023-02-29", F),
        ("YYYY-MM-DD", "1900-02-29", F),
        ("YYYY-MM-DD", "2000-02-29", T),
        ("YYYY-MM-DD", "2023-04-31", F),
        ("YYYY-MM-DD", "2023-13-01", F),
        ("YYYY-MM-DD", "2023-00-01", F),
        ("YYYY-MM-DD", "0000-01-01", F),
        ("YYYY-MM-DD", "0001-01-01", T),
        ("YYYY-MM-DD", "9999-12-31", T),
        ("YYYY-MM-DD", "1000-10-10", T),
        ("YYYY-MM-DD", "2024-2-29", F),
        ("YYYY-MM-DD", "24-02-29", F),
        ("YYYY-MM-DD", "+024-02-01", F),
        ("YYYY-MM-DD", "2024- 2-01", F),
        ("YYYY-MM-DD", "2024-02-29 ", F),
        ("YYYY-MM-DD", "2024-02-29\n", F),
        ("YYYY-MM-DD", "2024-02-29T00:00", F),
        ("YYYY-MM-DD", "2024/02/29", F),
        ("YYYY-MM-DD", "２０２４-02-29", F),
        ("YYYY-MM-DD", "", F),
        ("YYYY-MM-DD", None, T),
        ("%Y-%m-%d", "2024-02-29", T),
        ("DD.MM.YYYY", "29.02.2024", T),
        ("DD.MM.YYYY", "29x02x2024", F),
        ("DD.MM.YYYY", "02.29.2024", F),
        ("MM/DD/YYYY", "02/29/2024", T),
        ("YYYYMMDD", "20240229", T),
        ("YYYYMMDD", "20230229", F),
        ("YYYY-MM", "2024-12", T),
        ("YYYY-MM", "2024-13", F),
        ("YYYY", "2024", T),
        ("HH:mm", "23:59", T),
        ("HH:mm", "24:00", F),
        ("YYYY-MM-DD HH24:MI:SS", "2024-02-29 23:59:59", T),
        ("YYYY-MM-DD HH24:MI:SS", "2023-02-29 23:59:59", F),
        ("YYYY-MM-DD HH:mm:ss", "2024-02-29 23:59:60", F),
        ("YYYY-MM-DDTHH:mm:ssZ", "2024-02-29T00:00:00Z", T),
        ("YYYY-MM-DDTHH:mm", "2024-02-29 00:00", F),
    ],
)
def test_date_format_of_texts(good, form, text, expected):
    assert good("date_format", texts(text), format=form) == [expected]


DAYS = pl.Series([date(2024, 1, 1), date(2024, 2, 1), date(2024, 2, 2), None])
MOMENTS = pl.Series([datetime(2024, 1, 1), datetime(2024, 1, 1, 9, 30), datetime(2024, 1, 1, 9, 30, 1), None])
BERLIN = pl.Series([datetime(2023, 12, 31, 23), datetime(2024, 1, 1)]).dt.replace_time_zone("UTC")


@pytest.mark.parametrize(
    ("form", "values", "expected"),
    [
        ("YYYY-MM-DD", DAYS, [T, T, T, T]),
        ("DD.MM.YYYY", DAYS, [T, T, T, T]),
        ("YYYY-MM", DAYS, [T, T, F, T]),
        ("YYYY", DAYS, [T, F, F, T]),
        ("YYYY-MM-DD HH:mm", DAYS, [T, T, T, T]),
        ("YYYY-MM-DD", MOMENTS, [T, F, F, T]),
        ("YYYY-MM-DD HH:mm", MOMENTS, [T, T, F, T]),
        ("YYYY-MM-DD HH:mm:ss", MOMENTS, [T, T, T, T]),
        ("YYYY-MM-DD", BERLIN, [F, T]),
        ("YYYY-MM-DD", BERLIN.dt.convert_time_zone("Europe/Berlin"), [T, F]),
        ("YYYY-MM-DD", MOMENTS.dt.cast_time_unit("ns"), [T, F, F, T]),
    ],
)
def test_date_format_of_dates_is_good_where_the_format_loses_nothing(good, form, values, expected):
    assert good("date_format", values, format=form) == expected


@pytest.mark.parametrize(
    ("rule", "parameters", "dtype", "message"),
    [
        ("matches", {"pattern": "a"}, pl.Int64(), ".field: matches judges text, and 'value' is Int64. Cast it in a step before, or choose a rule for it: between, in_set, not_null."),
        ("matches", {"pattern": "a("}, pl.String(), ".parameters.pattern: 'a(' is not a regular expression: unclosed group."),
        ("matches", {"pattern": "(?=a)"}, pl.String(), ".parameters.pattern: '(?=a)' is not a regular expression: look-around, including look-ahead and look-behind, is not supported."),
        ("email", {}, pl.Date(), ".field: email judges text, and 'value' is Date. Cast it in a step before, or choose a rule for it: between, date_format, in_set, not_null."),
        ("length_between", {}, pl.String(), ".parameters: length_between needs 'min' or 'max'."),
        ("length_between", {"min": 3, "max": 2}, pl.String(), ".parameters: no text has from 3 to 2 characters."),
        ("between", {}, pl.Int64(), ".parameters: between needs 'min' or 'max'."),
        ("between", {"min": 2, "max": 1}, pl.Int64(), ".parameters: nothing lies between 2 and 1."),
        ("between", {"min": 1, "max": 1, "inclusive": False}, pl.Int64(), ".parameters: nothing lies between 1 and 1."),
        ("between", {"min": "1"}, pl.Int64(), ".parameters.min: '1' cannot be compared with a column of Int64."),
        ("between", {"min": float("nan")}, pl.Float64(), ".parameters.min: nan cannot be compared with a column of Float64 (nothing equals NaN)."),
        ("between", {"max": 5}, pl.Date(), ".parameters.max: 5 cannot be compared with a column of Date."),
        ("between", {"max": datetime(2024, 1, 1, 9)}, pl.Date(), ".parameters.max: datetime.datetime(2024, 1, 1, 9, 0) cannot be compared with a column of Date (a date has no time of day)."),
        ("between", {"max": "soon"}, pl.Date(), ".parameters.max: 'soon' cannot be compared with a column of Date (Invalid isoformat string: 'soon')."),
        ("between", {"max": datetime(2024, 1, 1, tzinfo=UTC)}, pl.Datetime("us"), ".parameters.max: datetime.datetime(2024, 1, 1, 0, 0, tzinfo=datetime.timezone.utc) cannot be compared with a column of Datetime(time_unit='us', time_zone=None) (the column has no time zone)."),
        ("between", {"min": 1}, pl.Boolean(), ".field: between judges number, date, time of day and text, and 'value' is Boolean. Cast it in a step before, or choose a rule for it: in_set, not_null."),
        ("in_set", {"values": ["1"]}, pl.Int64(), ".parameters.values[0]: '1' cannot be compared with a column of Int64."),
        ("in_set", {"values": [1, True]}, pl.Int64(), ".parameters.values[1]: True cannot be compared with a column of Int64."),
        ("in_set", {"values": [1, 1.5]}, pl.Int64(), ".parameters.values[1]: 1.5 is never in a column of Int64."),
        ("in_set", {"values": [1, 300]}, pl.UInt8(), ".parameters.values: not all of these can be in a column of UInt8."),
        ("date_format", {"format": "YYYY-MM-DD"}, pl.Int64(), ".field: date_format judges text and date, and 'value' is Int64. Cast it in a step before, or choose a rule for it: between, in_set, not_null."),
        ("date_format", {"format": "YYYY-Mon-DD"}, pl.String(), ".parameters.format: 'YYYY-Mon-DD' is not a format of dates: '-Mon-' means nothing. Known: YYYY, MM, DD, HH, mm, ss."),
        ("date_format", {"format": "YYYY-MM-DD %H:%f"}, pl.String(), ".parameters.format: 'YYYY-MM-DD %H:%f' is not a format of dates: ':%f' means nothing. Known: YYYY, MM, DD, HH, mm, ss."),
        ("date_format", {"format": "YYYY-YYYY"}, pl.String(), ".parameters.format: 'YYYY-YYYY' is not a format of dates: 'YYYY' is there twice."),
        ("date_format", {"format": "DD.MM."}, pl.String(), ".parameters.format: 'DD.MM.' is not a format of dates: a day needs its month and year to be a real one."),
        ("date_format", {"format": "-"}, pl.String(), ".parameters.format: '-' is not a format of dates: it has no part of a date. Known: YYYY, MM, DD, HH, mm, ss."),
        ("date_format", {"format": ""}, pl.String(), ".parameters.format: '' is not a format of dates: it has no part of a date. Known: YYYY, MM, DD, HH, mm, ss."),
        ("date_format", {"format": "HH:mm"}, pl.Datetime("us"), ".parameters.format: 'HH:mm' leaves out a part between the year and its finest, so it cannot write a Datetime(time_unit='us', time_zone=None)."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_plan_time(bound, rule, parameters, dtype, message):
    with pytest.raises(RuleError) as refused:
        Contract.plan([bound(rule, "value", position=3, **parameters)], pl.Schema({"value": dtype}))
    assert str(refused.value) == f"quality_rules[3]{message}"


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("opened <= closed", [T, F, T, T]),
        ("opened IS NOT NULL", [T, T, F, T]),
        ("closed - opened < 10", [T, T, T, F]),
        ("closed > 2 OR opened = 1", [T, T, T, T]),
    ],
)
def test_expression_judges_the_whole_row(bound, formula, expected):
    frame = pl.DataFrame({"opened": [1, 5, None, 0], "closed": [2, 3, 4, 99]})
    verdict = Contract.plan([bound("expression", formula=formula)], frame.schema).judge(frame)
    assert [position not in set(verdict.positions) for position in range(4)] == expected
