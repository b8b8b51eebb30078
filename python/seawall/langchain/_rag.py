"""`ProductionRAG`, the document's wrapper of a retrieval chain, and a builder that makes a real one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from typing_extensions import Self

from seawall._word import shown, whole_number
from seawall.errors import ConfigurationError, ConfigurationTypeError
from seawall.langchain._chat import ChatOpenAI
from seawall.langchain._embeddings import OpenAIEmbeddings
from seawall.langchain._health import health, text_of

logger = logging.getLogger("seawall.rag")

PROMPT = "基于以下上下文回答问题:\n{context}\n\n问题: {question}"
NOTHING_FOUND = "未找到相关文档"


class ProductionRAG:
    """Asks a chain and answers with a dict, never with an error; counts and times every query. Safe from any thread.

    Args:
        chain: any Runnable from a question to a message, a text, or a dict with an `answer`.
    """

    def __init__(self, chain: Runnable[Any, Any]) -> None:
        if not hasattr(chain, "invoke"):
            raise ConfigurationTypeError(
                f"chain must be a Runnable that answers questions, not {shown(chain)}; from_documents(…) makes one"
            )
        self.chain = chain
        self._lock = threading.Lock()
        self._success = 0
        self._failed = 0
        self._seconds = 0.0

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[str | Document],
        *,
        embeddings: Any = None,
        llm: Any = None,
        k: int = 3,
        prompt: str | ChatPromptTemplate = PROMPT,
    ) -> Self:
        """A chain that finds the `k` nearest documents in memory and has the model answer from them.

        Args:
            documents: texts or langchain-core `Document`s; they are embedded now.
            embeddings: default `OpenAIEmbeddings` with 2 attempts.
            llm: default gpt-4 with 5 attempts, then gpt-3.5-turbo with 3.
            k: how many documents the model is shown (3).
            prompt: with `{context}` and `{question}`.

        Raises:
            ConfigurationError: no documents, or a `k` below 1.
            APIError: the documents could not be embedded.
        """
        if isinstance(documents, (str, Document)):
            raise ConfigurationTypeError(f"documents must be a list of texts or Documents, not {shown(documents)}")
        found = [document if isinstance(document, Document) else Document(document) for document in documents]
        if not found:
            raise ConfigurationError("ProductionRAG.from_documents needs at least one document")
        whole_number("k", k, 1)
        if embeddings is not None and not hasattr(embeddings, "embed_documents"):
            raise ConfigurationTypeError(f"embeddings must be a LangChain Embeddings or None, not {shown(embeddings)}")
        if llm is not None and not (callable(llm) or hasattr(llm, "invoke")):
            raise ConfigurationTypeError(f"llm must be a chat model or another Runnable, or None, not {shown(llm)}")
        if embeddings is None:
            embeddings = OpenAIEmbeddings().with_retry(stop_after_attempt=2)
        if llm is None:
            second = ChatOpenAI(model="gpt-3.5-turbo").with_retry(stop_after_attempt=3)
            llm = ChatOpenAI(model="gpt-4").with_retry(stop_after_attempt=5).with_fallbacks([second])
        store = InMemoryVectorStore.from_documents(found, embeddings)
        retriever = store.as_retriever(search_kwargs={"k": min(k, len(found))})
        asked = ChatPromptTemplate.from_template(prompt) if isinstance(prompt, str) else prompt
        sources = {"context": retriever | RunnableLambda(_joined), "question": RunnablePassthrough()}
        return cls(sources | asked | llm)

    def query(self, question: Any, config: RunnableConfig | None = None) -> dict[str, Any]:
        """`success`, `answer` and `latency` in seconds; or `success` (false), `error`, `error_type` and `latency`.

        Where the model says so, also which one answered (`served_by`) after how many `attempts`.
        """
        started = time.perf_counter()
        try:
            response = self.chain.invoke(question, config)
        except Exception as error:
            return self._failure(error, started)
        return self._answer(response, started)

    async def aquery(self, question: Any, config: RunnableConfig | None = None) -> dict[str, Any]:
        """As `query`, for an event loop."""
        started = time.perf_counter()
        try:
            response = await self.chain.ainvoke(question, config)
        except Exception as error:
            return self._failure(error, started)
        return self._answer(response, started)

    @property
    def stats(self) -> dict[str, Any]:
        """`total`, `success` and `failed` queries that have ended, and `avg_latency` in seconds."""
        with self._lock:
            total = self._success + self._failed
            average = self._seconds / total if total else 0.0
            return {"total": total, "success": self._success, "failed": self._failed, "avg_latency": average}

    def get_stats(self) -> dict[str, Any]:
        """As `stats`, with `success_rate`, `failure_rate` and `avg_latency` as texts once there was a query."""
        stats = self.stats
        total = stats["total"]
        if not total:
            return stats
        return {
            **stats,
            "success_rate": f"{stats['success'] / total:.2%}",
            "failure_rate": f"{stats['failed'] / total:.2%}",
            "avg_latency": f"{stats['avg_latency']:.2f}s",
        }

    def health(self) -> dict[str, Any]:
        """`status` (未使用, 健康 from 95 % success, 警告 from 80 %, else 异常), and what `get_stats` says."""
        stats = self.stats
        total = stats["total"]
        return {"status": health(stats["success"] / total) if total else "未使用", **self.get_stats()}

    def _answer(self, response: Any, started: float) -> dict[str, Any]:
        seconds = self._ended(started, success=True)
        metadata = response.response_metadata if isinstance(response, BaseMessage) else {}
        told = {name: metadata[name] for name in ("served_by", "attempts") if name in metadata}
        logger.info("answered in %.2f s", seconds)
        return {"success": True, "answer": text_of(response), "latency": seconds, **told}

    def _failure(self, error: Exception, started: float) -> dict[str, Any]:
        seconds = self._ended(started, success=False)
        logger.error("no answer after %.2f s: %s", seconds, type(error).__name__)
        return {"success": False, "error": str(error), "error_type": type(error).__name__, "latency": seconds}

    def _ended(self, started: float, *, success: bool) -> float:
        seconds = time.perf_counter() - started
        with self._lock:
            self._success += success
            self._failed += not success
            self._seconds += seconds
        return seconds


def _joined(documents: Sequence[Document]) -> str:
    return "\n".join(document.page_content for document in documents) or NOTHING_FOUND
