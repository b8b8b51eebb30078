"""
综合生产案例
演示：完整的生产级RAG系统
"""

from seawall.langchain import ChatOpenAI, OpenAIEmbeddings
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough, RunnableLambda
from seawall.errors import RateLimitError, APIError, Timeout
from dotenv import load_dotenv
import logging
import time

# ===== 1. 配置日志 =====
logging.basicConfig(
    level=logging.INFO,
    format='%(asctime)s - %(levelname)s - %(message)s'
)
logger = logging.getLogger(__name__)

load_dotenv()

print("=== 生产级RAG系统 ===\n")

# ===== 2. 定义可重试的错误 =====
RETRYABLE_ERRORS = (RateLimitError, APIError, Timeout)

# ===== 3. 创建组件（带完整错误处理）=====

# 3.1 Embedding（快速失败）
embeddings = OpenAIEmbeddings().with_retry(
    stop_after_attempt=2,
    retry_if_exception_type=(Timeout,)
)

# 3.2 模拟向量检索器
def vector_retriever(query):
    """向量检索（带错误处理）"""
    logger.info(f"检索: {query[:30]}...")
    try:
        # 模拟检索
        docs = [
            "LangChain是一个用于构建AI应用的框架",
            "LCEL是LangChain的表达式语言",
            "Runnable是LangChain的核心协议"
        ]
        return docs
    except Exception as e:
        logger.error(f"检索失败: {type(e).__name__}")
        return []

# 3.3 LLM（关键组件，多层保护）
primary_llm = ChatOpenAI(model="gpt-4").with_retry(
    stop_after_attempt=5,
    wait_exponential_jitter=True,
    retry_if_exception_type=RETRYABLE_ERRORS
)

fallback_llm = ChatOpenAI(model="gpt-3.5-turbo").with_retry(
    stop_after_attempt=3,
    retry_if_exception_type=RETRYABLE_ERRORS
)

llm = primary_llm.with_fallbacks([fallback_llm])

# ===== 4. 构建RAG链 =====
prompt = ChatPromptTemplate.from_template(
    "基于以下上下文回答问题:\n{context}\n\n问题: {question}"
)

def format_docs(docs):
    """格式化文档"""
    if not docs:
        return "未找到相关文档"
    return "\n".join(docs)

rag_chain = (
    {
        "context": RunnableLambda(vector_retriever) | RunnableLambda(format_docs),
        "question": RunnablePassthrough()
    }
    | prompt
    | llm
)

logger.info("RAG链构建完成\n")

# ===== 5. 生产级执行包装器 =====
class ProductionRAG:
    """生产级RAG包装器"""

    def __init__(self, chain):
        self.chain = chain
        self.stats = {
            "total": 0,
            "success": 0,
            "failed": 0,
            "avg_latency": 0.0
        }

    def query(self, question):
        """执行查询"""
        self.stats["total"] += 1
        start_time = time.time()

        try:
            logger.info(f"查询: {question}")
            response = self.chain.invoke(question)
            latency = time.time() - start_time

            self.stats["success"] += 1
            self._update_latency(latency)

            logger.info(f"成功，耗时: {latency:.2f}秒")

            return {
                "success": True,
                "answer": response.content,
                "latency": latency
            }

        except Exception as e:
            latency = time.time() - start_time

            self.stats["failed"] += 1
            self._update_latency(latency)

            logger.error(f"失败: {type(e).__name__}, 耗时: {latency:.2f}秒")

            return {
                "success": False,
                "error": str(e),
                "latency": latency
            }

    def _update_latency(self, latency):
        """更新平均延迟"""
        total = self.stats["total"]
        current_avg = self.stats["avg_latency"]
        self.stats["avg_latency"] = (current_avg * (total - 1) + latency) / total

    def get_stats(self):
        """获取统计信息"""
        total = self.stats["total"]
        if total == 0:
            return self.stats

        return {
            **self.stats,
            "success_rate": f"{self.stats['success'] / total:.2%}",
            "failure_rate": f"{self.stats['failed'] / total:.2%}",
            "avg_latency": f"{self.stats['avg_latency']:.2f}s"
        }

# ===== 6. 测试 =====
rag = ProductionRAG(rag_chain)

print("=== 测试查询 ===\n")

questions = [
    "什么是LangChain？",
    "什么是LCEL？",
    "什么是Runnable？",
    "如何使用LangChain构建RAG？",
    "LangChain的核心概念是什么？"
]

for i, question in enumerate(questions):
    print(f"[{i+1}/{len(questions)}] {question}")
    result = rag.query(question)

    if result["success"]:
        print(f"✅ {result['answer'][:60]}...")
    else:
        print(f"❌ {result['error']}")

    print(f"   耗时: {result['latency']:.2f}秒\n")

# ===== 7. 统计信息 =====
print("=== 系统统计 ===")
stats = rag.get_stats()
for key, value in stats.items():
    print(f"{key}: {value}")

# ===== 8. 健康检查 =====
print("\n=== 健康检查 ===")
success_rate = rag.stats["success"] / rag.stats["total"]
if success_rate >= 0.95:
    print("✅ 系统健康")
elif success_rate >= 0.80:
    print("⚠️  系统警告")
else:
    print("❌ 系统异常")
