"""Names of tables, as people write them."""

from __future__ import annotations

_MOST_PARTS = 2  # schema and table


def split_name(text: str) -> tuple[str, ...]:
    """Part ``schema.table`` at its dots; double quotes protect a dot.

    Raises:
        ValueError: it is empty, or has a quote without its twin.
    """
    parts: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            end = rest.replace('""', "\0\0").find('"', 1)
            if end < 0:
                raise ValueError(f"{text!r} has a quote without its twin.")
            part, rest = rest[1:end].replace('""', '"'), rest[end + 1 :]
        else:
            end = rest.find(".") if "." in rest else len(rest)
            part, rest = rest[:end], rest[end:]
        if not part:
            raise ValueError(f"{text!r} is not the name of a table. Write 'table' or 'schema.table'.")
        parts.append(part)
        if not rest and len(parts) > _MOST_PARTS:
            raise ValueError(f"{text!r} names a database too. Write 'schema.table'; the connection string says where.")
        if not rest:
            return tuple(parts)
        if not rest.startswith("."):
            raise ValueError(f"{text!r} is not the name of a table. Write 'table' or 'schema.table'.")
        rest = rest[1:]
