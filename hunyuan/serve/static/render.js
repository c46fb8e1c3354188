/** From a message's text to elements. Text only ever becomes textContent, never markup. */

/**
 * Fill `target` with `text`: fenced code as blocks with a copy button, the rest as paragraphs.
 * Called again with a longer text it touches only what changed, so that a selection in an answer
 * survives while the answer grows.
 */
export function render(target, text, labels) {
  const parts = split(text);
  while (target.children.length > parts.length) target.lastElementChild.remove();
  for (const [i, part] of parts.entries()) {
    const old = target.children[i];
    const kind = part.code ? `code ${part.name}` : "text";
    const node = old?.dataset.kind === kind ? old : part.code ? block(part, labels) : element("p", "");
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
  const end = (code, name = "") => {
    const joined = lines.join("\n");
    if (code || joined.trim()) parts.push({ code, name, text: code ? joined : joined.replace(/^\n+|\n+$/g, "") });
    lines = [];
  };
  for (const line of text.split("\n")) {
    const found = /^ {0,3}(`{3,}|~{3,})([^`]*)$/.exec(line);
    if (found && !fence) {
      end(false);
      fence = { mark: found[1], name: found[2].trim() };
    } else if (found && fence && found[1].startsWith(fence.mark) && !found[2].trim()) {
      end(true, fence.name);
      fence = null;
    } else {
      lines.push(line);
    }
  }
  end(fence !== null, fence?.name);
  return parts;
}

function block({ name }, labels) {
  const root = element("div", "", "block");
  const head = element("div", "", "code-head");
  const pre = element("pre", "");
  pre.tabIndex = 0;
  const code = element("code", "");
  pre.append(code);
  const button = element("button", labels.copy);
  button.type = "button";
  button.addEventListener("click", async () => {
    button.textContent = (await copy(code)) ? labels.copied : labels.copyByHand;
    setTimeout(() => { button.textContent = labels.copy; }, 2000);
  });
  head.append(element("span", name), button);
  root.append(head, pre);
  return root;
}

/** Copies an element's text; where the browser forbids it (plain HTTP elsewhere) selects it. */
async function copy(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(node);
    return false;
  }
}

/** An element with text and a class. */
export function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}
