"""The demo's source: a table ``customers`` as a business would have it, with a few known flaws.

Every row follows from its number and the number of all, so the table is the same on every
machine, and a test can know what a run has to find. The flaws are all in active customers,
one to a row.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator
from datetime import date

import psycopg
from psycopg import sql

from flows._embedded import resolve
from transforms._errors import LockgateError

ROWS = 100_000
FEWEST_ROWS = 1_000  # below that, flaws would touch one another

#: Active customers without a `customer_id`.
NULL_IDS = 7
#: Pairs of active customers with the same `customer_id`: twice as many rows are not unique.
DUPLICATE_PAIRS = 5
#: Active customers whose `email` is none: no @, two of them, a blank, no domain, nobody.
MALFORMED_EMAILS = 23

#: The first and the last day of the demo's world; nothing in it depends on today.
FIRST_DAY, LAST_DAY = date(2016, 1, 1), date(2026, 6, 30)

_FLAWS = NULL_IDS + DUPLICATE_PAIRS + MALFORMED_EMAILS
_EDITION = 1  # raise it when the rows change, and tables of earlier editions are replaced
_NAMES_PER_PERCENT = 20
_LETTERS = str.maketrans({"ł": "l", "Ł": "L", "ß": "ss"})  # what Unicode does not take apart

# Country, percent of the customers, given names, family names. Where an address cannot spell a name's letters,
# a slash says how it does.
_COUNTRIES = (
    (
        "US",
        28,
        "James Mary Robert Linda Michael Ashley Tyrone Guadalupe Noah Emma",
        "Smith Johnson Williams García Nguyen Washington Miller Kowalski",
    ),
    (
        "GB",
        13,
        "Oliver Amelia George Isla Harry Zoë Siân Mohammed",
        "Jones Taylor Davies Patel Evans Okafor Walker Smythe-Hughes",
    ),
    (
        "DE",
        12,
        "Jürgen Sabine Björn Anke Günther Käthe Lukas Leonie",
        "Müller Schmidt Weiß Schäfer Groß Vogel Köhler Öztürk",
    ),
    (
        "FR",
        10,
        "Zoé François Hélène Jérôme Chloé Noël Amélie Mathieu",
        "Martin Lefèvre Dubois Béranger D'Aubigné Moreau Benoît Diallo",
    ),
    (
        "IN",
        9,
        "Aarav Priya Rohan Ananya Vikram Lakshmi Arjun Divya",
        "Sharma Iyer Patel Krishnan Singh Das Reddy Banerjee",
    ),
    (
        "PL",
        7,
        "Łukasz Małgorzata Paweł Agnieszka Grzegorz Zofia Wojciech Bożena",
        "Kowalczyk Nowak Wójcik Mazur Woźniak Żak Łuczak Krawczyk",
    ),
    (
        "CN",
        6,
        "芳/fang 伟/wei 娜/na 秀英/xiuying 敏/min 静/jing 强/qiang 磊/lei",
        "王/wang 李/li 张/zhang 刘/liu 陈/chen 杨/yang 黄/huang",
    ),
    (
        "ES",
        5,
        "José María Íñigo Lucía Ángel Begoña Pablo Sofía",
        "Muñoz Núñez Pérez Ibáñez López Martínez Castaño",
    ),
    (
        "BR",
        5,
        "João Ana Thiago Conceição Luís Márcia Antônio Beatriz",
        "Silva Gonçalves Araújo Assunção Pereira Conceição",
    ),
    (
        "IE",
        3,
        "Seán Aoife Pádraig Niamh Ciarán Órla",
        "O'Brien O'Connor Murphy Byrne McCarthy",
    ),
    (
        "SE",
        2,
        "Åsa Björn Märta Göran Östen Linnéa",
        "Åkesson Öberg Lindström Sjögren Nyström",
    ),
)

_TABLE = """
CREATE TABLE customers (
    customer_id bigint,
    name text NOT NULL,
    email text,
    country text NOT NULL,
    segment text NOT NULL,
    status text NOT NULL,
    credit_limit numeric(12, 2),
    lifetime_value numeric(14, 2) NOT NULL,
    marketing_opt_in boolean NOT NULL,
    created_at date NOT NULL,
    updated_at timestamptz NOT NULL
)
"""

# No random(), no logarithm: whole numbers out of an MD5 are the same in every version and on every machine.
# `place` is the number of a flawed row among the flawed, from 1; they are spread evenly. OFFSET 0 keeps the
# planner from computing the digits once for each of their uses.
_FILL = """
INSERT INTO customers
WITH
    pool AS (
        SELECT *
        FROM unnest(%(countries)s::text[], %(names)s::text[], %(handles)s::text[])
            WITH ORDINALITY AS person (country, name, handle, slot)
    ),
    dice AS (
        SELECT
            i,
            i / %(every)s * (i %% %(every)s = 0 AND i / %(every)s <= %(flaws)s)::int AS place,
            (i + 1) %% %(every)s = 0 AS before_place,
            %(first_day)s + floor((%(last_day)s - %(first_day)s) * sqrt(i::float8 / %(rows)s))::int AS day,
            ('x' || substr(digits, 1, 4))::bit(16)::int AS person,
            ('x' || substr(digits, 5, 4))::bit(16)::int %% 100 AS segment,
            ('x' || substr(digits, 9, 4))::bit(16)::int %% 100 AS status,
            ('x' || substr(digits, 13, 4))::bit(16)::int %% 50 AS credit,
            ('x' || substr(digits, 17, 5))::bit(20)::bigint %% 10000 AS worth,
            ('x' || substr(digits, 22, 2))::bit(8)::int AS contact,
            ('x' || substr(digits, 24, 7))::bit(28)::bigint AS touched
        FROM (SELECT i, md5(i::text) AS digits FROM generate_series(1, %(rows)s::bigint) AS i OFFSET 0) AS numbered
    ),
    customer AS (
        SELECT
            *,
            handle || i || '@example.' || (ARRAY['com', 'org', 'net'])[1 + contact %% 3] AS address,
            CASE WHEN segment < 78 THEN 'consumer' WHEN segment < 96 THEN 'business' ELSE 'enterprise' END AS kind
        FROM dice JOIN pool ON slot = 1 + person %% %(pool)s
    )
