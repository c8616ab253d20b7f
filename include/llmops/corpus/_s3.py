"""S3 and what speaks its protocol, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llmops.corpus._files import MAX_BYTES
from llmops.corpus._places import Place, enabled
from llmops.corpus._problems import Unreadable
from llmops.corpus._stores import StoredObject

__all__ = ["S3_OPTIONS", "S3Store"]

S3_OPTIONS = ("anon", "endpoint_url", "profile", "region", "requester_pays")

_ATTEMPTS = 5  # of each request, by botocore: with growing pauses, on errors of the server and of the network
_BODY_ATTEMPTS = 3  # of a body that ends before it is whole
_SECONDS = 300
_ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")
_TRANSIENT_CODES = ("RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling", "OperationAborted")


class S3Store:
    """What is below ``s3://bucket/prefix``."""

    def __init__(self, place: Place, options: Mapping[str, str]) -> None:
        from s3fs import S3FileSystem

        self._place = place
        self._bucket, _, prefix = place.address.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        client = {"region_name": options["region"]} if "region" in options else {}
        session = {"profile": options["profile"]} if "profile" in options else {}
        retries = {"max_attempts": _ATTEMPTS, "mode": "standard"}
        self._system = S3FileSystem(
            anon=enabled(options, "anon"),
            endpoint_url=options.get("endpoint_url"),
            requester_pays=enabled(options, "requester_pays"),
            client_kwargs=client,
            config_kwargs={"retries": retries, "connect_timeout": 10, "read_timeout": 60},
            use_listings_cache=False,
            skip_instance_cache=True,
            **session,
        )
        self._system.retries = 1  # botocore retries; both together would multiply

    def folders(self) -> Iterator[str]:
        """Yield the names of the folders at the top."""
        for page in self._pages(self._prefix, Delimiter="/"):
            for entry in page.get("CommonPrefixes", []):
                yield entry["Prefix"][len(self._prefix) : -1]

    def objects(self, folder: str) -> Iterator[StoredObject]:
        """Yield all objects below a folder."""
        prefix = f"{self._prefix}{folder}/" if folder else self._prefix
        for page in self._pages(prefix):
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):  # What consoles write for an empty folder.
                    yield _object(entry, prefix)

    def holds(self, path: str) -> bool:
        """Return whether there is an object at a path."""
        try:
            with self._errors(self._place):
                self._system.call_s3("head_object", Bucket=self._bucket, Key=self._prefix + path)
        except FileNotFoundError:
            return False
        return True

    def read(self, found: StoredObject) -> bytes:
        """Return an object's bytes, of exactly the revision that was listed."""
        from aiohttp import ClientPayloadError
        from fsspec.asyn import sync

        match = {"IfMatch": f'"{found.revision}"'} if found.revision else {}
        try:
            with self._errors(self._place.of(found.path)):
                for attempt in range(_BODY_ATTEMPTS):
                    reply = self._system.call_s3("get_object", Bucket=self._bucket, Key=found.key, **match)
                    try:
                        return bytes(sync(self._system.loop, _drained, reply["Body"], timeout=_SECONDS))
                    except ClientPayloadError:
                        if attempt + 1 == _BODY_ATTEMPTS:
                            raise
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise self._place.missing(error) from error
            raise Unreadable("it was removed while its source was being read") from error
        raise AssertionError  # The last attempt returns or raises.

    def _pages(self, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing; a page that fails is an error, never the end."""
        token: dict[str, str] = {}
        while True:
            try:
                with self._errors(self._place):
                    page: dict[str, Any] = self._system.call_s3(
                        "list_objects_v2", Bucket=self._bucket, Prefix=prefix, **more, **token
                    )
            except FileNotFoundError as error:
                raise self._place.missing(error) from error
            yield page
            if not page.get("IsTruncated"):
                return
            following = page.get("NextContinuationToken")
            if not following or following == token.get("ContinuationToken"):
                raise self._place.unavailable("its listing says that there is more, and does not say where")
            token = {"ContinuationToken": following}

    @contextmanager
    def _errors(self, place: Place) -> Iterator[None]:
        """Raise what botocore, aiohttp and s3fs raise as an error of ours; FileNotFoundError goes through."""
        from aiohttp import ClientError as NetworkError
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            ParamValidationError,
            PartialCredentialsError,
            ProfileNotFound,
        )
        from botocore.parsers import ResponseParserError

        try:
            yield
        except FileNotFoundError:
            raise
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
            raise place.denied(error) from error
        except ParamValidationError as error:
            raise place.wrong(error) from error
        except (OSError, ClientError) as error:
            raise _classified(place, error) from error
        except (BotoCoreError, NetworkError, ResponseParserError) as error:
            raise place.unavailable(error) from error


async def _drained(body: Any) -> bytes:
    """Return the bytes of a reply, as many as a document may have."""
    parts, size = [], 0
    async with body:
        while part := await body.read(1 << 20):
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES:
                raise Unreadable(
                    f"it has more than the {MAX_BYTES:,} bytes a document may have: split it", "too_large"
                )
    return b"".join(parts)


def _reply(error: BaseException) -> dict[str, Any]:
    """Return what botocore kept of the server's answer; s3fs raises other errors from botocore's."""
    return getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}


def _code(error: BaseException) -> str:
    return str(_reply(error).get("Error", {}).get("Code", ""))


def _classified(place: Place, error: Exception) -> Exception:
    """Return the error of ours for an answer of the server, or for a connection that has none."""
    code = _code(error)
    status = int(_reply(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "InvalidObjectState":
        return Unreadable("it is archived: restore it, or exclude it")
    if status == 412 or code == "PreconditionFailed":
        return place.unavailable("it changed while its source was being read")
    if code in _TRANSIENT_CODES or status in (0, 408, 409, 429) or status >= 500:
        return place.unavailable(error)
    if status in (401, 403) or isinstance(error, PermissionError):
        return place.denied(f"{code}: {error}")
    return place.wrong(f"{code}: {error}")


def _object(entry: Mapping[str, Any], prefix: str) -> StoredObject:
    kind = entry.get("StorageClass")
    return StoredObject(
        path=entry["Key"][len(prefix) :],
        key=entry["Key"],
        size=int(entry["Size"]),
        revision=str(entry.get("ETag") or "").strip('"') or None,
        changed=entry.get("LastModified"),
        problem=f"it is archived ({kind}): restore it, or exclude it" if kind in _ARCHIVED else None,
    )
