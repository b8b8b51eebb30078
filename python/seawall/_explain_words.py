"""The sentences of explanations, in English and in Chinese."""

from __future__ import annotations

import re

LANGUAGES = ("en", "zh")

# Sentences with gaps, by what they say. `{error}` and the like are names of kinds, models and policies: no content.
PHRASES: dict[str, tuple[str, str]] = {
    # The first line.
    "answered_by_a_cache": (
        "A cache had {who}'s answer: nothing was asked, in {seconds}.",
        "缓存中已有 {who} 的回答，未发请求，用时 {seconds}。",
    ),
    "answered_at_once": ("{who} answered at the first attempt, in {seconds}.", "{who} 首次尝试即作答，用时 {seconds}。"),
    "answered": ("{who} answered after {attempts} in {seconds}.", "{who} 作答：共 {attempts}，用时 {seconds}。"),
    "answered_instead": (
        "{who} answered, as alternative {number}, after {attempts} in {seconds}.",
        "{who}（第 {number} 备选）作答：共 {attempts}，用时 {seconds}。",
    ),
    "vectors": (
        "{who} gave {count} vectors after {attempts} in {seconds}.",
        "{who} 返回 {count} 个向量：共 {attempts}，用时 {seconds}。",
    ),
    "streamed": (
        "The stream of {who} came to its end after {attempts} in {seconds}.",
        "{who} 的流已结束：共 {attempts}，用时 {seconds}。",
    ),
    "stream_open": (
        "The stream is not over: its story can be told when it has ended.",
        "流尚未结束：结束之后才能说明其经过。",
    ),
    "failed": ("The call failed with {error}.", "调用失败：{error}。"),
    "failed_after": (
        "The call failed with {error}, after {attempts} in {seconds}.",
        "调用失败：{error}，共 {attempts}，用时 {seconds}。",
    ),
    "refused": ("The call was refused by {policy}: the function was not called.", "调用被 {policy} 拒绝：函数未被执行。"),
    "timed_out": (
        "The time limit {policy} of {limit} passed, after {seconds}.",
        "超过时限 {policy}（{limit}），历时 {seconds}。",
    ),
    "group": ("{error}: {count} failures together.", "{error}：同时有 {count} 个失败。"),
    "more": ("… and {count} more.", "……另有 {count} 个。"),
    "passed_always": ("{who} has been called {calls}; each call simply passed.", "{who} 被调用 {calls}，每次均直接通过。"),
    "never_called": ("{who} has not been called yet.", "{who} 尚未被调用。"),
    "last_call": (
        "The last call of {who} that did not simply pass {came} after {attempts} in {seconds}.",
        "{who} 最近一次未能直接通过的调用{came}：共 {attempts}，用时 {seconds}。",
    ),
    "came_well": ("gave a result", "得到了结果"),
    "came_badly": ("failed with {error}", "失败（{error}）"),
    # What happened on the way.
    "attempt.ok": ("attempt {number}, {policy}: answered after {seconds}", "第 {number} 次尝试，{policy}：{seconds} 后作答"),
    "attempt.failed": (
        "attempt {number}, {policy}: {error} after {seconds}",
        "第 {number} 次尝试，{policy}：{seconds} 后 {error}",
    ),
    "attempt.beaten": (
        "attempt {number}, {policy}: given up, another request answered first",
        "第 {number} 次尝试，{policy}：已放弃，另一请求先作答",
    ),
    "attempt.dropped": ("attempt {number}, {policy}: given up ({error})", "第 {number} 次尝试，{policy}：已放弃（{error}）"),
    "attempt.started": ("{policy}: attempt {number} begins", "{policy}：第 {number} 次尝试开始"),
    "waited": ("waited {seconds}", "等待 {seconds}"),
    "alternative": ("{policy} (alternative {number})", "{policy}（第 {number} 备选）"),
    "retry.scheduled": (
        "{policy}: attempt {number} failed{error}; waited {seconds} before the next",
        "{policy}：第 {number} 次尝试失败{error}，等待 {seconds} 后再试",
    ),
    "retry.waited": ("{policy}: waited {seconds} to try again", "{policy}：等待 {seconds} 后再试"),
    "retry.at_once": ("{policy}: tried again at once", "{policy}：立即再试"),
    "retry.exhausted": ("{policy}: gave up after attempt {number}: {reason}", "{policy}：第 {number} 次尝试后放弃：{reason}"),
    "hedge.started": ("{policy}: no answer after {seconds}, asked once more", "{policy}：{seconds} 未作答，再发一次请求"),
    "hedge.won": ("{policy}: the later request answered first, after {seconds}", "{policy}：后发的请求先作答，用时 {seconds}"),
    "circuit.opened": ("circuit {policy} opened{next}", "断路器 {policy} 打开{next}"),
    "circuit.half_opened": ("circuit {policy} let a probe through", "断路器 {policy} 放行一次试探"),
    "circuit.closed": ("circuit {policy} closed", "断路器 {policy} 关闭"),
    "circuit.rejected": ("circuit {policy} turned the call away{next}", "断路器 {policy} 拒绝了调用{next}"),
    "rate_limit.waited": ("{policy}: waited {seconds} for its turn under the rate limit", "{policy}：等待限流 {seconds}"),
    "rate_limit.rejected": ("rate limit {policy} turned the call away{next}", "限流器 {policy} 拒绝了调用{next}"),
    "rate_limit.paused": (
        "rate limit {policy} pauses for {seconds}, as the server asked{error}",
        "限流器 {policy} 应服务器要求暂停 {seconds}{error}",
    ),
    "bulkhead.waited": ("{policy}: waited {seconds} for a place in the bulkhead", "{policy}：等待并发名额 {seconds}"),
    "bulkhead.rejected": ("bulkhead {policy} turned the call away", "并发上限 {policy} 拒绝了调用"),
    "cache.hit": ("{policy}: answered from the cache, {seconds} old", "{policy}：缓存命中，已缓存 {seconds}"),
    "cache.miss": ("{policy}: the cache has no answer", "{policy}：缓存未命中"),
    "cache.joined": (
        "{policy}: given the answer of an equal call, after {seconds}",
        "{policy}：与相同请求合并，等待 {seconds} 后取得其结果",
    ),
    "cache.stale": (
        "{policy}: an answer from the cache, {seconds} old, stands in{error}",
        "{policy}：改用已缓存 {seconds} 的过期结果{error}",
    ),
    "cache.unusable": ("{policy}: the file of the cache cannot be used", "{policy}：缓存文件无法使用"),
    "timeout.elapsed": ("{policy}: the limit of {seconds} passed", "{policy}：已超过 {seconds} 的时限"),
    "fallback.used": ("{policy}: alternative {number} is tried{error}", "{policy}：改用第 {number} 备选{error}"),
    "fallback.exhausted": ("{policy}: no alternative helped", "{policy}：所有备选均告失败"),
    "guardrail.refused": ("{policy}: a guardrail refused the {reason}", "{policy}：护栏拒绝了 {reason}"),
    "guardrail.redacted": (
        "{policy}: guardrails cut {number} out of the {reason}",
        "{policy}：护栏从 {reason} 中抹去 {number} 处",
    ),
    "guardrail.repaired": ("{policy}: guardrails mended the JSON of the {reason}", "{policy}：护栏修复了 {reason} 的 JSON"),
    "chaos.injected": (
        "{policy}: a Chaos policy broke the call on purpose ({reason})",
        "{policy}：Chaos 策略有意干扰（{reason}）",
    ),
    "unknown_event": ("{policy}: {event}{reason}", "{policy}：{event}{reason}"),
    "after_error": (", after {error}", "（因 {error}）"),
    "of_error": (" with {error}", "（{error}）"),
    "next_in": (", next attempt in {seconds}", "，{seconds} 后再试"),
    # What follows from what.
    "class.transient": (
        "Its class is transient: such failures are retried, then the next alternative is tried.",
        "其类别为 transient：先重试，再用备选。",
    ),
    "class.rate_limited": (
        "Its class is rate_limited: such failures are waited out and retried, then the next alternative is tried.",
        "其类别为 rate_limited：等待后重试，再用备选。",
    ),
    "class.quota": (
        "Its class is quota: no retry mends them; the next alternative is tried.",
        "其类别为 quota：不重试，改用备选。",
    ),
    "class.permanent": (
        "Its class is permanent: the request itself is wrong; no retry, no alternative.",
        "其类别为 permanent：请求本身有误，不重试，也不用备选。",
    ),
    "class.auth": (
        "Its class is auth: no retry mends them; an alternative is tried only with other credentials or at another endpoint.",
        "其类别为 auth：不重试；仅当备选使用其他凭证或地址时才改用。",
    ),
    "class.not_found": (
        "Its class is not_found: no retry mends them; the next alternative is tried.",
        "其类别为 not_found：不重试，改用备选。",
    ),
    "class.context_window": (
        "Its class is context_window: the prompt is too long for the model; no retry, the next alternative is tried.",
        "其类别为 context_window：提示超出模型上下文；不重试，改用备选。",
    ),
    "class.content_filter": (
        "Its class is content_filter: the provider refused the content; no retry, the next alternative is tried.",
        "其类别为 content_filter：内容被过滤器拒绝；不重试，改用备选。",
    ),
    "class.malformed": (
        "Its class is malformed: the answer was unusable; they are retried, then the next alternative is tried.",
        "其类别为 malformed：回答不可用；先重试，再用备选。",
    ),
    "class.unknown": (
        "Its class is unknown: they are retried only where their type is listed; the next alternative is tried.",
        "其类别为 unknown：仅当其类型被列出时才重试；改用备选。",
    ),
    "circuit_why": ("The circuit is {state} now: {reason} ({seconds} ago).", "断路器目前{state}：{reason}（{seconds} 前）。"),
    "circuit_gone": ("The circuit is not known in this process any more.", "本进程中已找不到该断路器。"),
    "again_in": ("It was to try again {seconds} after the refusal.", "拒绝之后 {seconds} 会再次放行。"),
    "again_by_hand": ("It does not try again by itself: it was opened by hand.", "不会自行恢复：由人工打开。"),
    "again_unknown": ("When it will let a call through is not known.", "何时放行未知。"),
    "last_failure": ("Its last failure was {error}.", "最近一次失败：{error}。"),
    "alternative_failed": ("alternative {number} failed too: {error}", "第 {number} 备选亦失败：{error}"),
    "inside": ("The failure itself came of {attempts} further inside.", "此失败本身出自更内层的 {attempts}。"),
    "caused": ("It came from {error}.", "起因：{error}。"),
    "partial": (
        "Text had been handed over before the break: it was not begun again silently.",
        "中断前已交付部分文本：不会悄悄重新开始。",
    ),
    "batch": (
        "It ended a batch: {done} of {count} inputs have a result.",
        "它结束了一个批次：{count} 个输入中 {done} 个有结果。",
    ),
    "note": ("Its note says: {note}", "附注：{note}"),
    "untold": (
        "How its attempts went one by one is not known: this object carries no story.",
        "各次尝试的经过未知：该对象没有携带记录。",
    ),
    "not_guarded": (
        "It carries nothing of seawall's: it passed no retry, circuit or time limit that had something to tell, or was raised elsewhere.",
        "它没有携带 seawall 的记录：未经过有所作为的重试、断路器或时限，或在别处抛出。",
    ),
    # Breakers.
    "breaker_fresh": (
        "Circuit {policy} is {state} and has never been in another state.",
        "断路器 {policy} {state}，从未有过其他状态。",
    ),
    "breaker": (
        "Circuit {policy} has been {state} for {seconds}: {reason}.",
        "断路器 {policy} {state}，已 {seconds}：{reason}。",
    ),
    "breaker_over": (
        "Circuit {policy} is half open: its recovery time is over. It opened {seconds} ago: {reason}.",
        "断路器 {policy} 半开：恢复时间已到。{seconds} 前打开：{reason}。",
    ),
    "probe_in": ("In {seconds} it lets a probe through.", "{seconds} 后放行试探。"),
    "probe_now": (
        "The next call is a probe: it closes the circuit, or opens it again.",
        "下一次调用即为试探：成功则关闭，失败则再次打开。",
    ),
    "probes_out": ("{count} out, {good} succeeded so far.", "{count} 进行中，已成功 {good} 次。"),
    "by_hand": (
        "It goes on when its isolation ends, or with reset() or force().",
        "隔离结束，或调用 reset()、force() 之后恢复。",
    ),
    "opens_consecutive": (
        "It opens at {limit} failures in a row: {count} so far.",
        "连续失败 {limit} 次则打开：目前 {count} 次。",
    ),
    "opens_rate": (
        "It opens at a failure rate of {limit}: {part} of {calls} failed so far.",
        "失败率达 {limit} 则打开：目前 {calls} 次中失败 {part} 次。",
    ),
    "opens_slow": (
        "It opens at a share of slow calls of {limit}: {part} of {calls} so far.",
        "慢调用占比达 {limit} 则打开：目前 {calls} 次中 {part} 次。",
    ),
    "so_far": (
        "So far: {openings}, {rejected} turned away.",
        "迄今：{openings}，拒绝 {rejected}。",
    ),
    # Alerts.
    "alert.raised": ("{who}: an incident began, level {level}.", "{who}：告警开始，级别{level}。"),
    "alert.escalated": (
        "{who}: the incident became worse, from {previous} to {level}.",
        "{who}：告警升级，由 {previous} 至 {level}。",
    ),
    "alert.deescalated": (
        "{who}: the incident eased, from {previous} to {level}.",
        "{who}：告警降级，由{previous}至{level}。",
    ),
    "alert.reminder": ("{who}: the incident goes on, level {level}.", "{who}：告警持续，级别{level}。"),
    "alert.silenced": ("It came while alerts were silenced: nobody was told.", "当时告警被静默：未通知任何人。"),
    "alert.resolved": ("{who}: the incident is over; its worst level was {peak}.", "{who}：告警解除，最高级别 {peak}。"),
    "alert.other": ("{who}: {kind}, level {level} (before: {previous}).", "{who}：{kind}，级别 {level}（此前 {previous}）。"),
    "over_limit": ("{metric}: {value}, limit {limit}.", "{metric}：{value}，上限 {limit}。"),
    "under_limit": ("{metric} had been {value}, limit {limit}.", "{metric}曾为 {value}，上限 {limit}。"),
    "alert_counts": (
        "Judged over {calls}; incident {incident}, {seconds} after it began.",
        "依据 {calls}；第 {incident} 次事件，开始后 {seconds}。",
    ),
    "skipped": ("… {count} more …", "……另有 {count} 步……"),
    "title": ("Explanation", "说明"),
    "a_monitor": ("A monitor", "监控"),
}

