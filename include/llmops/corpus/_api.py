"""The public API of one installed package, read from its files with griffe and written as Markdown."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.corpus._docstrings import docstring_markdown
from llmops.errors import MissingInput

if TYPE_CHECKING:
    import griffe

__all__ = ["Api", "Document"]

_NOT_API = {"tests", "test", "example_dags", "conftest", "__main__"}
_MAX_SIGNATURE = 88


@dataclass(frozen=True)
class Document:
    """One document about a package: its path within the source, and its Markdown."""

    path: str
    text: str


@dataclass
class Api:
    """The public modules, classes and functions of a package.

    Public is what ``__all__`` lists or, where a module has none, what it defines under a name without
    a leading underscore; a package's ``__init__`` also publishes what it takes from its own modules.
    A thing that can be reached under several names is documented once, under the shortest.
    """

    package: str
    folder: Path
    _modules: dict[str, griffe.Module | None] = field(default_factory=dict)

    @classmethod
    def of(cls, package: str) -> Api:
        """Find an installed package without importing it; raises MissingInput when there is none."""
        parts = package.split(".")
        for root in map(Path, sys.path):
            folder = root.joinpath(*parts)
            if all(part.isidentifier() for part in parts) and (folder / "__init__.py").is_file():
                return cls(package, folder)
        raise MissingInput(
            f"package {package!r} is not installed (looked for {'/'.join(parts)}/__init__.py on the path): "
            "install it, or take it out of the source's `packages`"
        )

    def documents(self, wanted: Callable[[str], bool] = lambda path: True) -> Iterator[Document]:
        """Yield a document for every public module and class that has any docstring, sorted by name.

        ``wanted`` is asked with each qualified name before anything is written about it.
        """
        owners = self._owners()
        for module_name, members in sorted(owners.items()):
            module = self._module(module_name)
            if module is None:
                continue
            classes = {name: obj for name, obj in members.items() if obj.is_class}
            others = {name: obj for name, obj in members.items() if not obj.is_class}
            if wanted(module_name):
                yield from self._document(module_name, module, others)
            for name, obj in sorted(classes.items()):
                if wanted(f"{module_name}.{name}"):
                    yield from self._class_documents(f"{module_name}.{name}", obj, module)

    def _class_documents(self, path: str, obj: griffe.Class, module: griffe.Module) -> Iterator[Document]:
        members = self._class_members(obj)
        nested = {name: member for name, member in members.items() if member.is_class}
        yield from self._document(path, obj, {k: v for k, v in members.items() if k not in nested}, module)
        for name, member in sorted(nested.items()):
            yield from self._class_documents(f"{path}.{name}", member, module)

    def _document(
        self, path: str, obj: Any, members: dict[str, Any], module: griffe.Module | None = None
    ) -> Iterator[Document]:
        sections = [s for name, m in sorted(members.items()) if (s := _member(f"{path}.{name}", m))]
        own = docstring_markdown(obj.docstring) if obj.docstring else ""
        if not own and not sections:
            return
        if not own and module is not None and (home := self._module(obj.module.path)) and home.docstring:
            own = docstring_markdown(home.docstring)
        lead = [f"# {path}", _signature(path, obj) if obj.is_class else "", own]
        yield Document(path, "\n\n".join(filter(None, [*lead, *sections])) + "\n")

    def _owners(self) -> dict[str, dict[str, Any]]:
        """Return, per public module, the members documented there."""
        best: dict[str, tuple[int, str, str, Any]] = {}
        modules = list(self._public_modules())
        for module_name in modules:
            for name, obj in self._public_members(module_name):
                rank = (module_name.count("."), module_name, name, obj)
                if obj.path not in best or rank[:3] < best[obj.path][:3]:
                    best[obj.path] = rank
        owners: dict[str, dict[str, Any]] = {name: {} for name in modules}
        for _, module_name, name, obj in best.values():
            owners[module_name][name] = obj
        return owners

    def _public_modules(self) -> Iterator[str]:
        for file in sorted(self.folder.rglob("*.py")):
            parts = file.relative_to(self.folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part.startswith("_") or part in _NOT_API for part in parts):
                yield ".".join([self.package, *parts])

    def _public_members(self, module_name: str) -> Iterator[tuple[str, Any]]:
        module = self._module(module_name)
        if module is None:
            return
        listed = {name for name in module.exports or () if isinstance(name, str)}
        for name, member in sorted(module.members.items()):
            if listed:
                public = name in listed
            else:
                public = not name.startswith("_") and (not member.is_alias or module.is_init_module)
            target = self._resolve(member) if public else None
            if target is not None and not target.is_module:
                yield name, target

    def _class_members(self, obj: griffe.Class) -> dict[str, Any]:
        """Return a class's public members, with those it inherits from classes nobody documents."""
        members: dict[str, Any] = {}
        for base in obj.bases:
            target = self._resolve_name(str(base).split("[")[0], obj)
            if target is not None and target.is_class and target is not obj and _is_private(target.path):
                members.update(self._class_members(target))
        for name, member in obj.members.items():
            if not name.startswith("_") and (target := self._resolve(member)) is not None:
                members[name] = target
        return members

    def _resolve(self, member: Any, hops: int = 8) -> Any | None:
        """Follow imports within the package to the object itself; None when they lead elsewhere."""
        while member is not None and member.is_alias:
            hops -= 1
            member = self._lookup(member.target_path) if hops else None
        return member

    def _resolve_name(self, name: str, scope: griffe.Class) -> Any | None:
        module = self._module(scope.module.path)
        head, _, rest = name.partition(".")
        if module is None or rest or head not in module.members:
            return None
        return self._resolve(module.members[head])

    def _lookup(self, path: str) -> Any | None:
        if not path.startswith(f"{self.package}."):
            return self._module(path) if path == self.package else None
        parent, _, name = path.rpartition(".")
        module = self._module(parent)
        if module is not None and name in module.members:
            return module.members[name]
        return self._module(path)

    def _module(self, path: str) -> griffe.Module | None:
        """Return a module of this package, read when first asked for; None when there is no such file."""
        if path not in self._modules:
            self._modules[path] = self._visit(path)
        return self._modules[path]

    def _visit(self, path: str) -> griffe.Module | None:
        import griffe

        logging.getLogger("griffe").setLevel(logging.CRITICAL)
        stem = self.folder.joinpath(*path.split(".")[self.package.count(".") + 1 :])
        for file in (
            stem / "__init__.py",
            stem.with_suffix(".py"),
            stem / "__init__.pyi",
            stem.with_suffix(".pyi"),
        ):
            if file.is_file():
                return griffe.visit(path, filepath=file, code=file.read_text(encoding="utf-8"))
        return None