SELECT
    CASE WHEN place BETWEEN 1 AND %(null_ids)s THEN NULL
        WHEN place BETWEEN %(null_ids)s + 1 AND %(null_ids)s + %(pairs)s THEN i - 1
        ELSE i
    END,
    name,
    CASE WHEN place > %(null_ids)s + %(pairs)s THEN
            CASE place %% 5
                WHEN 0 THEN replace(address, '@', ' at ')
                WHEN 1 THEN replace(address, '@', '@@')
                WHEN 2 THEN replace(address, '.', ' ')
                WHEN 3 THEN split_part(address, '@', 1) || '@'
                ELSE '@' || split_part(address, '@', 2)
            END
        WHEN contact < 6 THEN NULL
        ELSE address
    END,
    country,
    kind,
    CASE WHEN place > 0 OR before_place OR status < 80 THEN 'active'
        WHEN status < 91 THEN 'inactive'
        WHEN status < 97 THEN 'churned'
        ELSE 'suspended'
    END,
    CASE WHEN status < 97 THEN (1 + credit) * CASE kind WHEN 'consumer' THEN 100 ELSE 1000 END END,
    (worth * worth * worth / 500000)::numeric / 100 * CASE kind WHEN 'enterprise' THEN 50 ELSE 1 END,
    contact %% 5 < 2,
    day,
    (day + touched * (%(last_day)s - day + 1) * 86400 / (1 << 28) * interval '1 second') AT TIME ZONE 'UTC'
FROM customer
ORDER BY i
"""


def create(url: str, rows: int = ROWS) -> bool:
    """Make the table ``customers`` with this many rows, unless it is there; returns whether it was made.

    Made in one transaction: a crash leaves no half of it. A demo table of another size is replaced,
    somebody else's table is never touched.

    Args:
        url: a ``postgresql://`` or ``embedded://`` URL.
        rows: how many customers; their flaws are as many in any number.

    Raises:
        LockgateError: `rows` is too few, or another table of that name is there.
        EmbeddedPostgresError: the embedded server does not start.
    """
    if rows < FEWEST_ROWS:
        raise LockgateError(f"the demo needs at least {FEWEST_ROWS:,} customers to hide its flaws among, not {rows:,}.")
    ours = "Lockgate's demo: "
    comment = f"{ours}{rows} customers, edition {_EDITION}"
    with psycopg.connect(resolve(url)) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('lockgate demo'))")
        found = connection.execute(
            "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass('customers')"
        ).fetchone()
        if found == (comment,):
            return False
        if found is not None and not str(found[0]).startswith(ours):
            raise LockgateError(
                "a table 'customers' that is not the demo's is in that database. Name another database."
            )
        connection.execute("DROP TABLE IF EXISTS customers")
        connection.execute(_TABLE)
        connection.execute(_FILL, _facts(rows))
        connection.execute(sql.SQL("COMMENT ON TABLE customers IS {}").format(comment))
        connection.execute("ANALYZE customers")
    return True


def _facts(rows: int) -> dict[str, object]:
    countries, names, handles = zip(*_people(), strict=True)
    return {
        "rows": rows,
        "every": rows // (_FLAWS + 1),
        "flaws": _FLAWS,
        "null_ids": NULL_IDS,
        "pairs": DUPLICATE_PAIRS,
        "first_day": FIRST_DAY,
        "last_day": LAST_DAY,
        "pool": len(names),
        "countries": list(countries),
        "names": list(names),
        "handles": list(handles),
    }


def _people() -> Iterator[tuple[str, str, str]]:
    """Country, name and address-like name of the people to draw from; a country has its share of them."""
    for country, percent, given_names, family_names in _COUNTRIES:
        couples = list(itertools.product(_spellings(given_names), _spellings(family_names)))
        drawn = percent * _NAMES_PER_PERCENT
        for number in range(drawn):
            (given, plain_given), (family, plain_family) = couples[number * len(couples) // drawn]
            name = f"{family}{given}" if country == "CN" else f"{given} {family}"
            yield country, name, f"{plain_given}.{plain_family}"


def _spellings(names: str) -> Iterator[tuple[str, str]]:
    """Each name, and its plain letters: ``Łukasz`` is ``lukasz``, ``O'Brien`` is ``obrien``."""
    for entry in names.split():
        name, _, spelled = entry.partition("/")
        letters = unicodedata.normalize("NFKD", (spelled or name).translate(_LETTERS)).casefold()
        yield name, "".join(letter for letter in letters if letter.isascii() and (letter.isalpha() or letter == "-"))
