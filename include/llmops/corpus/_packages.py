"""Documents from installed Python packages: their README and the docstrings of their public API."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from llmops.corpus._api import Api, Document
from llmops.corpus._files import Snapshot, SourceFile, SourceSettings
from llmops.corpus._rst import rst_to_markdown
from llmops.errors import MissingInput

if TYPE_CHECKING:
    from llmops.corpus._sandbox import Sandbox

__all__ = ["PackagesSource"]

log = logging.getLogger(__name__)


class PackagesSource(SourceSettings):
    """Installed packages, read statically: nothing of them is imported or run.

    ``packages`` are import names, such as ``psycopg_pool`` or ``airflow.sdk``; ``exclude`` has
    patterns of qualified names to leave out, such as ``airflow.sdk.execution_time*``. What comes out
    depends on the installed versions only, whatever the date.
    """

    kind: Literal["packages"]
    packages: list[str] = Field(min_length=1)
    exclude: list[str] = Field(default=[])

    def discover(
        self, as_of: datetime, *, pin: str | None = None, sandbox: Sandbox | None = None
    ) -> Snapshot:
        """Return one Markdown file per public module or class, and the README of each distribution.

        Raises MissingInput when a package is not installed.
        """
        apis = [Api.of(package) for package in sorted(set(self.packages))]
        return Snapshot(as_of, self._files(apis, _distributions([api.package for api in apis])))

    def _files(
        self, apis: list[Api], distributions: dict[str, metadata.Distribution]
    ) -> Iterator[SourceFile]:
        seen: set[str] = set()
        for api in apis:
            distribution = distributions[api.package]
            details = {
                "package": api.package,
                "distribution": distribution.name,
                "release": distribution.version,
            }
            for document in [*_readme(distribution), *api.documents(self._wants)]:
                if document.path not in seen and self._wants(document.path):
                    seen.add(document.path)
                    yield _file(document, details)

    def _wants(self, path: str) -> bool:
        return not any(fnmatchcase(path, pattern) for pattern in self.exclude)


def _file(document: Document, details: dict[str, str]) -> SourceFile:
    content = document.text.encode()
    return SourceFile(
        path=document.path,
        size=len(content),
        read=lambda: content,
        media_type="text/markdown",
        metadata=details,
    )


def _readme(distribution: metadata.Distribution) -> Iterator[Document]:
    """Yield the long description that the installed metadata carries, as Markdown."""
    message = distribution.metadata
    body = str(message.get_payload()).strip() if hasattr(message, "get_payload") else ""
    body = body or str(message["Description"] or "")
    if not body.strip():
        return
    kind = str(message["Description-Content-Type"] or "text/x-rst").split(";")[0].strip()
    text = body if kind == "text/markdown" else rst_to_markdown(body) if kind == "text/x-rst" else body
    title = f"{_canonical(distribution.name)} README"
    if not text.lstrip().startswith("# "):
        text = f"# {title}\n\n{text}"
    yield Document(f"{_canonical(distribution.name)}/README", text.strip() + "\n")


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _distributions(packages: list[str]) -> dict[str, metadata.Distribution]:
    """Return the installed distribution that each package's files belong to."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        record = f"\n{distribution.read_text('RECORD') or ''}"
        for package in packages:
            if f"\n{package.replace('.', '/')}/__init__.py," in record:
                found.setdefault(package, distribution)
    for package in packages:
        if package not in found:
            raise MissingInput(
                f"package {package!r} belongs to no installed distribution: "
                "install it, or take it out of the source's `packages`"
            )
    return found
