"""``llmops ask``: one question to the running service."""

from __future__ import annotations

import json
import textwrap
import unicodedata
from collections.abc import Mapping
from typing import Any

import click
import httpx

from llmops.errors import InvalidRequest, LlmopsError, MissingInput, ServiceUnavailable
from llmops.settings import load_environment

_SECONDS = 90
_FIELDS = ("number", "source", "path", "heading_path", "chunk_id", "document_id", "document_version")


@click.command()
@click.argument("question")
@click.option("--assistant", default="library_guide", show_default=True, help="Name of the assistant.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev.")
def command(question: str, assistant: str, as_json: bool, environment_name: str | None) -> None:
    """Ask QUESTION and print the answer with its citations; a refusal is an answer too."""
    answer = ask(load_environment(environment_name).serving_url, assistant, question)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(show(answer))


def show(answer: Mapping[str, Any]) -> str:
    """Return an answer as text for a terminal: what it says, what it cites, and which release said it."""
    lines = [answer["answer"]]
    if answer["citations"]:
        lines.append("\nCitations")
    for citation in answer["citations"]:
        where = " > ".join(citation["heading_path"]) or citation["path"]
        detail = f"chunk {citation['chunk_id']}, document version {citation['document_version']}"
        lines += [f"  [{citation['number']}] {citation['source']}: {where}", textwrap.indent(detail, " " * 6)]
    lines.append(f"\nrelease {answer['release']}\nanswer  {answer['answer_id']}")
    return harmless("\n".join(lines))


def ask(url: str, assistant: str, question: str) -> dict[str, Any]:
    """Return the service's answer with its citations, release and answer id.

    Raises InvalidRequest, MissingInput or ServiceUnavailable that say what to do.
    """
    body = {"model": assistant, "messages": [{"role": "user", "content": question}]}
    try:
        response = httpx.post(f"{url.rstrip('/')}/v1/chat/completions", json=body, timeout=_SECONDS)
        given = response.json()
        if response.status_code != 200:
            raise _failure(response.status_code, str(given["error"]["message"]), url)
        return {
            "assistant": assistant,
            "question": question,
            "answer": str(given["choices"][0]["message"]["content"]),
            "refused": bool(given["refused"]),
            "citations": [{field: citation[field] for field in _FIELDS} for citation in given["citations"]],
            "release": str(given["release"]),
            "answer_id": str(given["answer_id"]),
        }
    except httpx.HTTPError as error:
        raise ServiceUnavailable(
            f"the service does not answer at {url} ({error}): is it running? "
            "On a laptop: `llmops stack status`, then `llmops stack up`"
        ) from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ServiceUnavailable(
            f"what answers at {url} is not this service ({error!r}): check `serving_url` of the environment"
        ) from error


def harmless(text: str) -> str:
    """Return a text that a terminal shows and does not obey: no escape, control or direction characters."""
    return "".join(
        char
        if char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co"}
        else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def _failure(status: int, message: str, url: str) -> LlmopsError:
    said = harmless(message)
    if status == 404:
        return MissingInput(f"{said} Asked at {url}")
    if status < 500 and status not in {408, 429}:
        return InvalidRequest(said)
    return ServiceUnavailable(
        f"{said} Asked at {url} (status {status}). On a laptop `llmops stack logs serving` says more"
    )
