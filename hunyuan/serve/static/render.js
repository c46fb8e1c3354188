/** From a message's text to elements. Text only ever becomes textContent, never markup. */

import { label } from "./texts.js";

/**
 * Fill `target` with `text`: fenced code as blocks with a copy button, the rest as paragraphs.
 * Called again with a longer text it touches only what changed, so that a selection in an answer
 * survives while the answer grows.
 */
export function render(target, text) {
  const parts = split(text);
  while (target.children.length > parts.length) target.lastElementChild.remove();
  for (const [i, part] of parts.entries()) {
    const old = target.children[i];
    const kind = part.code ? `code ${part.name}` : "text";
    const node = old?.dataset.kind === kind ? old : part.code ? block(part.name) : element("p");
    node.dataset.kind = kind;
    const holder = part.code ? node.querySelector("code") : node;
    if (holder.textContent !== part.text) holder.textContent = part.text;
    if (node === old) continue;
    if (old) old.replaceWith(node);
    else target.append(node);
  }
}

/**
 * The text as [{code, name, text}]. A fence is a line of its own, three or more backticks or
 * tildes; the same character at least as often closes it, and one left open lasts to the end.
 */
function split(text) {
  const parts = [];
  let fence = null;
  let lines = [];
  const end = () => {
    const joined = lines.join("\n");
    if (fence) parts.push({ code: true, name: fence.name, text: joined });
    else if (joined.trim()) parts.push({ code: false, text: joined.replace(/^\n+|\n+$/g, "") });
    lines = [];
  };
  for (const line of text.split("\n")) {
    const found = /^ {0,3}(`{3,}|~{3,})([^`]*)$/.exec(line);
    if (found && !fence) {
      end();
      fence = { mark: found[1], name: found[2].trim() };
    } else if (found && found[1].startsWith(fence.mark) && !found[2].trim()) {
      end();
      fence = null;
    } else {
      lines.push(line);
    }
  }
  end();
  return parts;
}

function block(name) {
  const root = element("div", "block");
  const head = element("div", "code-head");
  const pre = element("pre");
  const code = element("code");
  pre.tabIndex = 0; // a long line can be scrolled with the keyboard
  pre.append(code);
  const title = element("span");
  title.textContent = name;
  head.append(title, copyButton(() => code.textContent, code));
  root.append(head, pre);
  return root;
}

/**
 * A button that copies what getText() returns. Where the browser forbids it (plain HTTP from
 * another machine) it selects `node`, which shows the text, for copying by hand.
 */
export function copyButton(getText, node) {
  const button = labelled("button", "copy", "copy");
  button.type = "button";
  const show = (name) => {
    button.dataset.text = name;
    label(button);
  };
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(getText());
      show("copied");
    } catch {
      getSelection().selectAllChildren(node);
      show("copyByHand");
    }
    setTimeout(() => show("copy"), 2000);
  });
  return button;
}

/** An element with a class. */
export function element(name, className = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  return made;
}

/** An element that shows the page's string `text`, in whichever language. */
export function labelled(name, text, className) {
  const made = element(name, className);
  made.dataset.text = text;
  label(made);
  return made;
}
