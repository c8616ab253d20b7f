"""Write docs/configuration.md from the models that read the configuration: ``--check`` only compares."""

from __future__ import annotations

import inspect
import sys
import typing
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from llmops.assistant import Assistant
from llmops.prices import Prices
from llmops.settings import Environment, Section

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

HEAD = """# Configuration

One file is an assistant: `include/assistants/<name>.yaml`. One file is an environment:
`include/environments/<name>.yaml`; `LLMOPS_ENV` chooses it, `dev` is the default. What stands under an
environment's `assistant_overrides` is laid over every assistant's file. In an environment's file, `${NAME}` and
`${NAME:-default}` are replaced by variables; a running local stack publishes the addresses its processes have.
A file of the same name under `.llmops/assistants/` is laid over the one in the repository; the demo puts there
what it was asked to try.

Unknown keys are refused. `llmops config check` reads every file and names what is wrong,
`llmops config show --env prod` prints what is in force, without secrets.

This page is generated from the code (`make docs`).
"""


def main() -> int:
    """Write the page, or compare it with the one there."""
    text = render()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") != text:
            print(f"{TARGET.name} differs from the code: run `make docs`", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text, encoding="utf-8")
    return 0


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    seen: set[type[BaseModel]] = set()
    for title, model in (("Assistant", Assistant), ("Environment", Environment), ("Prices", Prices)):
        queue: list[tuple[str, type[BaseModel]]] = [(title, model)]
        while queue:
            name, current = queue.pop(0)
            if current in seen:
                continue
            seen.add(current)
            parts.append(_section(name, current))
            for key, field in current.model_fields.items():
                queue += [
                    (f"{key}: {_kind(nested) or nested.__name__}", nested)
                    for nested in _models(field.annotation)
                ]
    return "\n".join(parts).replace("``", "`")


def _section(title: str, model: type[BaseModel]) -> str:
    lines = [
        f"## {title}",
        "",
        inspect.cleandoc(model.__doc__ or ""),
        "",
        "| key | value | default |",
        "|---|---|---|",
    ]
    for key, field in model.model_fields.items():
        if model is Assistant and key == "name":
            continue
        default = "*required*" if field.is_required() else _default(field)
        lines.append(f"| `{key}` | {_type(field.annotation, field.metadata)} | {default} |")
    return "\n".join([*lines, ""])


def _default(field: Any) -> str:
    value = field.default_factory() if field.default_factory else field.default
    if value is PydanticUndefined or value is None:
        return "none"
    if isinstance(value, BaseModel):
        return f"`kind: {kind}`" if (kind := getattr(value, "kind", None)) else "see below"
    if value == "":
        return "empty"
    return f"`{value!r}`" if not isinstance(value, str) else f"`{value}`"


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    values = get_args(field.annotation) if field else ()
    return str(values[0]) if values else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _type(annotation: Any, metadata: list[Any]) -> str:
    bounds = ", ".join(
        f"{sign} {value}"
        for constraint in metadata
        for sign, value in (
            ("≥", getattr(constraint, "ge", None)),
            (">", getattr(constraint, "gt", None)),
            ("≤", getattr(constraint, "le", None)),
            ("<", getattr(constraint, "lt", None)),
        )
        if value is not None
    )
    return _name(annotation) + (f" ({bounds})" if bounds else "")


def _name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], list(arguments[1:]))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        names = list(dict.fromkeys(_name(part) for part in arguments if part is not type(None)))
        return " or ".join(name for name in names if name)
    if origin in (list, tuple):
        return f"list of {_name(arguments[0])}" if arguments else ""
    if origin is not None and arguments and issubclass(origin, typing.Mapping):  # type: ignore[arg-type]
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"`kind: {kind}`" if (kind := _kind(annotation)) else "section below"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "`true` or `false`"}.get(
        getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation))
    )


if __name__ == "__main__":
    raise SystemExit(main())
