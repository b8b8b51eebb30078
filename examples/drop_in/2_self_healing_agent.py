"""
自愈Agent
演示：Agent自动重试和降级
"""

from seawall.langchain import ChatOpenAI
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from dotenv import load_dotenv
import logging

# ===== 1. 配置日志 =====
logging.basicConfig(
    level=logging.INFO,
    format='%(asctime)s - %(levelname)s - %(message)s'
)
logger = logging.getLogger(__name__)

load_dotenv()

print("=== 自愈Agent ===\n")

# ===== 2. 创建自愈Agent类 =====
class SelfHealingAgent:
    """自愈Agent"""

    def __init__(self):
        # 主LLM + 重试
        self.primary_llm = ChatOpenAI(model="gpt-4").with_retry(
            stop_after_attempt=3,
            wait_exponential_jitter=True
        )

        # 备选LLM + 重试
        self.fallback_llm = ChatOpenAI(model="gpt-3.5-turbo").with_retry(
            stop_after_attempt=2
        )

        # 组合
        self.llm = self.primary_llm.with_fallbacks([self.fallback_llm])

        # 统计
        self.stats = {
            "total_requests": 0,
            "primary_success": 0,
            "fallback_used": 0,
            "total_failures": 0,
            "self_healed": 0
        }

    def invoke(self, prompt):
        """执行请求（带自愈）"""
        self.stats["total_requests"] += 1

        try:
            # 尝试执行
            response = self.llm.invoke(prompt)
            self.stats["primary_success"] += 1
            logger.info(f"成功: {prompt[:30]}...")
            return response.content

        except Exception as e:
            logger.warning(f"主方案失败: {type(e).__name__}")

            # 自愈：尝试简化prompt
            try:
                simplified_prompt = f"简单回答: {prompt}"
                response = self.fallback_llm.invoke(simplified_prompt)
                self.stats["self_healed"] += 1
                logger.info(f"自愈成功: {prompt[:30]}...")
                return response.content

            except Exception as e2:
                self.stats["total_failures"] += 1
                logger.error(f"自愈失败: {type(e2).__name__}")
                return f"抱歉，服务暂时不可用"

    def get_health_status(self):
        """获取健康状态"""
        total = self.stats["total_requests"]
        if total == 0:
            return "未使用"

        success_rate = (self.stats["primary_success"] + self.stats["self_healed"]) / total
        self_heal_rate = self.stats["self_healed"] / total

        if success_rate >= 0.95:
            status = "健康"
        elif success_rate >= 0.80:
            status = "警告"
        else:
            status = "异常"

        return {
            "status": status,
            "success_rate": f"{success_rate:.2%}",
            "self_heal_rate": f"{self_heal_rate:.2%}",
            "stats": self.stats
        }

# ===== 3. 测试自愈Agent =====
agent = SelfHealingAgent()

print("✅ 自愈Agent创建完成\n")

test_prompts = [
    "什么是LangChain？",
    "解释一下LCEL表达式",
    "什么是Runnable协议？",
    "详细分析深度学习的发展历史",
    "什么是Python？"
]

print(f"处理 {len(test_prompts)} 个请求...\n")

for i, prompt in enumerate(test_prompts):
    print(f"[{i+1}/{len(test_prompts)}] {prompt[:30]}...")
    result = agent.invoke(prompt)
    print(f"   {result[:50]}...\n")

# ===== 4. 健康状态 =====
print("=== 健康状态 ===")
health = agent.get_health_status()
print(f"状态: {health['status']}")
print(f"成功率: {health['success_rate']}")
print(f"自愈率: {health['self_heal_rate']}")
print(f"\n详细统计:")
for key, value in health['stats'].items():
    print(f"  {key}: {value}")
