"""
断路器模式
演示：使用circuitbreaker库实现断路器
"""

from seawall.langchain import ChatOpenAI
from seawall import circuit
from dotenv import load_dotenv
import time

load_dotenv()

print("=== 断路器模式 ===\n")

# ===== 1. 创建带断路器的LLM调用 =====
llm = ChatOpenAI(model="gpt-4").with_retry(stop_after_attempt=3)

@circuit(
    failure_threshold=5,               # 5次失败后打开断路器
    recovery_timeout=60,               # 60秒后尝试恢复
    expected_exception=Exception
)
def call_llm_with_circuit_breaker(prompt):
    """带断路器的LLM调用"""
    return llm.invoke(prompt)

print("✅ 断路器配置完成")
print("  失败阈值: 5次")
print("  恢复超时: 60秒\n")

# ===== 2. 测试断路器 =====
test_prompts = [
    "什么是Python？",
    "什么是JavaScript？",
    "什么是Go？",
    "什么是Rust？",
    "什么是Java？",
    "什么是C++？",
    "什么是C#？"
]

print(f"处理 {len(test_prompts)} 个请求...\n")

success_count = 0
failure_count = 0
circuit_open_count = 0

for i, prompt in enumerate(test_prompts):
    print(f"[{i+1}/{len(test_prompts)}] {prompt}")

    try:
        response = call_llm_with_circuit_breaker(prompt)
        print(f"✅ 成功: {response.content[:30]}...\n")
        success_count += 1
    except Exception as e:
        error_type = type(e).__name__

        if "CircuitBreakerError" in error_type:
            print(f"⚠️  断路器打开，跳过请求\n")
            circuit_open_count += 1
        else:
            print(f"❌ 失败: {error_type}\n")
            failure_count += 1

# ===== 3. 统计结果 =====
print("=== 结果统计 ===")
print(f"成功: {success_count}")
print(f"失败: {failure_count}")
print(f"断路器拦截: {circuit_open_count}")
print(f"\n断路器状态机:")
print("  正常 (Closed) → 连续5次失败 → 断开 (Open)")
print("  断开 (Open) → 60秒后 → 半开 (Half-Open)")
print("  半开 (Half-Open) → 测试成功 → 正常 (Closed)")
