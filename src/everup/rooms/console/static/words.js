// Every word of the page, in English and Chinese. What services and everup's engine say stays as it is.

const EN = {
  n_s: "{n} s", n_min: "{n} min", n_h: "{n} h", n_d: "{n} d",
  services: "Services", events: "Events", sign_out: "Sign out", language: "中文", language_hint: "切换到中文",
  theme: "Theme", theme_dark: "Dark", theme_light: "Light", theme_auto: "As the system",
  live: "Live", connecting: "Connecting", lost: "No connection",
  lost_long: "No connection to the console for {for}. What you see is from {at}; trying again.",
  away: "everup's engine does not answer since {at}. Services go on without it; it is being replaced.",
  stopping: "everup is stopping all services.",
  journal: "The journal cannot be written: {why}. Services go on; what happens is held in memory.",
  state_up: "Up", state_degraded: "Degraded", state_down: "Down", state_starting: "Starting",
  state_stopped: "Stopped", state_done: "Done", state_running: "Running", state_none: "None",
  state_ready: "Ready", state_backoff: "Backing off", state_parked: "Parked", state_failed: "Failed",
  state_draining: "Draining", state_stopping: "Stopping", state_waiting: "Waiting",
  all_up: "All {n} services are up.", one_up: "The service is up.", none_there: "No service is configured.",
  all_up_but: "All {n} services that should run are up; stopped on purpose: {names}.",
  some_up: "{up} of {n} services are up. {names}.",
  is_state: "{name} is {state}", word_down: "down", word_degraded: "degraded", word_starting: "starting",
  last_incident: "Last incident {ago} ago, over after {took}:", no_incident: "No incident is known.",
  watched: "Incident {n} hurts nobody any more, and is watched until it is over:",
  more_incidents: "{n} more open", incident: "Incident {n}", since: "since {at}, for {for}",
  because: "Cause", sure: "{n} % sure", no_cause: "No confident cause yet", everup_does: "everup",
  you_can: "You can", acknowledged: "Taken on by {who}",
  do_backoff: "starts {slot} again in {in}", do_backoff_now: "starts {slot} again now",
  do_parked: "has seen {slot} crash too often and tries again in {in}",
  do_failed: "does not start {slot} again: its restart policy says so",
  do_starting: "is starting {slot}", do_running: "waits until {slot} is ready",
  do_waiting: "holds {slot} back until what it depends on is up", do_rollout: "is replacing its processes",
  do_stopping: "is stopping {slot}", do_draining: "lets the connections of {slot} end", do_stopped: "keeps {slot} stopped",
  do_nothing: "watches until it is certain that it is over",
  col_service: "Service", col_state: "State", col_ready: "Ready", col_restarts: "Restarts", col_cpu: "CPU",
  col_mem: "Memory", col_since: "Since", col_strip: "24 hours", col_why: "Last exit, or reason",
  col_instance: "Instance", col_pid: "PID", col_probes: "Probes", col_time: "Time", col_what: "What", col_subject: "Subject",
  filter: "Filter services", filter_hint: "Press / to filter", nothing_found: "Nothing fits.",
  changed_last: "What changed last", more_events: "All events", nothing_yet: "Nothing yet.",
  silence: "Silence", do_silence: "Silence incident {n}?", how_long: "For how long", done_silence: "Nobody is told of incident {n} for a while.",
  will_silence: "Nobody is told of it meanwhile. everup goes on watching and acting.",
  filter_output: "Filter lines",
  approve: "Approve", deny: "Deny", everup_did: "everup did", everup_would: "everup would",
  do_approve: "Let everup do it?", do_deny: "Keep everup from it?",
  will_approve: "everup does it at once, if it still applies.", will_deny: "everup does not do it; the next rung of the ladder follows.",
  done_approve: "Approved.", done_deny: "Denied.",
  restart: "Restart", stop: "Stop", start: "Start", ack: "Acknowledge", cancel: "Cancel", why: "Reason",
  why_hint: "The journal keeps it for who comes after you.", same: "The same as a command", copy: "Copy", copied: "Copied",
  do_restart: "Restart {name}?", do_stop: "Stop {name}?", do_start: "Start {name}?", do_ack: "Take incident {n} on?",
  will_restart: "everup looks first whether it can start again; then its processes are replaced, a batch at a time.",
  will_restart_listen: "Successors are ready before the old processes drain: no request is lost.",
  will_stop: "It stays stopped, over restarts of everup and of the machine, until somebody starts it.",
  will_stop_needed: "These need it: {names}.",
  will_start: "everup starts it, in the order of what it depends on.",
  will_ack: "Others see that you are on it. It stays open until it is over.",
  done_restart: "{name} is being restarted.", done_stop: "{name} is stopping.", done_start: "{name} is starting.",
  done_ack: "Incident {n} is yours.", refused: "Not done",
  not_reached: "The console does not answer.", back: "All services",
  instances: "Instances", outgoing: "Being replaced", addresses: "Listens on", needs: "Needs", availability: "24 h",
  config: "Config in force", config_hint: "Secrets are masked; defaults are marked.", set_only: "Only what is set",
  output: "Output", output_hint: "The newest lines; read again every 3 s.", follow: "Follow", no_output: "It has said nothing.",
  timeline: "What happened, in order", evidence: "Evidence", runner_up: "Less likely", symptoms: "Symptoms ({n})",
  hurt: "Hurt", path: "Path", opened_at: "Began", over_at: "Over", over_after: "after {took}", severity: "Severity",
  what_you_can: "What a person can do", inc_open: "open", inc_acknowledged: "taken on", inc_mitigated: "mitigated",
  inc_resolved: "over", inc_merged: "part of another", incidents: "Incidents", came_back: "It came back {n} times meanwhile.",
  kind: "Kind", subject: "Service", text: "Text", search: "Search", older: "Older", any: "any",
  kind_hint: "like instance.parked, incidents.*", events_hint: "Newest first; the last {n} that fit.",
  signed_out: "You are not signed in", signed_out_long: "On the machine, ask for a link. It is good once, for two minutes.",
  paste: "Or paste the link here", open: "Open", link_bad: "This link was used, or is too old.", not_a_link: "That is no link of everup console.",
  not_there: "There is no such page.", gone: "There is no service {name} any more.",
  strip_says: "{p} available in 24 hours, down for {down}", strip_none: "nothing known of the last 24 hours",
  legend_u: "up", legend_g: "fewer replicas", legend_d: "down", legend_p: "stopped on purpose", legend_x: "unknown",
  user: "Signed in as {user}", machine: "{cpus} CPUs, {cpu} busy, load {load}, {mem} of memory free",
  ok: "ok", probe_fails: "fails ({n})", standby: "standby", signed_in_as: "signed in as",
};

