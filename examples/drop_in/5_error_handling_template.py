"""
完整的错误处理模板
演示：可复用的生产级配置
"""

from seawall.langchain import ChatOpenAI
from seawall.errors import RateLimitError, APIError, Timeout, APIConnectionError
from seawall import wait_exponential, before_sleep_log, after_log
from seawall import circuit
from dotenv import load_dotenv
import logging
import time

# ===== 1. 配置 =====
logging.basicConfig(
    level=logging.INFO,
    format='%(asctime)s - %(levelname)s - %(message)s'
)
logger = logging.getLogger(__name__)

load_dotenv()

print("=== 生产级错误处理模板 ===\n")

# ===== 2. 定义配置 =====
RETRYABLE_ERRORS = (RateLimitError, APIError, Timeout, APIConnectionError)

RETRY_CONFIG = {
    "stop_after_attempt": 5,
    "wait": wait_exponential(multiplier=1, min=1, max=60),
    "retry_if_exception_type": RETRYABLE_ERRORS,
    "before_sleep": before_sleep_log(logger, logging.WARNING),
    "after": after_log(logger, logging.INFO)
}

CIRCUIT_BREAKER_CONFIG = {
    "failure_threshold": 5,
    "recovery_timeout": 60,
    "expected_exception": Exception
}

# ===== 3. 创建生产级LLM工厂 =====
def create_production_llm(
    model="gpt-4",
    timeout=30,
    enable_fallback=True,
    enable_circuit_breaker=True
):
    """
    创建生产级LLM

    参数:
        model: 模型名称
        timeout: 超时时间
        enable_fallback: 是否启用降级
        enable_circuit_breaker: 是否启用断路器
    """
    # 主LLM + 重试
    primary = ChatOpenAI(model=model, timeout=timeout).with_retry(**RETRY_CONFIG)

    # 降级
    if enable_fallback:
        fallback = ChatOpenAI(
            model="gpt-3.5-turbo",
            timeout=timeout
        ).with_retry(stop_after_attempt=3)

        llm = primary.with_fallbacks([fallback])
    else:
        llm = primary

    # 断路器
    if enable_circuit_breaker:
        @circuit(**CIRCUIT_BREAKER_CONFIG)
        def invoke_with_circuit_breaker(prompt):
            return llm.invoke(prompt)

        return invoke_with_circuit_breaker
    else:
        return llm.invoke

# ===== 4. 使用模板 =====
print("--- 创建生产级LLM ---\n")

# 完整配置
llm_full = create_production_llm(
    model="gpt-4",
    timeout=30,
    enable_fallback=True,
    enable_circuit_breaker=True
)
print("✅ 完整配置: 重试 + 降级 + 断路器")

# 基础配置
llm_basic = create_production_llm(
    model="gpt-4",
    timeout=30,
    enable_fallback=False,
    enable_circuit_breaker=False
)
print("✅ 基础配置: 仅重试")

# ===== 5. 测试 =====
print("\n=== 测试完整配置 ===")

test_prompts = ["你好", "什么是Python？", "什么是JavaScript？"]

for i, prompt in enumerate(test_prompts):
    logger.info(f"[{i+1}/{len(test_prompts)}] 处理: {prompt}")
    try:
        response = llm_full(prompt)
        logger.info(f"成功: {response.content[:30]}...")
    except Exception as e:
        logger.error(f"失败: {type(e).__name__}")

# ===== 6. 配置建议 =====
print("\n=== 配置建议 ===")
print("1. 开发环境:")
print("   - 重试: 2-3次")
print("   - 降级: 可选")
print("   - 断路器: 不需要")
print("\n2. 测试环境:")
print("   - 重试: 3-5次")
print("   - 降级: 推荐")
print("   - 断路器: 推荐")
print("\n3. 生产环境:")
print("   - 重试: 5-7次")
print("   - 降级: 必需")
print("   - 断路器: 必需")
print("   - 监控: 必需")
print("   - 告警: 必需")
