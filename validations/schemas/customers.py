"""A table of customers: what every pipeline that delivers customers promises.

Name it in YAML with ``schema: validations.schemas.customers:Customers``.
"""

from __future__ import annotations

import pandera.polars as pa
import polars as pl


class Customers(pa.DataFrameModel):
    """One row a customer.

    >>> from datetime import date
    >>> row = {"customer_id": 1, "name": "Ada", "email": "ada@example.com", "status": "active"}
    >>> rows = pl.DataFrame([row | {"created_at": date(2024, 2, 29)}])
    >>> Customers.validate(rows).height
    1
    """

    customer_id: pl.Int64 = pa.Field(unique=True, gt=0)
    name: pl.String = pa.Field(str_length={"min_value": 1})
    email: pl.String = pa.Field(nullable=True, str_matches=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
    status: pl.String = pa.Field(isin=["active", "inactive", "closed"])
    created_at: pl.Date

    @pa.dataframe_check(name="closed customers keep no address")
    def closed_without_address(cls, data: pa.PolarsData) -> pl.LazyFrame:  # noqa: N805 - Pandera passes the class
        """The address of a customer who left is forgotten."""
        return data.lazyframe.select((pl.col("status") != "closed") | pl.col("email").is_null())
