"""Texts must look like e-mail addresses."""

from __future__ import annotations

from typing import Final

import polars as pl

from validations._rule import rule

_LABEL: Final = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_ADDRESS: Final = rf"^[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})+$"
_LONGEST: Final = 254  # octets


@rule(accepts=("text",))
def email(column: pl.Expr) -> pl.Expr:
    """The text must look like an e-mail address that a person would give.

    Whether anybody reads mail there, only mail can tell.

    In: one column of text (String).
    Nulls: have no opinion. The empty text is not an address.
    Source: "valid e-mail address" of the HTML Living Standard, as browsers check it, but with a dot in the
        domain (no ``root@localhost``), and at most 254 octets (RFC 5321, 4.5.3.1.3, less its two brackets).

    >>> frame = pl.DataFrame({"email": ["ada@example.com", "ada@localhost", "ada", None]})
    >>> frame.select(email(pl.col("email")))["email"].to_list()
    [True, False, False, None]
    """
    return column.str.contains(_ADDRESS) & (column.str.len_bytes() <= _LONGEST)
