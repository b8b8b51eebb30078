"""The LangChain layer: real langchain-core objects on the native client. Needs the extra `seawall[langchain]`.

`ChatOpenAI` and `OpenAIEmbeddings` take the place of langchain-openai's; `resilient` protects any other Runnable.
"""

try:
    import langchain_core as _langchain_core  # noqa: F401
except ImportError as _missing:
    raise ImportError("seawall.langchain needs langchain-core: pip install 'seawall[langchain]'") from _missing

from seawall.langchain import errors
from seawall.langchain._agent import SelfHealingAgent
from seawall.langchain._cache import SeawallCache
from seawall.langchain._chat import ChatOpenAI
from seawall.langchain._embeddings import OpenAIEmbeddings
from seawall.langchain._production import ProductionLLM, create_production_llm
from seawall.langchain._rag import ProductionRAG
from seawall.langchain._resilient import Resilient, resilient

__all__ = [
    "ChatOpenAI",
    "OpenAIEmbeddings",
    "ProductionLLM",
    "ProductionRAG",
    "Resilient",
    "SeawallCache",
    "SelfHealingAgent",
    "create_production_llm",
    "errors",
    "resilient",
]