WORDS: dict[str, str] = {
    "closed": "关闭",
    "open": "打开",
    "half_open": "半开",
    "forced_open": "强制打开",
    "disabled": "停用",
    "metrics_only": "仅计数",
    "normal": "正常",
    "warning": "警告",
    "critical": "严重",
    "emergency": "紧急",
    "attempts used up": "尝试次数已用完",
    "no time left for another attempt": "剩余时间不足以再次尝试",
    "the patience is used up": "耐心已耗尽",
    "the server asked for a longer wait than allowed": "服务端要求的等待超过允许值",
    "the circuit opened": "断路器已打开",
    "the retry budget is spent": "重试预算已用完",
    "the stop condition was met": "满足停止条件",
    "not retryable": "不可重试",
    "exception": "异常",
    "result": "结果",
    "circuit": "断路器",
    "rate limit": "限流器",
    "bulkhead": "并发上限",
    "hedge": "对冲请求",
    "cache": "缓存",
    "policy": "策略",
    "latency": "延迟",
}

# What alerts are about.
METRICS: dict[str, tuple[str, str]] = {
    "outage": ("failures in a row", "连续失败次数"),
    "error_rate": ("error rate", "错误率"),
    "success_rate": ("success rate", "成功率"),
    "retry_rate": ("retry rate", "重试率"),
    "fallback_rate": ("fallback rate", "降级率"),
    "avg_latency": ("mean latency", "平均延迟"),
    "p95": ("p95 latency", "P95 延迟"),
    "p99": ("p99 latency", "P99 延迟"),
    "first_token": ("mean time to the first token", "首字延迟"),
    "tokens": ("tokens", "令牌数"),
    "cost": ("cost", "费用"),
}

