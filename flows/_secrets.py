"""Values that are used and never shown: a `Secret` holds the text, `redact` cleans the words of others.

A secret field holds a text, a reference, or a text with references in it (`_references`). It is
resolved when it is used, and by whatever way it is printed, logged, dumped or compared with in a
message, stars come out. A secret cannot be pickled, so no cache and no other process can keep it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn, Self
from urllib.parse import quote, unquote

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from flows._errors import SecretError
from flows._references import KNOWN, MalformedReferenceError, Reference, parts

STARS = "***"

#: Shorter texts are not searched for in other texts: they would be found everywhere.
_SEARCHED_LENGTH = 4
#: Shorter texts are stars only where they stand as a word: ``calcu***`` would tell what "late" is.
_LONG_LENGTH = 8
_HARMLESS = {"application_name", "connect_timeout", "dbname", "host", "port", "sslmode", "target_session_attrs", "user"}
#: Names of headers, parameters and options of which the standards say that they hold no secret. Their texts are
#: words like "read" and "true", which would become stars in every message.
_PUBLIC = {
    *("accept", "accept-charset", "accept-encoding", "accept-language", "content-type", "user-agent"),
    *("audience", "grant_type", "resource", "response_type", "scope"),
    *("anon", "aws_region", "aws_skip_signature", "host_key_policy", "port", "region", "timeout"),
}
_HOST = r"(?:\[[\da-fA-F:.]+\]|[\w.$%{}-]*)(?::(?:\d*|\$\{\w+\}))?"
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]*)://(?:(?P<user>[^/?#@:\s]*)(?P<password>:[^/?#@]*)?@)?"
    rf"(?P<host>{_HOST}(?:,{_HOST})*)(?P<path>/[\w.$%{{}}/-]*)?(?:\?(?P<query>[^#@\s]*))?"
)
_BROKEN_URL = re.compile(r"\w[\w+.-]*://[^:]*:(.*)@[^@]*", re.DOTALL)
_PASSWORD_IN_URL = re.compile(r"(\w://[^\s:/?#@\"]*):[^\s\"]*@")
_PASSWORD_PAIR = re.compile(r"(?i)\b(\w*(?:passw(?:or)?d|pwd|token|secret|api_?key|access_?key)=)('[^']*'|[^\s&;,]+)")

#: Every text that was revealed in this process and the passwords in it, with what may be shown for them.
_revealed: dict[str, str] = {}


class Secret:
    """A text that is used and never shown; may hold references, which are resolved by `reveal`.

    Raises:
        MalformedReferenceError: the text holds a ``${`` or ``{{ }}`` that is no reference.
    """

    __slots__ = ("__parts", "__text")

    def __init__(self, text: str) -> None:
        self.__text = text
        self.__parts = parts(text)
        if any(isinstance(part, Reference) and part.kind == "unknown" for part in self.__parts):
            raise MalformedReferenceError("{{")

    def reveal(self) -> str:
        """The text itself, with references resolved now.

        Raises:
            SecretError: a reference cannot be resolved; the message names it and what to set.
        """
        revealed = self._resolved()
        _revealed.update(_hidden_parts(revealed))
        return revealed

    def _resolved(self) -> str:
        return "".join(part if isinstance(part, str) else part.value(os.environ) for part in self.__parts)

    @property
    def shown(self) -> str:
        """What may be shown: the reference, or the address with its secret parts as stars; in doubt stars only."""
        match self.__parts:
            case [Reference(default=None | "") as alone]:
                return alone.text
            case [Reference(name=name)]:
                return f"${{{name}:-{STARS}}}"
        return _shown_url(self.__text)

    def __repr__(self) -> str:
        return f"Secret({self.shown!r})"

    def __str__(self) -> str:
        return self.shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.__text == other.__text

    def __hash__(self) -> int:
        return hash((Secret, self.__text))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        raise TypeError("a secret is not pickled: pass the pipeline's name, and load the configuration there")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validated, serialization=core_schema.plain_serializer_function_ser_schema(lambda secret: secret.shown)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "minLength": 1, "description": f"A secret; better a reference: {KNOWN}"}

    @classmethod
    def _validated(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str) or not value:
            raise PydanticCustomError("secret_type", "needs a text, or a reference like ${NAME}. Put it in quotes.")
        try:
            return cls(value)
        except MalformedReferenceError as error:
            raise PydanticCustomError("secret_reference", "{reason}", {"reason": str(error)}) from None


def revealed(named: Mapping[str, Secret]) -> dict[str, str]:
    """The texts of headers, parameters or options; of one with a public name the text is not hidden from now on.

    Raises:
        SecretError: a reference cannot be resolved.
    """
    return {
        name: secret._resolved() if name.lower() in _PUBLIC else secret.reveal()  # noqa: SLF001 - of this module
        for name, secret in named.items()
    }


def redact(text: str, secrets: Iterable[Secret] = ()) -> str:
    """Replace by stars what `text` shows of `secrets`, of every secret revealed so far, and of any password.

    Secrets of less than four characters are found only where they stand as a password, those of less
    than eight only where they stand as a word.
    """
    hidden = dict(_revealed)
    for secret in secrets:
        hidden.update(_hidden_parts(_text_if_known(secret)))
    for value in sorted(hidden, key=len, reverse=True):
        text = _replaced(text, value, hidden[value])
    return without_passwords(text)


def without_passwords(text: str) -> str:
    """Replace by stars what stands in `text` where a password stands: in a URL, or after ``password=``."""
    text = _PASSWORD_IN_URL.sub(rf"\1:{STARS}@", text)
    return _PASSWORD_PAIR.sub(rf"\1{STARS}", text)


class Redacting(logging.Filter):
    """A filter for log *handlers*: every line, traceback included, passes `redact` before it is written."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record; always True."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit; logging would print them as they are
            message = f"{record.msg} {record.args}"
        record.msg, record.args = redact(message), None
        if record.exc_info and record.exc_info[0]:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        return True


def _replaced(text: str, value: str, shown: str) -> str:
    if value not in text or len(value) >= _LONG_LENGTH:
        return text.replace(value, shown)
    return re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", lambda _found: shown, text)


def _text_if_known(secret: Secret) -> str:
    try:
        return secret.reveal()
    except SecretError:
        return ""


def _hidden_parts(revealed: str) -> dict[str, str]:
    """The text and the passwords in it, as URLs, reprs and JSON write them, and what to show for each."""
    url = _URL.fullmatch(revealed)
    passwords = [found[2].strip("'") for found in _PASSWORD_PAIR.finditer(revealed)]
    if url:
        passwords += [(url["password"] or "")[1:], *_query_values(url["query"] or "")]
    elif broken := _BROKEN_URL.fullmatch(revealed):
        passwords.append(broken[1])
    shown = {form: _shown_url(revealed) for form in _forms(revealed)}
    return {**shown, **{form: STARS for password in passwords for form in _forms(password)}}


def _forms(text: str) -> Iterator[str]:
    plain = unquote(text)
    for form in (text, plain, quote(plain, safe=""), repr(text)[1:-1], json.dumps(text)[1:-1]):
        if len(form) >= _SEARCHED_LENGTH:
            yield form


def _query_values(query: str) -> list[str]:
    pairs = (part.partition("=") for part in query.split("&"))
    return [value if equals else key for key, equals, value in pairs if key.lower() not in _HARMLESS]


def _shown_url(text: str) -> str:
    url = _URL.fullmatch(text)
    if url is None:
        return STARS
    web = url["scheme"].lower().startswith("http")
    user = STARS if web and url["user"] else url["user"]
    login = "" if user is None else f"{user}{':' + STARS if url['password'] else ''}@"
    path = url["path"] or ""
    if web and len(path) > 1:
        path = f"/{STARS}"  # webhooks carry their secret in the path
    return f"{url['scheme']}://{login}{url['host']}{path}{_shown_query(url['query'])}"


def _shown_query(query: str | None) -> str:
    if query is None:
        return ""
    pairs = [part.partition("=") for part in query.split("&")]
    return "?" + "&".join(
        f"{key}={value if key.lower() in _HARMLESS else STARS}" if equals else STARS for key, equals, value in pairs
    )
