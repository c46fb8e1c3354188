/** Talking to the server: the model's name, and an answer as a stream of events. */

/**
 * Why there is no answer, or no whole one. `kind` is "failed" (the server said so, in `message`),
 * "offline" (never reached) or "broken" (the answer ended too early or made no sense).
 */
export class AnswerError extends Error {
  constructor(kind, message = "", status = 0) {
    super(message);
    this.kind = kind;
    this.status = status;
  }
}

/** The name of the model that is served. */
export async function modelName(headers) {
  const reply = await call("/v1/models", { headers });
  const name = (await reply.json().catch(() => null))?.data?.[0]?.id;
  if (typeof name !== "string") throw new AnswerError("broken");
  return name;
}

/**
 * Ask for an answer. Calls onText(piece) as it grows; resolves to {finish, usage}.
 * Rejects with AnswerError, or with AbortError when `signal` stops it.
 */
export async function answer(request, headers, signal, onText) {
  const reply = await call("/v1/chat/completions", {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  let finish = null;
  let usage = null;
  for await (const event of events(reply.body)) {
    if (event.error) throw new AnswerError("failed", event.error.message);
    usage = event.usage ?? usage;
    const choice = event.choices?.[0];
    if (choice?.delta?.content) onText(choice.delta.content);
    finish = choice?.finish_reason ?? finish;
  }
  if (finish === null) throw new AnswerError("broken");
  return { finish, usage };
}

/**
 * The parsed events of a server-sent stream of bytes, up to [DONE] or its end. Where the network
 * cuts the stream means nothing, be it inside a line end or inside a character.
 */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  let complete = false;
  try {
    while (true) {
      const { done, value } = await reader.read().catch(unreadable);
      complete = done;
      if (done) return;
      // A \r that comes last may be the first half of \r\n.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line !== "" || !data.length) continue; // comments, and the blank line after one
        const text = data.join("\n");
        data = [];
        complete = text === "[DONE]";
        if (complete) return;
        yield parsed(text);
      }
    }
  } finally {
    // Left early, the server must not go on writing for nobody.
    if (!complete) reader.cancel().catch(() => {});
  }
}

async function call(path, options) {
  const reply = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : new AnswerError("offline");
  });
  if (reply.ok) return reply;
  const body = await reply.json().catch(() => null);
  throw new AnswerError("failed", body?.error?.message ?? `HTTP ${reply.status}`, reply.status);
}

function unreadable(error) {
  throw error.name === "AbortError" ? error : new AnswerError("broken");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new AnswerError("broken");
  }
}