const ZH = {
  n_s: "{n} 秒", n_min: "{n} 分", n_h: "{n} 小时", n_d: "{n} 天",
  services: "服务", events: "事件", sign_out: "退出", language: "English", language_hint: "Switch to English",
  theme: "外观", theme_dark: "深色", theme_light: "浅色", theme_auto: "跟随系统",
  live: "实时", connecting: "正在连接", lost: "连接中断",
  lost_long: "与控制台的连接已中断 {for}。以下内容截至 {at}；正在重试。",
  away: "everup 引擎自 {at} 起没有响应。服务照常运行；引擎正在被替换。",
  stopping: "everup 正在停止所有服务。",
  journal: "日志库无法写入：{why}。服务照常运行；事件暂存于内存。",
  state_up: "正常", state_degraded: "降级", state_down: "中断", state_starting: "启动中",
  state_stopped: "已停止", state_done: "已完成", state_running: "运行中", state_none: "无实例",
  state_ready: "就绪", state_backoff: "退避中", state_parked: "已搁置", state_failed: "已失败",
  state_draining: "排空中", state_stopping: "停止中", state_waiting: "等待中",
  all_up: "全部 {n} 个服务正常。", one_up: "服务正常。", none_there: "没有配置任何服务。",
  all_up_but: "应当运行的 {n} 个服务全部正常；人为停止：{names}。",
  some_up: "{n} 个服务中有 {up} 个正常。{names}。",
  is_state: "{name} {state}", word_down: "中断", word_degraded: "降级", word_starting: "正在启动",
  last_incident: "上一次故障在 {ago}前，持续 {took}：", no_incident: "没有已知的故障。",
  watched: "故障 {n} 已不再造成影响，仍在观察直到结束：",
  more_incidents: "另有 {n} 个未结束", incident: "故障 {n}", since: "始于 {at}，已 {for}",
  because: "原因", sure: "把握 {n} %", no_cause: "尚无可靠的原因", everup_does: "everup",
  you_can: "您可以", acknowledged: "由 {who} 接手",
  do_backoff: "将在 {in} 后重新启动 {slot}", do_backoff_now: "正在重新启动 {slot}",
  do_parked: "因 {slot} 崩溃过于频繁而搁置，{in} 后再试",
  do_failed: "按重启策略不再启动 {slot}",
  do_starting: "正在启动 {slot}", do_running: "正在等待 {slot} 就绪",
  do_waiting: "在其依赖恢复之前暂缓启动 {slot}", do_rollout: "正在替换其进程",
  do_stopping: "正在停止 {slot}", do_draining: "正在等待 {slot} 的连接结束", do_stopped: "使 {slot} 保持停止",
  do_nothing: "继续观察，直到确认已经结束",
  col_service: "服务", col_state: "状态", col_ready: "就绪", col_restarts: "重启", col_cpu: "CPU",
  col_mem: "内存", col_since: "已持续", col_strip: "24 小时", col_why: "最近退出或原因",
  col_instance: "实例", col_pid: "PID", col_probes: "探针", col_time: "时间", col_what: "事件", col_subject: "对象",
  filter: "筛选服务", filter_hint: "按 / 键筛选", nothing_found: "没有符合的内容。",
  changed_last: "最近的变化", more_events: "全部事件", nothing_yet: "暂无。",
  silence: "静默", do_silence: "静默故障 {n}？", how_long: "多久", done_silence: "故障 {n} 暂时不再通知任何人。",
  will_silence: "其间不通知任何人。everup 继续观察和处理。",
  filter_output: "筛选行",
  approve: "批准", deny: "否决", everup_did: "已做", everup_would: "everup 提议",
  do_approve: "让 everup 执行？", do_deny: "不让 everup 执行？",
  will_approve: "如仍适用，everup 立即执行。", will_deny: "everup 不执行；接着考虑恢复阶梯的下一级。",
  done_approve: "已批准。", done_deny: "已否决。",
  restart: "重启", stop: "停止", start: "启动", ack: "接手", cancel: "取消", why: "理由",
  why_hint: "日志会保留它，供后来的人查看。", same: "等效的命令", copy: "复制", copied: "已复制",
  do_restart: "重启 {name}？", do_stop: "停止 {name}？", do_start: "启动 {name}？", do_ack: "接手故障 {n}？",
  will_restart: "everup 先检查它能否再次启动，然后分批替换其进程。",
  will_restart_listen: "新进程就绪之后旧进程才排空：不会丢失请求。",
  will_stop: "它将保持停止，即使 everup 或机器重启，直到有人启动它。",
  will_stop_needed: "依赖它的服务：{names}。",
  will_start: "everup 按依赖顺序启动它。",
  will_ack: "其他人会看到您正在处理。故障在真正结束之前保持未结束状态。",
  done_restart: "正在重启 {name}。", done_stop: "正在停止 {name}。", done_start: "正在启动 {name}。",
  done_ack: "故障 {n} 由您接手。", refused: "未执行",
  not_reached: "控制台没有响应。", back: "全部服务",
  instances: "实例", outgoing: "正在被替换", addresses: "监听", needs: "依赖", availability: "24 小时",
  config: "生效的配置", config_hint: "机密已隐藏；默认值已标注。", set_only: "仅显示已设置的项",
  output: "输出", output_hint: "最新的行；每 3 秒刷新。", follow: "跟随", no_output: "还没有任何输出。",
  timeline: "事情经过", evidence: "证据", runner_up: "可能性较小", symptoms: "症状（{n}）",
  hurt: "受影响", path: "路径", opened_at: "开始", over_at: "结束", over_after: "历时 {took}", severity: "严重程度",
  what_you_can: "您可以做什么", inc_open: "未处理", inc_acknowledged: "已接手", inc_mitigated: "已缓解",
  inc_resolved: "已结束", inc_merged: "并入其他故障", incidents: "故障", came_back: "其间又出现了 {n} 次。",
  kind: "类型", subject: "服务", text: "文本", search: "查找", older: "更早", any: "不限",
  kind_hint: "例如 instance.parked、incidents.*", events_hint: "最新在前；符合条件的最近 {n} 条。",
  signed_out: "您尚未登录", signed_out_long: "请在该机器上获取链接。链接两分钟内有效，只能使用一次。",
  paste: "或在此粘贴链接", open: "打开", link_bad: "该链接已被使用或已过期。", not_a_link: "这不是 everup console 的链接。",
  not_there: "没有这个页面。", gone: "服务 {name} 已不存在。",
  strip_says: "24 小时内可用率 {p}，中断 {down}", strip_none: "最近 24 小时没有记录",
  legend_u: "正常", legend_g: "副本不足", legend_d: "中断", legend_p: "人为停止", legend_x: "未知",
  user: "已登录：{user}", machine: "{cpus} 个 CPU，占用 {cpu}，负载 {load}，可用内存 {mem}",
  ok: "正常", probe_fails: "失败（{n}）", standby: "备用", signed_in_as: "登录身份",
};

