"""A gate report as Markdown for people: what came from documents, questions or errors cannot act in it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llmops.evaluation._cases import SLICES

__all__ = ["escape", "render"]

MOST_EXAMPLES = 5
_PUNCTUATION = re.compile(r"([!\"#$%'()*+,\-./:;=?@\[\\\]^_`{|}~])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKS = {
    "pass": "✓ pass",
    "fail": "✗ **fail**",
    "inconclusive": "? **inconclusive**",
    "missing": "– **missing**",
}
_SAYS = {
    "PASS": "every rule passed.",
    "FAIL": "at least one rule failed.",
    "INCOMPLETE": "no rule failed, but at least one could not be decided. This is not a pass.",
}


def escape(text: str, longest: int = 120) -> str:
    """Return foreign text as one harmless line of Markdown.

    Control, format and other invisible characters (terminal escapes, bidirectional overrides) go away,
    every mark that Markdown, HTML, autolinks or a spreadsheet could act on is escaped, and what is longer
    than ``longest`` characters is cut.
    """
    visible = "".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    line = " ".join(visible.split())
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    escaped = _PUNCTUATION.sub(r"\\\1", line)
    return re.sub("[&<>]", lambda mark: _ENTITIES[mark[0]], escaped)


def render(content: Mapping[str, Any], report_hash: str, texts: Mapping[str, str]) -> str:
    """Return the page of one report, given its content, its hash and the texts that are at hand, by digest."""
    baseline = content["baseline"]
    beside = {None: "no baseline", "production": "production", "keyword": "keyword baseline"}[
        baseline["kind"] if baseline else None
    ]
    parts = [
        f"## {content['verdict']}: {_says(content)}",
        _introduction(content),
        *_warnings(content, texts),
        "### Rules",
        _table(["rule", "outcome", "reason"], map(_rule_row, content["outcomes"])),
        *_notes(content),
        f"### {beside.capitalize()} → candidate",
        _figures(content["figures"]),
        *_examples(content, texts),
        _origin(content, report_hash),
    ]
    return "\n\n".join(parts) + "\n"


def _says(content: Mapping[str, Any]) -> str:
    if not content["gate"]["dry_run"]:
        return _SAYS[content["verdict"]]
    undone = any(r["outcome"] in ("fail", "missing", "inconclusive") for r in content["outcomes"])
    found = "see the rules below" if undone else "every rule passed, and even so this is not a pass"
    return f"**this is a dry run** (`dry_run: true` in the gate's section): {found}."


def _introduction(content: Mapping[str, Any]) -> str:
    cases, baseline = content["cases"], content["baseline"]
    slices = ", ".join(f"{count} {name}" for name, count in cases["slices"].items() if count)
    against = f"`{_code(baseline['label'])}`" if baseline else "nothing: there is no baseline"
    release = content["context"].get("release_id") or content["candidate"]["label"]
    return f"Candidate `{_code(str(release))}` against {against}, on {cases['count']} questions ({slices})."


def _warnings(content: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    cases = content["cases"]
    if cases["synthetic"]:
        yield (
            f"**{cases['synthetic']} of {cases['count']} questions are synthetic**: a program derived them "
            "from the headings of the documents. They show that retrieval works, not that people get good "
            "answers."
        )
    for side in ("candidate", "baseline"):
        measured = [(r["id"], r[side]) for r in content["results"] if r[side]]
        failed = [(key, found) for key, found in measured if found["error"] is not None]
        if failed:
            listed = [
                f"- {escape(key)}: {escape(_error(found, texts))}" for key, found in failed[:MOST_EXAMPLES]
            ]
            more = f"\n- and {len(failed) - MOST_EXAMPLES} more" if len(failed) > MOST_EXAMPLES else ""
            yield f"**{len(failed)} questions were not measured ({side}):**\n\n" + "\n".join(listed) + more


def _error(found: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """Return what went wrong with one question: in full where the text is at hand, else its kind."""
    text = texts.get(found["output"] or "")
    return str((text and json.loads(text)["error"]) or found["error"])


def _question(digest: str, texts: Mapping[str, str]) -> str:
    """Return the question of a case as one line of Markdown."""
    return escape(json.loads(texts[digest])["question"]) if digest in texts else "*erased*"


def _rule_row(result: Mapping[str, Any]) -> list[str]:
    return [f"`{result['rule']}`", _MARKS[result["outcome"]], result["reason"].replace("|", "\\|")]


def _notes(content: Mapping[str, Any]) -> Iterator[str]:
    gate = content["gate"]
    powers = [
        f"{r['rule']}: {r['smallest_loss']:.3f} on {r['pairs']} questions"
        for r in content["outcomes"]
        if r["smallest_loss"] is not None
    ]
    if powers:
        yield (
            f"Bounds in brackets hold with {gate['confidence']:.0%} confidence on each side. Smallest loss "
            f"that these questions can exclude at {gate['power']:.0%} power: {'; '.join(powers)}."
        )
    if content["skipped"]:
        yield f"Not applied, since they compare with another baseline: {', '.join(content['skipped'])}."


def _figures(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return one row per metric: all questions, then each slice."""
    names = [None, *(name for name in SLICES if any(f["slice"] == name for f in figures))]
    cells = {(f["metric"], f["slice"]): f for f in figures}
    metrics = list(dict.fromkeys(f["metric"] for f in figures))
    rows = ([f"`{metric}`", *(_figure(cells.get((metric, name))) for name in names)] for metric in metrics)
    return _table(["metric", *(name or "all" for name in names)], rows)


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    sides = ["missing" if figure[s] is None else f"{figure[s]:.3f}" for s in ("baseline", "candidate")]
    lost = f" ({figure['missing']} missing)" if figure["missing"] else ""
    return (" → ".join(sides) if figure["baseline"] is not None else sides[1]) + lost


def _examples(content: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the questions whose quality fell and rose most."""
    changed = [
        (r["candidate"]["scores"]["quality"] - r["baseline"]["scores"]["quality"], r["id"], r["case"])
        for r in content["results"]
        if r["baseline"] and all("quality" in r[side]["scores"] for side in ("candidate", "baseline"))
    ]
    for title, chosen in (
        ("Questions answered worse", sorted(c for c in changed if c[0] < 0)),
        ("Questions answered better", sorted((c for c in changed if c[0] > 0), key=lambda c: (-c[0], c[1]))),
    ):
        if chosen:
            shown = chosen[:MOST_EXAMPLES]
            yield f"### {title}: {len(chosen)}"
            yield _table(
                ["case", "question", "quality"],
                ([escape(key), _question(case, texts), f"{change:+.2f}"] for change, key, case in shown),
            )


def _origin(content: Mapping[str, Any], report_hash: str) -> str:
    """Return what the decision stands on, by digest and by what the caller said."""
    named = {
        "report": report_hash,
        "cases": content["cases"]["digest"],
        "gate": content["gate"]["digest"],
        **{key: value for key, value in content["context"].items() if key != "release_id"},
    }
    return ", ".join(f"{_code(key)} `{_code(str(value))}`" for key, value in named.items()) + "."


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _code(label: str) -> str:
    """Return a label that cannot leave its code span."""
    return re.sub(r"[^\w .:/-]", "", label)[:80]
