"""
监控与告警
演示：实时监控和告警系统
"""

from seawall.langchain import ChatOpenAI
from dotenv import load_dotenv
import logging
import time
from collections import deque

# ===== 1. 配置日志 =====
logging.basicConfig(
    level=logging.INFO,
    format='%(asctime)s - %(levelname)s - %(message)s'
)
logger = logging.getLogger(__name__)

load_dotenv()

print("=== 监控与告警 ===\n")

# ===== 2. 创建监控类 =====
class MonitoringSystem:
    """监控系统"""

    def __init__(self, window_size=100):
        self.window_size = window_size
        self.requests = deque(maxlen=window_size)

        # 告警阈值
        self.thresholds = {
            "error_rate": 0.10,        # 错误率 > 10%
            "retry_rate": 0.05,        # 重试率 > 5%
            "avg_latency": 5.0         # 平均延迟 > 5秒
        }

    def record_request(self, success, retried, latency):
        """记录请求"""
        self.requests.append({
            "timestamp": time.time(),
            "success": success,
            "retried": retried,
            "latency": latency
        })

        # 检查告警
        self._check_alerts()

    def _check_alerts(self):
        """检查告警"""
        if len(self.requests) < 10:
            return

        # 计算指标
        total = len(self.requests)
        errors = sum(1 for r in self.requests if not r["success"])
        retries = sum(1 for r in self.requests if r["retried"])
        avg_latency = sum(r["latency"] for r in self.requests) / total

        error_rate = errors / total
        retry_rate = retries / total

        # 检查阈值
        if error_rate > self.thresholds["error_rate"]:
            logger.warning(f"⚠️  告警: 错误率过高 {error_rate:.2%}")

        if retry_rate > self.thresholds["retry_rate"]:
            logger.warning(f"⚠️  告警: 重试率过高 {retry_rate:.2%}")

        if avg_latency > self.thresholds["avg_latency"]:
            logger.warning(f"⚠️  告警: 平均延迟过高 {avg_latency:.2f}秒")

    def get_metrics(self):
        """获取指标"""
        if not self.requests:
            return {}

        total = len(self.requests)
        errors = sum(1 for r in self.requests if not r["success"])
        retries = sum(1 for r in self.requests if r["retried"])
        avg_latency = sum(r["latency"] for r in self.requests) / total

        return {
            "total_requests": total,
            "error_rate": f"{errors / total:.2%}",
            "retry_rate": f"{retries / total:.2%}",
            "avg_latency": f"{avg_latency:.2f}s",
            "success_rate": f"{(total - errors) / total:.2%}"
        }

# ===== 3. 创建带监控的LLM =====
monitor = MonitoringSystem()

llm = ChatOpenAI(model="gpt-4").with_retry(
    stop_after_attempt=3,
    wait_exponential_jitter=True
)

def monitored_invoke(prompt):
    """带监控的调用"""
    start_time = time.time()
    retried = False

    try:
        response = llm.invoke(prompt)
        latency = time.time() - start_time
        monitor.record_request(success=True, retried=retried, latency=latency)
        return response.content

    except Exception as e:
        latency = time.time() - start_time
        monitor.record_request(success=False, retried=retried, latency=latency)
        raise

print("✅ 监控系统创建完成\n")

# ===== 4. 测试 =====
test_prompts = [
    "什么是Python？",
    "什么是JavaScript？",
    "什么是Go？",
    "什么是Rust？",
    "什么是Java？"
] * 4  # 重复4次，共20个请求

print(f"处理 {len(test_prompts)} 个请求...\n")

for i, prompt in enumerate(test_prompts):
    try:
        result = monitored_invoke(prompt)
        if (i + 1) % 5 == 0:
            logger.info(f"已处理 {i+1}/{len(test_prompts)} 个请求")
    except Exception as e:
        logger.error(f"请求失败: {type(e).__name__}")

# ===== 5. 显示指标 =====
print("\n=== 监控指标 ===")
metrics = monitor.get_metrics()
for key, value in metrics.items():
    print(f"{key}: {value}")