// What a kind of entry of the journal means. Others are shown by their names.
const KINDS = {
  "engine.started": ["everup's engine runs", "everup 引擎已启动"],
  "engine.stopping": ["everup stops everything", "everup 正在停止一切"],
  "engine.stopped": ["everything is down", "一切已停止"],
  "engine.defect": ["everup's engine failed by its own fault", "everup 引擎因自身缺陷失败"],
  "service.wanted": ["somebody asked for it", "有人提出要求"],
  "service.scaled": ["scaled", "副本数已改变"],
  "instance.waiting": ["is held back", "暂缓启动"],
  "instance.starting": ["starts", "正在启动"],
  "instance.adopted": ["taken over as it runs", "原样接管"],
  "instance.spawned": ["its process runs", "进程已创建"],
  "instance.running": ["runs, is not ready yet", "运行中，尚未就绪"],
  "instance.ready": ["is ready", "已就绪"],
  "instance.suspected": ["a probe failed once", "一次探测失败"],
  "instance.cleared": ["the suspicion has passed", "怀疑已解除"],
  "instance.unhealthy": ["failed by its probes: is killed", "探针判定失败：将被终止"],
  "instance.draining": ["drains", "排空中"],
  "instance.stopping": ["is being stopped", "正在停止"],
  "instance.killing": ["did not end in time: is killed", "未按时结束：将被杀死"],
  "instance.exited": ["ended", "已结束"],
  "instance.stopped": ["is down, as it should be", "按要求停止"],
  "instance.backoff": ["will be started again", "稍后重新启动"],
  "instance.parked": ["crashed too often: retried slowly", "崩溃过于频繁：缓慢重试"],
  "instance.failed": ["is not started again", "不再启动"],
  "instance.stable": ["has been up long enough", "已稳定"],
  "instance.signalled": ["gets a signal", "收到信号"],
  "instance.lost": ["ended unseen", "在无人察觉时结束"],
  "instance.spared": ["is spared: nobody else would serve", "予以保留：否则无人服务"],
  "balance.changed": ["gets connections by other replicas", "连接分配已改变"],
  "sockets.opened": ["listens", "已打开监听"],
  "sockets.closed": ["listens no more", "已关闭监听"],
  "rollout.started": ["is being replaced", "开始替换"],
  "rollout.done": ["has been replaced", "替换完成"],
  "rollout.stopped": ["the replacement ended early", "替换提前终止"],
  "config.reloading": ["a changed config is applied", "正在应用新配置"],
  "config.reloaded": ["the changed config is in force", "新配置已生效"],
  "config.rolling_back": ["the reload failed: back to the old config", "重载失败：恢复旧配置"],
  "config.rolled_back": ["the old config is in force again", "旧配置已恢复"],
  "storm.braking": ["too many restarts: further ones wait", "重启过多：后续等待"],
  "storm.over": ["restarts pass again", "重启恢复放行"],
  "incidents.opened": ["an incident begins", "故障开始"],
  "incidents.explained": ["its cause", "故障原因"],
  "incidents.joined": ["a further symptom", "新的症状"],
  "incidents.acknowledged": ["somebody has taken it on", "有人接手"],
  "incidents.mitigated": ["nobody is hurt any more", "影响已消除"],
  "incidents.resolved": ["it is over", "故障结束"],
  "observer.started": ["a process beside the engine runs", "辅助进程已启动"],
  "observer.ended": ["a process beside the engine ended; services go on", "辅助进程结束；服务照常运行"],
  "detect.began": ["found", "发现"],
  "detect.ended": ["found to be over", "确认结束"],
  "recover.began": ["everup does something about it", "everup 正在采取措施"],
  "recover.proposed": ["everup proposes something", "everup 提出建议"],
  "recover.answered": ["somebody has answered", "有人作出答复"],
  "recover.ended": ["what came of it", "措施的结果"],
  "recover.undone": ["what was done for it is undone", "临时措施已撤销"],
  "incidents.responded": ["what everup did", "everup 所做的事"],
  "incidents.merged": ["is a part of another one", "并入其他故障"],
  "notify.sent": ["somebody was told", "已通知"],
  "notify.failed": ["somebody could not be told", "通知失败"],
  "notify.held": ["nobody was told", "未通知"],
  "notify.silenced": ["somebody wants silence", "有人要求静默"],
  "console.opened": ["the console was opened", "控制台已打开"],
  "console.acted": ["asked for in the console", "在控制台提出要求"],
  "slo.burning": ["spends its error budget too fast", "错误预算消耗过快"],
  "slo.calm": ["the error budget is fine again", "错误预算恢复正常"],
};

/** What a kind of entry of the journal means, in words. */
export function kindWords(kind) {
  const found = KINDS[kind];
  return found ? found[language() === "zh" ? 1 : 0] : kind;
}

const STORE = "everup.language";
let chosen = "";

function stored() {
  try {
    return localStorage.getItem(STORE) || "";
  } catch {
    return "";
  }
}

/** The language of the page: en or zh. */
export function language() {
  if (!chosen) chosen = stored() || ((navigator.language || "").startsWith("zh") ? "zh" : "en");
  return chosen;
}

/** Take the other one, and keep it. */
export function switchLanguage() {
  chosen = language() === "zh" ? "en" : "zh";
  try {
    localStorage.setItem(STORE, chosen);
  } catch {
    // for this page only, then
  }
}

/** A text in the language of the page; {name} is filled in. */
export function t(key, given = {}) {
  const text = (language() === "zh" ? ZH : EN)[key] ?? EN[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(given[name] ?? ""));
}
