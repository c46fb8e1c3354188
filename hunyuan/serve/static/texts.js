/** Every string of the page, in both languages; a test compares their keys. */

export const texts = {
  en: {
    newChat: "New chat",
    settings: "Settings",
    otherLanguage: "中文",
    conversation: "Conversation",
    send: "Send",
    stop: "Stop",
    placeholder: "Write a message",
    hint: "Enter sends, Shift+Enter starts a new line. Answers can be wrong.",
    welcome: "What would you like to do?",
    writeTitle: "Write",
    writeExample: "Write a short, friendly email that moves tomorrow's meeting to Friday.",
    explainTitle: "Explain",
    explainExample: "Explain in simple words why the sea is salty.",
    codeTitle: "Code",
    codeExample: "Write a Python function that finds the prime numbers up to n.",
    you: "You:",
    model: "Model:",
    waiting: "Reading the conversation…",
    latest: "Latest message ↓",
    system: "Instruction for every answer",
    systemExample: "For example: Answer briefly and politely.",
    temperature: "Temperature",
    temperatureHelp: "0 picks the likeliest word, 2 is wild",
    maxTokens: "Longest answer",
    maxTokensHelp: "in tokens, each about four letters",
    copy: "Copy",
    copied: "Copied",
    copyByHand: "Selected: press Ctrl+C",
    retry: "Try again",
    stopped: "Stopped",
    length: "cut off at the longest answer set",
    offline: "The server cannot be reached. Is it still running?",
    broken: "The connection ended before the answer did.",
    keyNeeded: "This server asks for an API key",
    keyUse: "Use key",
    speed: (tokens, rate) =>
      `${tokens} ${tokens === 1 ? "token" : "tokens"}${rate === null ? "" : ` · ${rate} tokens/s`}`,
  },
  zh: {
    newChat: "新对话",
    settings: "设置",
    otherLanguage: "English",
    conversation: "对话",
    send: "发送",
    stop: "停止",
    placeholder: "输入消息",
    hint: "Enter 发送，Shift+Enter 换行。回答可能有误。",
    welcome: "今天想做点什么？",
    writeTitle: "写作",
    writeExample: "写一封简短友好的邮件，把明天的会议改到周五。",
    explainTitle: "讲解",
    explainExample: "用简单的话解释海水为什么是咸的。",
    codeTitle: "编程",
    codeExample: "用 Python 写一个函数，找出不超过 n 的所有素数。",
    you: "你：",
    model: "模型：",
    waiting: "正在阅读对话…",
    latest: "最新消息 ↓",
    system: "对每个回答的要求",
    systemExample: "例如：请简短、礼貌地回答。",
    temperature: "温度",
    temperatureHelp: "0 只选最可能的词，2 最随意",
    maxTokens: "回答长度上限",
    maxTokensHelp: "以词元计，一个词元约一到两个汉字",
    copy: "复制",
    copied: "已复制",
    copyByHand: "已选中：请按 Ctrl+C",
    retry: "重试",
    stopped: "已停止",
    length: "已达到设定的长度上限",
    offline: "无法连接服务器。它还在运行吗？",
    broken: "回答尚未结束，连接已中断。",
    keyNeeded: "该服务器需要 API 密钥",
    keyUse: "使用密钥",
    speed: (tokens, rate) => `${tokens} 个词元${rate === null ? "" : ` · 每秒 ${rate} 个`}`,
  },
};

/** The strings of the language the page is in now, which is the document's. */
export const say = () => texts[document.documentElement.lang.slice(0, 2)];

/** Write the strings that `root` and what is in it ask for with data-text, -label, -placeholder. */
export function label(root) {
  for (const node of [root, ...root.querySelectorAll("*")]) {
    const { text, label: name, placeholder } = node.dataset;
    if (text) node.textContent = say()[text];
    if (name) node.setAttribute("aria-label", say()[name]);
    if (placeholder) node.placeholder = say()[placeholder];
  }
}