# Why a breaker is in its state, as the core says it.
_CAUSES = (
    (r"nothing has happened yet", "尚无事件"),
    (r"a failure", "一次失败"),
    (r"(\d+) failures in a row", r"连续失败 \1 次"),
    (r"(\d+) of (\d+) calls failed \((\d+) %\)", r"\2 次调用中失败 \1 次（\3 %）"),
    (r"(\d+) of (\d+) calls were slow \((\d+) %\)", r"\2 次调用中 \1 次过慢（\3 %）"),
    (r"a probe failed", "试探失败"),
    (r"a probe was slow", "试探过慢"),
    (r"the recovery time was over", "恢复时间已到"),
    (r"a probe succeeded", "试探成功"),
    (r"(\d+) probes succeeded", r"\1 次试探成功"),
    (r"by hand", "人工"),
)


def word(said: str, language: str) -> str:
    """A word or a reason of the core's in that language; one that is not known stays as it is."""
    if said in METRICS:
        return METRICS[said][LANGUAGES.index(language)]
    if language == "en":
        return said.replace("_", " ")
    for pattern, chinese in _CAUSES:
        found = re.fullmatch(pattern, said)
        if found:
            return found.expand(chinese)
    return WORDS.get(said, said)


def phrase(name: str, language: str, **gaps: object) -> str:
    """The sentence of that name."""
    return PHRASES[name][LANGUAGES.index(language)].format_map(gaps)
