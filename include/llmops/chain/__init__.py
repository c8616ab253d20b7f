"""From a question to a cited answer: retrieve, then generate, or refuse."""

from llmops.chain._answer import MAX_QUESTION, REFUSAL, Answer, Citation
from llmops.chain._chain import Chain, check_question
from llmops.chain._chat import ChatGenerator
from llmops.chain._extractive import ExtractiveGenerator
from llmops.chain._generator import Generator
from llmops.chain._prompt import PromptTemplate
from llmops.chain._retrieval import HybridRetrieval, NoRetrieval, Retrieval, Searcher, Sentinel

__all__ = [
    "MAX_QUESTION",
    "REFUSAL",
    "Answer",
    "Chain",
    "ChatGenerator",
    "Citation",
    "ExtractiveGenerator",
    "Generator",
    "HybridRetrieval",
    "NoRetrieval",
    "PromptTemplate",
    "Retrieval",
    "Searcher",
    "Sentinel",
    "check_question",
]
