"""Questions to evaluate with: the file people write them in, its checks and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints, model_validator

from llmops.errors import ConfigurationError, MissingInput
from llmops.manifest import canonical_json, content_hash
from llmops.settings import Section, validate

__all__ = [
    "SLICES",
    "Case",
    "Slice",
    "case_digest",
    "case_text",
    "cases_digest",
    "digest_of",
    "load_cases",
    "save_cases",
]

Slice = Literal["how-to", "concept", "limits", "unanswerable"]
SLICES: tuple[Slice, ...] = get_args(Slice)

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
_Document = Annotated[
    str, StringConstraints(strip_whitespace=True, pattern=r"^[^:\s][^:]*:\S.*$", max_length=1000)
]


class Case(Section):
    """One question with what a right answer to it holds.

    ``expected_documents`` are the documents to be found, as ``source:path``; ``facts`` are short
    sentences that the answer must state. An ``unanswerable`` question has neither: the right answer to it
    is a refusal. ``synthetic`` marks a case that a program derived from the documents themselves.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    question: _Text
    expected_documents: tuple[_Document, ...] = ()
    facts: Annotated[tuple[_Text, ...], Field(max_length=20)] = ()
    slice: Slice
    synthetic: bool = False

    @model_validator(mode="after")
    def _agrees_with_its_slice(self) -> Case:
        if self.unanswerable and (self.expected_documents or self.facts):
            raise ValueError("an unanswerable question has no expected_documents and no facts")
        if not self.unanswerable and not self.expected_documents:
            raise ValueError("a question without expected_documents belongs into the slice 'unanswerable'")
        for name in ("expected_documents", "facts"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names something twice")
        return self

    @property
    def unanswerable(self) -> bool:
        """Return whether the right answer is a refusal."""
        return self.slice == "unanswerable"


def load_cases(path: Path) -> list[Case]:
    """Return the cases of a JSONL file, one object per line, in file order.

    Raises ConfigurationError with file and line for an unknown key, a wrong value, or an id or question
    that occurs twice, and MissingInput when there is no such file or no case in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise MissingInput(
            f"no evaluation cases: {path} does not exist; "
            "`llmops evaluate cases export` writes a first set to edit"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as UTF-8 text: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise MissingInput(f"{path} holds no case: write one JSON object per line")
    cases = [_parse(path, number, line) for number, line in numbered]
    _refuse_duplicates(path, [(number, case) for (number, _), case in zip(numbered, cases, strict=True)])
    return cases


def save_cases(cases: Iterable[Case], path: Path) -> None:
    """Write cases as the JSONL file that ``load_cases`` reads."""
    text = "".join(json.dumps(case.model_dump(mode="json"), ensure_ascii=False) + "\n" for case in cases)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def case_text(case: Case) -> str:
    """Return a case as the canonical JSON whose sha-256 is its digest."""
    return canonical_json({"kind": "case", **case.model_dump(mode="json")})


def case_digest(case: Case) -> str:
    """Return the sha-256 of one case: 64 hexadecimal digits."""
    return hashlib.sha256(case_text(case).encode()).hexdigest()


def cases_digest(cases: Sequence[Case]) -> str:
    """Return the sha-256 of a set of cases, whatever their order: 64 hexadecimal digits."""
    return digest_of([case_digest(case) for case in cases])


def digest_of(digests: Sequence[str]) -> str:
    """Return the digest of the set of cases that have these digests; the cases need not be at hand."""
    return content_hash(sorted(digests))


def _parse(path: Path, number: int, line: str) -> Case:
    place = Path(f"{path}:{number}")
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{place}: not JSON: {error}; write one object per line") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{place}: a case is a JSON object, found {type(values).__name__}")
    return validate(Case, values, place)


def _refuse_duplicates(path: Path, numbered: Sequence[tuple[int, Case]]) -> None:
    ids: dict[str, int] = {}
    questions: dict[str, int] = {}
    for number, case in numbered:
        question = " ".join(case.question.casefold().split())
        for kind, value, seen in (("id", case.id, ids), ("question", question, questions)):
            if value in seen:
                raise ConfigurationError(
                    f"{path}:{number}: the {kind} {value!r} is already in line {seen[value]}: "
                    "each case counts once, remove or change one of the two"
                )
            seen[value] = number
