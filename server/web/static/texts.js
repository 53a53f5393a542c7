// The page's words in both languages. Functions take what varies.

export const TEXTS = {
  zh: {
    lang: "zh-CN", brand: "探源", otherLanguage: "EN", changeLanguage: "切换到英文",
    skip: "跳到结果", collection: "知识库", searchLabel: "搜索文档", placeholder: "搜索或提问，例如：差旅报销标准",
    search: "搜索", ask: "提问", askTitle: "由本地模型根据文档回答（Alt+Enter）",
    mode: "检索方式", hybrid: "综合", bm25: "关键词", vector: "语义",
    hybridTitle: "同时按词语和含义检索", bm25Title: "只按词语检索（BM25）", vectorTitle: "只按含义检索（向量）",
    answer: "回答", stop: "停止", copy: "复制", copied: "已复制", sources: "来源", context: "所用资料",
    results: "搜索结果", previous: "上一页", next: "下一页", pages: "翻页", stages: "各阶段用时", about: "本机所用组件",
    close: "关闭", keyTitle: "需要访问密钥", keyText: "此服务器要求密钥。请输入管理员给您的密钥；只保存在当前标签页。",
    keyLabel: "访问密钥", keyUse: "使用", keyWrong: "服务器不认识这个密钥。",
    welcome: "输入词语搜索公司文档，或直接提问。所有内容只在本机处理。",
    keys: [["/", "聚焦搜索框"], ["↓ ↑", "在结果间移动"], ["Alt+Enter", "提问"], ["Ctrl+Enter", "在新标签页打开"], ["Esc", "停止回答"]],
    suggestions: "搜索建议", suggested: (n) => `${n} 条建议，用上下方向键选择`,
    suggestionKinds: { title: "文档", heading: "章节", query: "搜过" }, meant: "您是不是要找：",
    searching: "正在搜索…", reading: "正在阅读资料…", writing: "正在回答…",
    best: (ms) => `按相关程度排列，用时 ${ms} 毫秒`,
    found: (total, ms) => `找到 ${total.toLocaleString("zh-CN")} 段，用时 ${ms} 毫秒`,
    nothing: (q) => `没有找到与“${q}”有关的内容。`,
    nothingHint: "可以换个说法、减少词语，或改用“综合”检索。", noMore: "没有更多结果了。", comma: "、",
    page: (n) => `第 ${n} 页`, degraded: "部分功能未启用：", why: "排名依据", more: (n) => `同一文档另有 ${n} 段`,
    ranker: "排序器", rank: "名次", score: "分数", whole: "显示全文", shorter: "收起",
    rankers: { bm25: "关键词 BM25", vector: "语义向量", sparse: "学得词权", fused: "融合", rerank: "重排序" },
    stageNames: {
      bm25: "关键词", vector: "语义", sparse: "学得词权", rerank: "重排序", generator: "回答模型", analyze: "分词", embed: "查询向量", retrieve: "检索",
      fuse: "融合", rerank_passages: "取重排段落", passages: "取段落", highlight: "标亮",
    },
    status: { answered: "", partial: "未完成", refused: "资料中没有答案", extract: "原文摘录（未使用语言模型）" },
    stopped: "已停止", failed: "搜索失败：", answerFailed: "回答中断：", network: "无法连接服务器，请确认它正在运行。",
    untitled: "无标题", opening: "正在打开…", openSource: (n, title) => `来源 ${n}：${title}`,
    contextText: (c) => `提示共 ${c.tokens} / ${c.limit} 个词元；使用 ${c.used.length} 段，舍去 ${c.dropped.length} 段，截短 ${c.truncated.length} 段。`,
    cut: "（此处省略）", ready: "可用", notReady: "未启用", components: { store: "存储", embedder: "向量模型", reranker: "重排序模型", generator: "回答模型" },
    problems: {
      unauthorized: "需要有效的访问密钥。", forbidden: "此密钥无权这样做。",
      collection_not_found: "没有这个知识库。", document_not_found: "该文档已不在知识库中。", page_too_deep: "翻页太深，请缩小搜索范围。",
      store_unavailable: "存储暂时不可用，请稍后再试。", store_timeout: "存储超时，请稍后再试。", embedder_unavailable: "向量模型不可用，请改用“关键词”检索。",
      generator_interrupted: "回答模型中途停止了，搜索不受影响；请稍后重新提问。", generator_unavailable: "回答模型不可用，搜索不受影响。",
      generator_timeout: "回答模型长时间没有响应。", generator_model_missing: "回答模型尚未下载。", recipe_mismatch: "知识库是用另一种设置建立的，需要管理员重建。",
    },
  },
  en: {
    lang: "en", brand: "Tanyuan", otherLanguage: "中文", changeLanguage: "Switch to Chinese",
    skip: "Skip to results", collection: "Collection", searchLabel: "Search the documents", placeholder: "Search or ask, for example: travel expense limits",
    search: "Search", ask: "Ask", askTitle: "A local model answers from the documents (Alt+Enter)",
    mode: "Search by", hybrid: "Both", bm25: "Words", vector: "Meaning",
    hybridTitle: "By words and by meaning", bm25Title: "By words only (BM25)", vectorTitle: "By meaning only (vectors)",
    answer: "Answer", stop: "Stop", copy: "Copy", copied: "Copied", sources: "Sources", context: "Material used",
    results: "Results", previous: "Previous", next: "Next", pages: "Pages", stages: "Time per stage", about: "What runs here",
    close: "Close", keyTitle: "A key is needed", keyText: "This server asks for a key. Enter the one your administrator gave you; it stays in this tab only.",
    keyLabel: "Key", keyUse: "Use", keyWrong: "The server does not know this key.",
    welcome: "Search your company's documents, or ask a question. Nothing leaves this machine.",
    keys: [["/", "search box"], ["↓ ↑", "move through results"], ["Alt+Enter", "ask"], ["Ctrl+Enter", "new tab"], ["Esc", "stop the answer"]],
    suggestions: "Suggestions", suggested: (n) => `${n} ${n === 1 ? "suggestion" : "suggestions"}, arrow keys to choose`,
    suggestionKinds: { title: "document", heading: "section", query: "searched before" }, meant: "Did you mean: ",
    searching: "Searching…", reading: "Reading the sources…", writing: "Answering…",
    best: (ms) => `Best first, in ${ms} ms`,
    found: (total, ms) => `${total.toLocaleString("en")} ${total === 1 ? "passage" : "passages"} in ${ms} ms`,
    nothing: (q) => `Nothing was found for “${q}”.`,
    nothingHint: "Try other or fewer words, or search by both words and meaning.", noMore: "There are no more results.", comma: ", ",
    page: (n) => `Page ${n}`, degraded: "Running without: ", why: "Why this rank", more: (n) => `${n} more in this document`,
    ranker: "Ranker", rank: "Rank", score: "Score", whole: "Show all", shorter: "Show less",
    rankers: { bm25: "Words (BM25)", vector: "Meaning (vector)", sparse: "Learned word weights", fused: "Fused", rerank: "Reranked" },
    stageNames: {
      bm25: "words", vector: "meaning", sparse: "learned word weights", rerank: "reranking", generator: "answering model", analyze: "analysis", embed: "query vector",
      retrieve: "retrieval", fuse: "fusion", rerank_passages: "passages to rerank", passages: "passages", highlight: "highlights",
    },
    status: { answered: "", partial: "Incomplete", refused: "The documents do not say", extract: "Quoted from the documents (no language model)" },
    stopped: "Stopped", failed: "The search failed: ", answerFailed: "The answer broke off: ", network: "The server can't be reached. Check that it is running.",
    untitled: "Untitled", opening: "Opening…", openSource: (n, title) => `Source ${n}: ${title}`,
    contextText: (c) => `${c.tokens} of ${c.limit} prompt tokens; ${c.used.length} passages used, ${c.dropped.length} dropped, ${c.truncated.length} cut.`,
    cut: "(left out here)", ready: "ready", notReady: "off", components: { store: "Store", embedder: "Embedder", reranker: "Reranker", generator: "Generator" },
    problems: { generator_interrupted: "The answering model stopped in the middle; search still works. Ask again in a moment." },
  },
};

/** A problem in the page's language, with the server's own words, which name the cause. */
export function explain({ code, message }, words) {
  const known = words.problems[code];
  if (known && message) return `${known} (${message})`;
  return known || message || words.network;
}

/** The saved language, else the browser's, Chinese where neither says. */
export function firstLanguage() {
  const saved = localStorage.getItem("language");
  if (saved in TEXTS) return saved;
  return /^en\b/i.test(navigator.language) ? "en" : "zh";
}

/** Fill every marked element of the page. */
export function fillTexts(words) {
  document.documentElement.lang = words.lang;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = words[element.dataset.text];
  for (const element of document.querySelectorAll("[data-title]")) element.title = words[element.dataset.title];
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", words[element.dataset.label]);
  for (const element of document.querySelectorAll("[data-placeholder]")) element.placeholder = words[element.dataset.placeholder];
  for (const element of document.querySelectorAll("[data-html-keys]")) {
    element.replaceChildren(...words.keys.flatMap(([key, does]) => {
      const kbd = document.createElement("kbd");
      kbd.textContent = key;
      const span = document.createElement("span");
      span.append(kbd, ` ${does}`);
      return [span];
    }));
  }
}
