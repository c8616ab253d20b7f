"""What an endpoint sent, as a model or as an error that says what is wrong with it."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Wire", "WireError", "parse"]

WireT = TypeVar("WireT", bound=BaseModel)


class WireError(Exception):
    """An endpoint sent something that is not the protocol; the message says what."""


class Wire(BaseModel):
    """Base of what an endpoint sends: servers add keys of their own, which nobody reads."""

    model_config = ConfigDict(extra="ignore")


def parse(model: type[WireT], text: str | bytes) -> WireT:
    """Return JSON as ``model``; raise WireError when it is not."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise WireError(f"{place}: {first['msg']}") from error
