"""``llmops gate``: decide again, say what the questions can tell, and try the gate on candidates of known worth."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from llmops.errors import ConfigurationError, IntegrityError, MissingInput
from llmops.settings import load_environment

if TYPE_CHECKING:
    from llmops.evaluation import GateReport, GateRules, Replay, SelfTest
    from llmops.release import GateText

_ASSISTANT = "library_guide"
_NAMES = 3
"""How many of the places that have the same text are named."""

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """Check the gate itself."""


@command.command("replay")
@click.argument("report_hash")
@_JSON
def replay_command(report_hash: str, as_json: bool) -> None:
    """Decide a stored report again (its hash or the beginning), and say what differs.

    It needs Postgres and nothing else. Every text that the report names is checked against its digest. The exit
    code is 1 when a text or any outcome differs. That the code is another one by now is said, and no fault.
    """
    from llmops.evaluation import replay
    from llmops.release import find_report, read_gate_texts

    url = load_environment().database_url.get_secret_value()
    report = _report(url, find_report(url, report_hash))
    texts = read_gate_texts(url, report.digests())
    found = replay(report)
    if as_json:
        click.echo(json.dumps(_replay_json(found, texts), indent=2))
    else:
        for line in _replay_lines(found, texts):
            click.echo(line)
    sys.exit(0 if found.equal else 1)


@command.command("power")
@click.option("--assistant", default=_ASSISTANT, show_default=True, help="Name of the assistant.")
@_JSON
def power_command(assistant: str, as_json: bool) -> None:
    """Say for every rule that compares which loss the questions can exclude, by the report of production."""
    from llmops.assistant import load_assistant
    from llmops.release import power_in_production

    environment = load_environment()
    rules = load_assistant(assistant, environment).gate
    powers = power_in_production(environment.database_url.get_secret_value(), assistant, rules)
    if as_json:
        found = [{**dataclasses.asdict(power), "enough": power.enough} for power in powers or ()]
        click.echo(
            json.dumps({"assistant": assistant, "known": powers is not None, "rules": found}, indent=2)
        )
    elif powers is None:
        click.echo(
            f"No report of a release of {assistant!r} in production yet: its scores say how much the questions "
            "can tell. Run release_assistant and approve a first release."
        )
    else:
        for power in powers:
            click.echo(str(power))
        if not powers:
            click.echo("No rule compares with production.")


@command.command("self-test")
@click.option("--assistant", help=f"Try the report of its release in production.  [default: {_ASSISTANT}]")
@click.option("--report", "report_hash", help="Try this report instead: its hash or the beginning.")
@click.option("--runs", type=click.IntRange(100, 100_000), default=1_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed draws other questions.")
@click.option("--worse", is_flag=True, help="Make the candidate that should pass worse too: must exit 1.")
@_JSON
def self_test_command(
    assistant: str | None, report_hash: str | None, runs: int, seed: int, worse: bool, as_json: bool
) -> None:
    """Try the gate on simulated candidates: how often it blocks an equal one and passes one that is worse.

    They are made from the scores of a stored report, by its own rules. The exit code is 0 when both rates are
    what the file declares (false blocks: 1 - power; false passes: 1 - confidence), else 1.
    """
    from llmops.evaluation import GateRules, self_test

    report = _chosen(assistant, report_hash)
    if not report.replayable:
        raise IntegrityError(
            f"report {report.report_hash[:12]} has a layout that this version does not read: decide again with "
            "release_assistant"
        )
    settings = {key: value for key, value in report.content["gate"].items() if key != "digest"}
    rules = GateRules.model_validate(settings)
    found = self_test(rules, report.sides()[0], runs=runs, seed=seed, worse=worse)
    if as_json:
        click.echo(json.dumps(_self_test_json(report, found, seed, worse=worse), indent=2))
    else:
        for line in _self_test_lines(report, rules, found):
            click.echo(line)
    sys.exit(0 if found.holds else 1)


@command.command("erase")
@click.argument("report_hash")
@click.option(
    "--case",
    "cases",
    multiple=True,
    help="Erase the question of this case and both answers; may be repeated.",
)
@click.option(
    "--digest",
    "digests",
    multiple=True,
    help="Erase one text that the report names: its digest or the beginning; may be repeated.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase_command(report_hash: str, cases: tuple[str, ...], digests: tuple[str, ...], yes: bool) -> None:
    """Erase questions and answers of a report (its hash or the beginning) for good.

    Scores and digests stay, so the report keeps its hash and is decided again as before. A text that several cases or
    reports have word for word is erased in all of them. Doing it again changes nothing.
    """
    from llmops.release import erase_gate_text, find_report, report_texts

    if not cases and not digests:
        raise click.UsageError("name what to erase: --case or --digest")
    url = load_environment().database_url.get_secret_value()
    report = _report(url, find_report(url, report_hash))
    named = _named_texts(report)
    chosen = _texts_of(report, named, cases, digests)
    stored = report_texts(url, chosen)
    left = [digest for digest in chosen if stored.get(digest) is not None]
    for digest in chosen:
        gone = ": erased already" if digest in stored else ": not in the database"
        click.echo(f"  {digest[:12]}  {named[digest]}{'' if digest in left else gone}")
    if left:
        for line in _warnings(url, left):
            click.echo(line, err=True)
        if not yes:
            click.confirm(f"Erase {_count(len(left), 'text')} for good?", abort=True)
        for digest in left:
            erase_gate_text(url, digest)
    erased = {digest for digest, text in report_texts(url, report.digests()).items() if text is None}
    click.echo(
        f"{_count(len(left), 'text')} erased. {_erased(erased, report)} of {len(report.content['results'])} cases of "
        f"report {report.report_hash[:12]} are erased; `llmops gate replay {report.report_hash[:12]}` still decides "
        "it, from the stored scores."
    )


def _named_texts(report: GateReport) -> dict[str, str]:
    """Return what each text of a report is, by digest; the same words may be the answer to several questions."""
    found: dict[str, list[str]] = {}
    for result in report.content["results"]:
        found.setdefault(result["case"], []).append(f"the question of {result['id']}")
        for side in ("candidate", "baseline"):
            if result[side] and result[side]["output"]:
                whose = f"the {side}'s answer to {result['id']}"
                found.setdefault(result[side]["output"], []).append(whose)
    return {
        digest: ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if names[_NAMES:] else "")
        for digest, names in found.items()
    }


def _texts_of(
    report: GateReport, named: dict[str, str], cases: tuple[str, ...], digests: tuple[str, ...]
) -> list[str]:
    """Return the digests of the texts of cases, and those that begin as given; raise MissingInput for unknown ones."""
    results = {result["id"]: result for result in report.content["results"]}
    where = f"report {report.report_hash[:12]}"
    chosen: list[str | None] = []
    for case in cases:
        if case not in results:
            raise MissingInput(f"{where} has no case {case!r}: its page on the release board names its cases")
        result = results[case]
        chosen += [result["case"], *(result[s]["output"] for s in ("candidate", "baseline") if result[s])]
    for beginning in digests:
        fitting = [digest for digest in named if digest.startswith(beginning)]
        if len(fitting) != 1:
            raise MissingInput(
                f"{beginning!r} fits {'several texts' if fitting else 'no text'} of {where}: it names each by 64 "
                "hexadecimal digits, `--case` takes the texts of a whole case"
            )
        chosen += fitting
    return list(dict.fromkeys(digest for digest in chosen if digest))


def _warnings(url: str, digests: list[str]) -> Iterator[str]:
    """Say where else erasing shows: on pages of other reports, and of those that people are asked about now."""
    from llmops.release import reports_naming

    reports = reports_naming(url, digests)
    yield f"{_count(len(reports), 'report')} name{'s' if len(reports) == 1 else ''} a text of these."
    for report in reports:
        if report.awaited:
            yield (
                f"Warning: release {report.release_id[:12]} waits for an approval on report {report.report_hash[:12]}. "
                "If the page that approvers see shows a text of these, their answer will be a rejection, since the "
                "page is another one by then: run release_assistant again after it."
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _report(url: str, report_hash: str) -> GateReport:
    from llmops.evaluation import GateReport
    from llmops.release import read_report

    return GateReport.parse(read_report(url, report_hash).report, report_hash)


def _chosen(assistant: str | None, report_hash: str | None) -> GateReport:
    from llmops.evaluation import GateReport
    from llmops.release import find_report, production_report

    if assistant and report_hash:
        raise ConfigurationError("--assistant and --report exclude each other: name one of them")
    url = load_environment().database_url.get_secret_value()
    if report_hash:
        return _report(url, find_report(url, report_hash))
    name = assistant or _ASSISTANT
    stored = production_report(url, name)
    if stored is None:
        raise MissingInput(
            f"assistant {name!r} has no release in production with a report: run release_assistant, or name "
            "another report with --report"
        )
    return GateReport.parse(stored.report, stored.report_hash)


def _gone(texts: dict[str, GateText]) -> set[str]:
    return {digest for digest, text in texts.items() if text.content is None}


def _erased(gone: set[str], report: GateReport) -> int:
    """Return how many cases have lost their question or an answer."""
    return sum(
        not gone.isdisjoint(
            [r["case"], *(r[side]["output"] for side in ("candidate", "baseline") if r[side])]
        )
        for r in report.content["results"]
    )


def _other_code(report: GateReport) -> bool:
    """Return whether the report was made by other code than is installed."""
    from llmops.release import code_digest

    return bool(report.content["context"].get("code_digest") != code_digest())


def _replay_json(found: Replay, texts: dict[str, GateText]) -> dict[str, Any]:
    return {
        "report_hash": found.report.report_hash,
        "verdict": found.report.verdict,
        "equal": found.equal,
        "rules": [{"rule": rule.rule, "differences": list(rule.differences)} for rule in found.rules],
        "differences": list(found.differences),
        "texts": len(texts),
        "cases": len(found.report.content["results"]),
        "erased_cases": _erased(_gone(texts), found.report),
        "other_code": _other_code(found.report),
    }


def _replay_lines(found: Replay, texts: dict[str, GateText]) -> Iterator[str]:
    report = found.report
    yield f"report {report.report_hash}: {report.verdict}"
    for rule in found.rules:
        outcome = rule.reported.outcome if rule.reported else "absent"
        yield f"{'✗' if rule.differences else '✓'} {rule.rule}: {outcome}"
        yield from (f"    {difference}" for difference in rule.differences)
    yield from (f"✗ {difference}" for difference in found.differences)
    yield f"{len(texts)} texts are what their digests say; {_erased(_gone(texts), report)} of " + (
        f"{len(report.content['results'])} cases are erased"
    )
    if _other_code(report):
        yield "the installed code is not the code that decided it"
    yield "decided again, everything is equal" if found.equal else "decided again, it is NOT the same"


def _self_test_json(report: GateReport, found: SelfTest, seed: int, *, worse: bool) -> dict[str, Any]:
    def rate(one: Any) -> dict[str, Any]:
        return {**dataclasses.asdict(one), "rate": one.value, "interval": one.interval, "holds": one.holds}

    return {
        "report_hash": report.report_hash,
        "seed": seed,
        "worse": worse,
        "holds": found.holds,
        "rules": [
            {
                "rule": trial.rule,
                "tolerance": trial.tolerance,
                "questions": trial.questions,
                "false_block": rate(trial.blocked),
                "false_pass": rate(trial.passed),
            }
            for trial in found.trials
        ],
        "false_fail": rate(found.failed),
        "left_out": list(found.left_out),
    }


def _self_test_lines(report: GateReport, rules: GateRules, found: SelfTest) -> Iterator[str]:
    def cell(one: Any) -> str:
        lower, upper = one.interval
        limit = "not declared" if one.declared is None else f"at most {one.declared:.1%}"
        return f"{one.value:6.1%} [{lower:.1%}, {upper:.1%}] {limit} {'✓' if one.holds else '✗'}"

    yield f"report {report.report_hash[:12]}, {found.failed.runs:,} simulated gates, 95 % intervals in brackets"
    for trial in found.trials:
        yield f"{trial.rule}: tolerates {trial.tolerance:g} on {trial.questions} questions"
        yield f"    blocks an equal candidate        {cell(trial.blocked)}"
        yield f"    passes one worse by the tolerance {cell(trial.passed)}"
    yield f"all {len(found.trials)} comparisons together"
    yield f"    fail an equal candidate          {cell(found.failed)}"
    yield from (f"left out: {reason}" for reason in found.left_out)
    if not found.tells:
        yield (
            "no rule here can tell an equal candidate from a worse one: none compares with a tolerance that "
            f"these questions exclude at {rules.power:.0%} power; see `llmops gate power`"
        )
    yield "the gate is what its file declares" if found.holds else "the gate is NOT what its file declares"
