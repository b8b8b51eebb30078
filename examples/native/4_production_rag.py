"""A RAG system for production: embeddings that fail fast, a model with a stand-in, and an answer that says whose it is.

    python examples/native/4_production_rag.py

A simulator is asked, whose first model is down; with LIVE=1 the real service, with your OPENAI_API_KEY.
"""

from __future__ import annotations

import seawall
from _service import service
from seawall import CircuitBreaker
from seawall.errors import APIError
from seawall.langchain import ChatOpenAI, OpenAIEmbeddings, ProductionRAG
from seawall.simulator import faults

DOCUMENTS = (
    "LangChain is a framework for building applications on language models.",
    "LCEL is LangChain's expression language: components are joined with a bar.",
    "A Runnable is the protocol at LangChain's core: invoke, batch, stream.",
    "A retriever finds the documents that a question is about.",
)
QUESTIONS = ("What is LangChain?", "What joins components?", "What is LCEL?", "What is a Runnable?", "What finds documents?")


def main() -> None:
    first = ChatOpenAI(model="gpt-4", circuit=CircuitBreaker(5, name="gpt-4"))
    second = ChatOpenAI(model="gpt-3.5-turbo", circuit=CircuitBreaker(3, name="gpt-3.5"))
    second = second.with_retry(stop_after_attempt=3, wait=0.1)
    try:
        rag = ProductionRAG.from_documents(
            DOCUMENTS,
            embeddings=OpenAIEmbeddings().with_retry(stop_after_attempt=2),
            llm=first.with_retry(stop_after_attempt=5, wait=0.1).with_fallbacks([second]),
            k=1,
            prompt="{context} {question}",
        )
    except APIError as error:
        print(f"The documents could not be embedded.\n{seawall.explain(error)}")
        return

    for question in QUESTIONS:
        told = rag.query(question)
        print(question)
        if told["success"]:
            print(f"   {told['answer'][:100]}\n   {told['served_by']}, by request {told['attempts']}, in {told['latency']:.2f} s")
        else:
            print(f"   no answer: {told['error_type']}")
    print("\n" + "\n".join(f"{name:13} {value}" for name, value in rag.get_stats().items()))


if __name__ == "__main__":
    with service(lambda api: api.on("gpt-4", faults.status(503))):
        main()
