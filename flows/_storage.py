"""Places where files are: this machine's disks, S3, and what else fsspec reaches, under one vocabulary.

Sources and targets share this module. It is the only place that knows how a URL and its
``storage_options`` become a file system, or what the libraries behind them raise.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import fsspec
from fsspec.spec import AbstractFileSystem
from pydantic import BeforeValidator

from flows._secrets import Secret, redact, revealed
from flows._sides import Side
from transforms._words import did_you_mean

#: An option of S3: as s3fs calls it, and as Polars and Delta Lake do. Both names are understood.
_S3 = {
    "key": "aws_access_key_id",
    "secret": "aws_secret_access_key",
    "token": "aws_session_token",
    "endpoint_url": "aws_endpoint_url",
    "region": "aws_region",
    "anon": "aws_skip_signature",
}
_SFTP = ("username", "password", "port", "key_filename", "timeout", "host_key_policy")
_HTTP = ("username", "password", "token")
_KNOWN: dict[str, tuple[str, ...]] = {
    "s3": (*_S3, *_S3.values()),
    "sftp": _SFTP,
    "file": (),
    "memory": (),
    "http": _HTTP,
}
_SAME_AS = {"s3a": "s3", "ssh": "sftp", "https": "http", "local": "file"}
_CONNECT_SECONDS, _SILENT_SECONDS, _ATTEMPTS = 10, 60, 3


def _texts(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return {name: str(given).lower() if isinstance(given, bool | int) else given for name, given in value.items()}


#: ``storage_options`` as a configuration has them: every value may be a reference, and none is ever shown.
StorageOptions = Annotated[dict[str, Secret], BeforeValidator(_texts)]


def scheme_of(url: str) -> str:
    """``s3``, ``http``, ``sftp``, ``memory``, ``file`` for a plain path; others by their own name."""
    scheme, separator, _rest = url.partition("://")
    return _SAME_AS.get(scheme.lower(), scheme.lower()) if separator else "file"


def require_known(options: Mapping[str, Any], scheme: str) -> None:
    """Confirm that a place of this scheme takes these options.

    Raises:
        ValueError: it has no such option; with did-you-mean.
    """
    known = _KNOWN.get(scheme)
    for name in options if known is not None else ():
        if name not in (known or ()):
            hint = did_you_mean(name, known) if known else " It takes none."
            raise ValueError(f"{name!r} is not a storage option of '{scheme}://'.{hint}")


@dataclass(frozen=True)
class Store:
    """A place where files are.

    Attributes:
        url: a path, or a URL that fsspec knows: ``s3://bucket/prefix``.
        options: how to get in.
        side: the end of the run that its errors belong to.
    """

    url: str
    options: Mapping[str, Secret] = field(default_factory=dict)
    side: Side = field(default_factory=lambda: Side("source", "storage"))

    @property
    def scheme(self) -> str:
        """The kind of place."""
        return scheme_of(self.url)

    @property
    def shown(self) -> str:
        """The URL without what may be secret in it."""
        plain = self.url.partition("?")[0] if self.scheme == "http" else self.url
        return redact(plain)

    @property
    def is_local(self) -> bool:
        """Whether it is a disk of this machine."""
        return self.scheme == "file"

    @cached_property
    def fs(self) -> AbstractFileSystem:
        """The file system, which remembers no listing.

        Raises:
            LockgateError: of `side`; a library for this kind of place is missing.
        """
        with self.mapped():
            return self._opened[0]

    @cached_property
    def path(self) -> str:
        """The URL as the file system itself says it: without its scheme, absolute."""
        with self.mapped():
            return self._opened[1].rstrip("/") or "/"

    @cached_property
    def _opened(self) -> tuple[AbstractFileSystem, str]:
        require_known(self.options, self.scheme)
        keys = {**self._keys(), "skip_instance_cache": True}
        if self.scheme not in {"file", "sftp"}:
            keys["use_listings_cache"] = False
        fs, path = fsspec.core.url_to_fs(self.url, **(keys if self.scheme != "memory" else {}))
        return fs, path

    def _keys(self) -> dict[str, Any]:
        if self.scheme == "http":
            return self._http_keys()
        if self.scheme != "s3":
            waits = {"timeout": _CONNECT_SECONDS, "banner_timeout": _CONNECT_SECONDS} if self.scheme == "sftp" else {}
            numbers = {"port", "timeout"}
            given = {name: int(text) if name in numbers else text for name, text in self._revealed().items()}
            return {**waits, **given}
        ours = self.object_store()
        config = {"connect_timeout": _CONNECT_SECONDS, "retries": {"max_attempts": _ATTEMPTS}}
        keys: dict[str, Any] = {theirs: ours[name] for theirs, name in _S3.items() if name in ours}
        if region := keys.pop("region", None):
            keys["client_kwargs"] = {"region_name": region}
        if "anon" in keys:
            keys["anon"] = keys["anon"] == "true"
        return {**keys, "config_kwargs": config, "version_aware": False}

    def _http_keys(self) -> dict[str, Any]:
        """What a session sends everywhere; aiohttp drops the Authorization when it is led to another origin."""
        import aiohttp  # noqa: PLC0415 - 0.2 s that only such places need

        given = self._revealed()
        headers = {"Authorization": f"Bearer {given['token']}"} if "token" in given else {}
        if "username" in given:
            headers["Authorization"] = aiohttp.encode_basic_auth(given["username"], given.get("password", ""))
        waits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
        return {"client_kwargs": {"headers": headers, "timeout": waits}}

    def object_store(self) -> dict[str, str]:
        """The options of S3 as Polars and Delta Lake call them; what is not given comes from the environment."""
        ours = {_S3.get(name, name): text for name, text in self._revealed().items()}
        if ours.get("aws_endpoint_url", "").startswith("http://"):
            ours["aws_allow_http"] = "true"
        return ours

    def _revealed(self) -> dict[str, str]:
        return revealed(self.options)

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Turn what the libraries raise into our errors, once.

        Raises:
            LockgateError: of `side`.
        """
        try:
            yield
        except (OSError, EOFError, ImportError, ValueError) as error:
            raise self._said(error) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in {"botocore", "aiobotocore", "aiohttp", "paramiko"}:
                raise
            raise self._said(error) from error

    def _said(self, error: Exception) -> Exception:
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # fsspec takes every trouble of a web server for a file that is not there
        what, advice = _diagnosed(error)
        if isinstance(error, ImportError) and self.scheme == "sftp":
            advice = "Install it: pip install 'lockgate[sftp]'."
        said = redact(" ".join(_COLOURS.sub("", _words_of(error)).split()))
        return self.side.error(what, f"{self.shown!r}: {said.rstrip('.')}. {advice}")


