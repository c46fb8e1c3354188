/** From a message's text to elements. Text only ever becomes textContent, never markup. */

/** Fill `target` with `text`: fenced code as blocks with a copy button, the rest as paragraphs. */
export function render(target, text, labels) {
  target.replaceChildren();
  for (const [i, part] of text.split("```").entries()) {
    if (i % 2 === 0) {
      if (part.trim()) target.append(element("p", part.replace(/^\n+|\n+$/g, "")));
      continue;
    }
    const newline = part.indexOf("\n");
    const name = newline >= 0 ? part.slice(0, newline).trim() : "";
    const code = newline >= 0 ? part.slice(newline + 1).replace(/\n$/, "") : part;
    const head = element("div", "", "code-head");
    const copy = element("button", labels.copy);
    copy.type = "button";
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code);
      copy.textContent = labels.copied;
    });
    head.append(element("span", name), copy);
    const pre = element("pre", "");
    pre.tabIndex = 0;
    pre.append(element("code", code));
    target.append(head, pre);
  }
}

/** An element with text and a class. */
export function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}
