"""Answers of known worth: for each slice a question, good answers, and bad ones, each bad in its own way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llmops.evaluation import Case, Observation, RetrievedChunk


@dataclass(frozen=True)
class Scenario:
    case: Case
    good: Mapping[str, Observation]
    bad: Mapping[str, Observation]


def said(text: str, *retrieved: RetrievedChunk, refused: bool = False) -> Observation:
    """Return an observation that cites exactly the retrieved chunks whose place the text names."""
    chunks = tuple(replace(chunk, cited=f"[{place}]" in text) for place, chunk in enumerate(retrieved, 1))
    return Observation(text, refused, chunks, 0.1)


def chunk(path: str, text: str) -> RetrievedChunk:
    return RetrievedChunk(f"chunk-{path}", "guide", path, text)


_WEATHER = chunk(
    "weather", "Clouds form when moist air cools. Rain follows when the drops grow too heavy to float."
)


def _how_to() -> Scenario:
    case = Case(
        id="kiln-start",
        question="How do I fire up the kiln on a cold morning?",
        expected_documents=("guide:kiln.start",),
        facts=(
            "Open the lower damper before you light the burner.",
            "Warm the chamber at 80 degrees for 45 minutes.",
        ),
        slice="how-to",
    )
    right = chunk(
        "kiln.start",
        "On cold days the chamber is damp. Open the lower damper before you light the burner. Warm "
        "the chamber at "
        "80 degrees for 45 minutes. After that you may raise the temperature by 150 degrees per hour.",
    )
    near = chunk(
        "kiln.stop",
        "To shut the kiln down, close the burner valve and leave the lower damper open for a day.",
    )
    first, second = (
        "Open the lower damper before you light the burner.",
        "Warm the chamber at 80 degrees for 45 minutes.",
    )
    good = {
        "verbatim": said(f"{first} [1] {second} [1]", right, near),
        "paraphrased": said(
            "Before you light the burner, open the lower damper [1]. Then warm the chamber for 45 "
            "minutes at 80 "
            "degrees [1].",
            right,
            near,
        ),
        "a list with a lead-in": said(f"Do this:\n\n- {first} [1]\n- {second} [1]", right, near),
        "one citation for a paragraph": said(f"{first} {second} [2]", near, right),
    }
    return Scenario(case, good, {**_bad_anywhere(case, right, near), **_bad_how_to(right, near)})


def _bad_how_to(right: RetrievedChunk, near: RetrievedChunk) -> dict[str, Observation]:
    return {
        "contradicts": said(
            "Do not open the lower damper before you light the burner. [1] Never warm the chamber "
            "at 80 degrees for "
            "45 minutes. [1]",
            right,
        ),
        "wrong numbers": said("Warm the chamber at 280 degrees for 5 minutes. [1]", right),
        "the opposite task": said(
            "Close the burner valve and leave the lower damper open for a day. [2]", right, near
        ),
    }


def _concept() -> Scenario:
    case = Case(
        id="glaze-what",
        question="What exactly is a celadon glaze?",
        expected_documents=("guide:glaze.celadon",),
        facts=("A celadon is a transparent glaze with one to three percent iron oxide, fired in reduction.",),
        slice="concept",
    )
    right = chunk(
        "glaze.celadon",
        "# Celadon\n\nA celadon is a transparent glaze with one to three percent **iron oxide**, "
        "fired in reduction. "
        "Its colour ranges from pale blue to olive green.",
    )
    near = chunk(
        "glaze.tenmoku",
        "A tenmoku is a dark glaze with eight percent iron oxide that breaks to rust on edges.",
    )
    fact = case.facts[0]
    good = {
        "verbatim": said(f"{fact} [1]", right, near),
        "with more from the source": said(
            f"{fact} [1] Its colour ranges from pale blue to olive green. [1]", right
        ),
        "paraphrased": said(
            "Celadon is a transparent glaze that holds one to three percent iron oxide and is fired "
            "in reduction [2].",
            near,
            right,
        ),
    }
    bad = {
        "the neighbouring concept": said(f"{near.text} [2]", right, near),
        "half invented, half beside the point": said(
            "Celadon was invented by a monk in 1204. [1] Its colour ranges from pale blue to olive "
            "green. [1]",
            right,
        ),
        "contradicts": said(
            "A celadon is not a transparent glaze and is never fired in reduction. [1]", right
        ),
    }
    return Scenario(case, good, {**_bad_anywhere(case, right, near), **bad})


def _limits() -> Scenario:
    case = Case(
        id="wheel-limit",
        question="How much clay can the small wheel take?",
        expected_documents=("guide:wheel.limits",),
        facts=(
            "The small wheel carries at most 12 kilograms of clay.",
            "Above 12 kilograms the motor stops.",
        ),
        slice="limits",
    )
    right = chunk(
        "wheel.limits",
        "The small wheel carries at most 12 kilograms of clay. Above 12 kilograms the motor stops. "
        "It restarts after "
        "ten minutes.",
    )
    near = chunk(
        "wheel.large", "The large wheel carries at most 60 kilograms of clay. It has no motor protection."
    )
    good = {
        "verbatim": said(
            "The small wheel carries at most 12 kilograms of clay. [1] Above 12 kilograms the motor "
            "stops. [1]",
            right,
        ),
        "in one sentence": said(
            "The small wheel carries at most 12 kilograms of clay, and the motor stops above 12 "
            "kilograms [2].",
            near,
            right,
        ),
    }
    bad = {
        "another limit": said("The small wheel carries at most 60 kilograms of clay. [1]", right, near),
        "the other thing's limit": said(f"{near.text} [2]", right, near),
        "no limit at all": said(
            "The small wheel has no limit for clay and the motor never stops. [1]", right
        ),
    }
    return Scenario(case, good, {**_bad_anywhere(case, right, near), **bad})


def _unanswerable() -> Scenario:
    case = Case(id="tax", question="Which tax form do I need for selling pots abroad?", slice="unanswerable")
    near = chunk("shop.prices", "Pots are sold in the shop on Saturdays. Prices include value added tax.")
    far = _WEATHER
    good = {
        "refuses": said("I found nothing about that in the documents.", near, far, refused=True),
        "refuses without having found anything": said("I cannot answer this.", refused=True),
    }
    bad = {
        "made up, uncited": said("You need form 27b, which customs hand out for free.", near, far),
        "made up, cited": said("You need form 27b, which customs hand out for free. [1]", near, far),
        "true to its source but no answer": said("Prices include value added tax. [1]", near, far),
        "far from the question": said("Clouds form when moist air cools. [2]", near, far),
        "empty": said("", near, far),
        "the question again": said(case.question, near, far),
        "keywords": said("tax form selling pots abroad customs", near, far),
        "hedged guess": said("I am not sure, but form 27b is probably the right one. [1]", near, far),
        "says it refuses and answers": said("Prices include value added tax. [1]", near, far, refused=True),
        "sends the reader away": said("Please look at the shop's documents yourself. [1]", near),
        "cites what was not retrieved": said("Form 27b is needed abroad. [7]", near, far),
        "from memory, without retrieval": said("In most countries you fill in the customs declaration CN23."),
    }
    return Scenario(case, good, bad)


def _bad_anywhere(case: Case, right: RetrievedChunk, near: RetrievedChunk) -> dict[str, Observation]:
    """Return answers that are bad whatever the question is."""
    facts = " ".join(case.facts)
    cited = " ".join(f"{fact} [1]" for fact in case.facts)
    asked = re.sub(r"[.;!](?=\s|$)", "?", cited)
    words = [word.strip(".,;") for word in facts.split()]
    salad = {
        "shuffled words": said(f"{' '.join(words[::2] + words[1::2])}. [1]", right, near),
        "keywords": said(f"{' '.join(word for word in words[::-1] if len(word) > 3)} [1]", right, near),
    }
    return {
        "empty": said("", right, near),
        "only a citation": said("[1]", right, near),
        "refuses": said("I found nothing about that in the documents.", right, near, refused=True),
        "wrong topic": said("Clouds form when moist air cools. [1]", _WEATHER, right),
        "right but uncited": said(facts, right, near),
        "right but cites what was not retrieved": said(cited.replace("[1]", "[9]"), right, near),
        "right but cites another chunk": said(cited.replace("[1]", "[2]"), right, near),
        "right but nothing retrieved says so": said(cited, _WEATHER, near),
        "the question again, cited": said(f"{case.question} [1]", right, near),
        "the question as a statement": said(f"{case.question.rstrip('?')}. [1]", right, near),
        "made up": said("Ask the foreman, who knows the secret since 1987. [1]", right, near),
        "sends the reader away": said(
            "Please read the documents, everything is explained there. [1]", right, near
        ),
        "facts as questions": said(asked, right, near),
        **(salad if len(words) >= 8 else {}),  # the fewer words, the more orders still say the same
    }


def scenarios() -> dict[str, Scenario]:
    """Return one scenario per slice."""
    return {s.case.slice: s for s in (_how_to(), _concept(), _limits(), _unanswerable())}


def mechanical(case: Case, other: Case) -> tuple[Observation, dict[str, Observation]]:
    """Return a good answer and bad ones for any case, given another answerable case to be wrong with."""
    source, _, path = case.expected_documents[0].partition(":") if case.expected_documents else ("", "", "")
    right = RetrievedChunk("right", source, path, " ".join(case.facts), False)
    near = RetrievedChunk("near", "elsewhere", "elsewhere", " ".join(other.facts), False)
    if case.unanswerable:
        facts = " ".join(f"{fact} [1]" for fact in other.facts)
        bad = {
            "cited": said(facts, near),
            "uncited": said(" ".join(other.facts), near),
            "empty": said("", near),
            "the question again": said(case.question, near),
            "made up": said("Ask the foreman, who knows the secret since 1987. [1]", near),
            "says it refuses and answers": said(facts, near, refused=True),
        }
        return said("I found nothing about that.", near, refused=True), bad
    wrong = said(" ".join(f"{fact} [2]" for fact in other.facts), right, near)
    good = said(" ".join(f"{fact} [1]" for fact in case.facts), right, near)
    return good, {**_bad_anywhere(case, right, near), "another question's answer": wrong}