def _is_private(path: str) -> bool:
    return any(part.startswith("_") for part in path.split("."))


def _member(path: str, obj: Any) -> str:
    """Return a documented member as a section: heading, signature, docstring; empty without docstring."""
    if not obj.docstring or not (text := docstring_markdown(obj.docstring)):
        return ""
    return "\n\n".join([f"## {path}", _signature(path, obj), text])


def _signature(path: str, obj: Any) -> str:
    name = path.rsplit(".", 1)[-1]
    if obj.is_class:
        maker = obj.members.get("__init__")
        if maker is None or not maker.is_function:
            return _code(f"class {name}({', '.join(map(str, obj.bases))})".replace("()", ""))
        keyword, parameters, ending = "class ", maker.parameters, ""
    elif obj.is_function:
        keyword = "async def " if "async" in obj.labels else "def "
        parameters = obj.parameters
        ending = f" -> {obj.returns}" if obj.returns else ""
    else:
        annotation = f": {obj.annotation}" if obj.annotation else ""
        return _code(f"{name}{annotation}")
    shown = list(_parameters(parameters))
    line = f"{keyword}{name}({', '.join(shown)}){ending}"
    if len(line) > _MAX_SIGNATURE:
        line = f"{keyword}{name}(\n" + "".join(f"    {item},\n" for item in shown) + f"){ending}"
    return _code(line)


def _parameters(parameters: Any) -> Iterator[str]:
    """Yield parameters as they are written in code, without ``self``."""
    marker = False
    for parameter in parameters:
        kind = parameter.kind.name if parameter.kind else ""
        if parameter.name in ("self", "cls") and not marker:
            continue
        if kind == "keyword_only" and not marker:
            marker = True
            yield "*"
        prefix = {"var_positional": "*", "var_keyword": "**"}.get(kind, "")
        marker = marker or kind == "var_positional"
        text = f"{prefix}{parameter.name}"
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None and not prefix:
            text += f" = {parameter.default}" if parameter.annotation is not None else f"={parameter.default}"
        yield text


def _code(line: str) -> str:
    return f"```python\n{line}\n```"
