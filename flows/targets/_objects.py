"""A file target's object in S3: replaced by one put, on the condition that nobody else replaced it meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows._storage import Store
from flows.targets._durable import Turn
from flows.targets._journal import FOLDER, Journal, Proof
from flows.targets._places import Place

_RUN, _ROWS = "lockgate-run", "lockgate-rows"
_PUT_BYTES = 32_000_000  # larger ones are sent in parts of this size, four at a time
_SENDERS = 4
_FORGOTTEN = timedelta(days=1)
_LOST = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload", "412", "409"}


class S3Object(Place):
    """One object. Nothing locks it: of two runs at once the first to publish wins, the other has to run again."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._parent, _slash, name = store.path.rpartition("/")
        self.journal = Journal(store, name, self.has, self._parent)
        self._bucket, _slash, self._key = store.path.partition("/")
        self._seen: str | None = None

    def enter(self, run_id: str, turn: Turn) -> None:  # noqa: ARG002 - the signature of every place
        """See what is there; `publish` replaces that, or nothing."""
        with self.store.mapped():
            head = self._head()
            self._seen = head["ETag"] if head else None
        self.journal.clear(alone=False)

    def staging(self, scratch: Path) -> Path:
        """What will be sent waits on this machine."""
        return scratch

    def old(self, scratch: Path) -> Path | None:
        """A copy of the object."""
        if self._seen is None:
            return None
        copy = scratch / "old"
        with self.store.mapped():
            scratch.mkdir(parents=True, exist_ok=True)
            self.store.fs.get_file(self.store.path, str(copy))
            head = self._head()
        if head is None or head["ETag"] != self._seen:
            raise self.changed()
        return copy

    def proof(self, built: Path, run_id: str) -> Proof:  # noqa: ARG002 - the object says whose it is
        """The object's metadata name the run."""
        return {"run": run_id}

    def has(self, proof: Proof) -> bool:
        """Whether they do."""
        if not proof:
            return True
        with self.store.mapped():
            head = self._head()
        return head is not None and head["Metadata"].get(_RUN) == proof["run"]

    def rows(self, count: Callable[[Path], int]) -> int:  # noqa: ARG002 - reading an object would be a download
        """What the object says of itself; 0 where Lockgate did not write it, or appended to it."""
        head = self._head()
        told = head["Metadata"].get(_ROWS, "") if head else ""
        return int(told) if told.isdecimal() else 0

    def publish(self, built: Path, run_id: str, *, adds: bool, rows: int | None) -> None:  # noqa: ARG002 - never over another's load
        """Put the object, on the condition that the one that was there when the run began still is.

        Raises:
            TargetBusyError: it is not.
        """
        self.journal.clear(alone=False)  # once another object is here, nothing proves what the last run published
        condition = {"IfMatch": self._seen} if self._seen else {"IfNoneMatch": "*"}
        with self.store.mapped():
            self._hold()
            try:
                self._put(built, {_RUN: run_id, **({} if rows is None else {_ROWS: str(rows)})}, condition)
            except OSError as error:
                if lost(error):
                    raise self.changed() from error
                raise

    @property
    def exists(self) -> bool:
        """Whether the object is there."""
        with self.store.mapped():
            return self._head() is not None

    def leave(self) -> None:
        """Nothing was left there."""

    def check(self) -> None:
        """Put a small object beside it, and take it away again."""
        probe = f"{self._parent}/{FOLDER}/probe-{os.getpid()}"
        with self.store.mapped():
            self.store.fs.pipe_file(probe, b"")
            self.store.fs.rm_file(probe)

    # --- the endpoint ---

    def _hold(self) -> None:
        """Confirm that nobody wrote there, as far as one can see; some endpoints know no conditions."""
        head = self._head()
        if (head["ETag"] if head else None) != self._seen:
            raise self.changed()

    def _head(self) -> dict[str, Any] | None:
        try:
            return dict(self._call("head_object"))
        except FileNotFoundError:
            return None
        except PermissionError:  # the answer to a HEAD has no body that could say why
            self.store.fs.call_s3("list_objects_v2", Bucket=self._bucket, Prefix=self._key, MaxKeys=1)
            raise

    def _call(self, operation: str, **keys: Any) -> Any:
        return self.store.fs.call_s3(operation, Bucket=self._bucket, Key=self._key, **keys)

    def _put(self, file: Path, metadata: dict[str, str], condition: dict[str, str]) -> None:
        if file.stat().st_size <= _PUT_BYTES:
            self._call("put_object", Body=file.read_bytes(), Metadata=metadata, **condition)
            return
        self._abort_forgotten()
        upload = self._call("create_multipart_upload", Metadata=metadata)["UploadId"]
        try:
            parts = self._sent(file, upload)
            self._hold()
            self._call("complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": parts}, **condition)
        except BaseException:
            self._call("abort_multipart_upload", UploadId=upload)
            raise

    def _sent(self, file: Path, upload: str) -> list[dict[str, Any]]:
        """Send a file in parts; a part is in memory only while it is sent."""
        part_bytes = max(_PUT_BYTES, file.stat().st_size // 9_000)  # an object has 10,000 parts at most

        def send(number: int) -> dict[str, Any]:
            with file.open("rb") as part:
                part.seek(number * part_bytes)
                body = part.read(part_bytes)
            sent = self._call("upload_part", UploadId=upload, PartNumber=number + 1, Body=body)
            return {"PartNumber": number + 1, "ETag": sent["ETag"]}

        with ThreadPoolExecutor(_SENDERS, thread_name_prefix="lockgate-upload") as senders:
            return list(senders.map(send, range(-(-file.stat().st_size // part_bytes))))

    def _abort_forgotten(self) -> None:
        """Uploads of killed runs cost money until somebody ends them."""
        listed = self.store.fs.call_s3("list_multipart_uploads", Bucket=self._bucket, Prefix=self._key)
        for upload in listed.get("Uploads", ()):
            if upload["Key"] == self._key and upload["Initiated"] < datetime.now(UTC) - _FORGOTTEN:
                self._call("abort_multipart_upload", UploadId=upload["UploadId"])


def lost(error: OSError) -> bool:
    """Whether the endpoint says that a condition of a put does not hold: somebody else was first."""
    return isinstance(error, FileExistsError) or _code(error) in _LOST


def _code(error: BaseException | None) -> str | None:
    """What the endpoint itself called an error; s3fs keeps it as the cause."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code"))
        error = error.__cause__
    return None