_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _SERVER_FAULT = 401, 403, 404, 500
_AUTHENTICATION = ("authentication", "Check the keys in 'storage_options', or in the environment.")
_UNREACHABLE = ("unreachable", "Check the address, and that the server is up; then run again.")
_MISSING = ("missing", "Check the name.")
_FULL = ("resources", "Free some space, then run again.")
_BAD_KEYS = (
    "InvalidAccessKeyId",
    "Access Key Id",
    "ignature",
    "ExpiredToken",
    "provided token",
    "redential",
    "uthentication",
)
_COLOURS = re.compile(r"\x1b\[\d*m")
#: How the object store of Polars and Delta Lake says it.
_NOBODY_SAID = ("client error (Connect)", "tcp connect error", "dns error", "operation timed out")
_FORBIDDEN_SAID = "403 Forbidden"
_NOBODY = (
    "ConnectionError",
    "Timeout",
    "NoValidConnections",
    "gaierror",
    "ClientConnector",
    "EndpointConnection",
    "ServerDisconnected",
    "ClientPayload",
)


def _words_of(error: Exception) -> str:
    """What an error says; of an answer of a web server its status, because its URL may hold a secret."""
    status = getattr(error, "status", None)
    if status is not None:
        return f"the server answers {status} {getattr(error, 'message', '')}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _diagnosed(error: Exception) -> tuple[str, str]:
    """What an error of a file system means, and what to do next."""
    status = getattr(error, "status", None) or 0
    kind, text = type(error).__name__, "" if status else str(error)
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    signs = {
        ("other", "Install that package beside Lockgate."): isinstance(error, ImportError),
        _AUTHENTICATION: status == _UNAUTHORIZED or any(sign in text or sign in kind for sign in _BAD_KEYS),
        _MISSING: status == _NOT_FOUND or isinstance(error, FileNotFoundError) or "NoSuchBucket" in text,
        ("permission", "Grant it, or use another user."): status == _FORBIDDEN
        or isinstance(error, PermissionError)
        or _FORBIDDEN_SAID in text,
        _UNREACHABLE: status >= _SERVER_FAULT
        or isinstance(error, ConnectionError | TimeoutError | socket.gaierror)
        or any(sign in kind for sign in _NOBODY)
        or any(sign in text for sign in _NOBODY_SAID),
        _FULL: full,
    }
    return next((meaning for meaning, found in signs.items() if found), ("other", "See what the place says about it."))
