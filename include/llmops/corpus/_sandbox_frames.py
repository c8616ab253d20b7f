"""Values between a process and its jailed child: JSON, with texts and bytes beside it; never code."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["EXIT_MEMORY", "BrokenFrame", "FrameTooLarge", "Frames", "pack", "unpack"]

EXIT_MEMORY = 77
"""The exit status of a worker that had no memory left even to say so."""

_HEAD = struct.Struct("!QI")  # bytes after the head, number of parts
_TEXT, _BYTES = "\0text", "\0bytes"
_SHORT = 256
_SLACK = 1 << 16


class BrokenFrame(ValueError):
    """Bytes that are no frame, or the announcement of one above the limit."""


class FrameTooLarge(ValueError):
    """A value above the limit."""


def pack(value: Any, limit: int | None = None) -> bytes:
    """Return a value as one frame; dataclasses become mappings, tuples lists.

    With a ``limit``, which is for answers, text must be valid: half a character that came from a hostile file
    would fail whoever stores it. Raises TypeError for a value of any other type than JSON has, bytes aside,
    UnicodeEncodeError and FrameTooLarge.
    """
    texts: list[bytes] = []
    plain = _plain(value, texts, _errors(limit))
    parts = [json.dumps(plain, ensure_ascii=False).encode("utf-8", _errors(limit)), *texts]
    size = sum(map(len, parts))
    if limit is not None and (size > limit or len(parts[0]) > _json_limit(limit)):
        raise FrameTooLarge(f"{size} bytes")
    table = struct.pack(f"!{len(parts)}Q", *map(len, parts))
    return b"".join([_HEAD.pack(len(table) + size, len(parts)), table, *parts])


def _plain(value: Any, texts: list[bytes], errors: str) -> Any:
    """Return a value as JSON has it, with its long texts and its bytes moved to ``texts``."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        if len(value) <= _SHORT:
            return value
        texts.append(value.encode("utf-8", errors))
        return {_TEXT: len(texts)}
    if isinstance(value, bytes):
        texts.append(value)
        return {_BYTES: len(texts)}
    if isinstance(value, list | tuple):
        return [_plain(item, texts, errors) for item in value]
    if isinstance(value, dict):
        return {_key(key): _plain(item, texts, errors) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), texts, errors) for field in fields(value)}
    raise TypeError(
        f"a {type(value).__name__} cannot cross the wall of the sandbox: use what JSON has, or bytes"
    )


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} cannot cross the wall of the sandbox: use text")
    return key


def unpack(body: memoryview, number: int, limit: int | None = None) -> Any:
    """Return the value in a frame without its head; raises BrokenFrame, whatever the bytes are."""
    try:
        sizes = struct.unpack_from(f"!{number}Q", body)
        if len(body) != 8 * number + sum(sizes):
            raise BrokenFrame("its parts are not as long as it says")
        if limit is not None and sizes[0] > _json_limit(limit):
            raise BrokenFrame("its JSON is too long")
        parts: dict[int, bytes] = {}
        at = 8 * number
        for place, size in enumerate(sizes):
            parts[place] = bytes(body[at : at + size])
            at += size
        tree = parts.pop(0).decode("utf-8", _errors(limit))
        if limit is not None and "\\ud" in tree.lower():  # half a character, or the words for it
            json.dumps(json.loads(tree), ensure_ascii=False).encode("utf-8")
        return json.loads(tree, object_hook=lambda found: _whole(found, parts, _errors(limit)))
    except (ValueError, TypeError, KeyError, RecursionError, struct.error) as error:
        raise BrokenFrame(type(error).__name__) from error


def _errors(limit: int | None) -> str:
    return "surrogatepass" if limit is None else "strict"


def _whole(found: dict[str, Any], parts: dict[int, bytes], errors: str) -> Any:
    """Put a text or bytes back in the place of what stands for it: once, or a few bytes would fill memory."""
    if len(found) != 1:
        return found
    (key, at) = next(iter(found.items()))
    if key == _TEXT:
        return parts.pop(at).decode("utf-8", errors)
    return parts.pop(at) if key == _BYTES else found


def _json_limit(limit: int) -> int:
    """Return how much JSON a frame may have: as objects it takes far more room, so long texts stay outside."""
    return max(limit // 4, _SLACK)


class Frames:
    """What came through a pipe, cut into frames; ``limit`` is the most bytes that one may have."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Any, int]]:
        """Yield the values that are whole now, each with its size in bytes; raises BrokenFrame."""
        self._held += data
        while len(self._held) >= _HEAD.size:
            size, number = _HEAD.unpack_from(self._held)
            if not 1 <= number <= size // 8:
                raise BrokenFrame("it has no parts")
            self._check(size, number)
            if len(self._held) < _HEAD.size + size:
                return
            with memoryview(self._held) as held, held[_HEAD.size : _HEAD.size + size] as body:
                value = unpack(body, number, self._limit)
            del self._held[: _HEAD.size + size]
            yield value, size

    def _check(self, size: int, number: int) -> None:
        """Refuse a frame above the limit before its bytes are taken in."""
        if self._limit is None:
            return
        if size - 8 * number > self._limit + _SLACK:
            raise BrokenFrame(f"{size} bytes")
        if number > self._limit // _SHORT + _SLACK:
            raise BrokenFrame(f"{number} parts")
