/** Talking to the server: an answer as a stream of events. */

/** An error with the server's own message and status (0: never reached). */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Yields the parsed events of an SSE body; borders between network chunks mean nothing. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter((l) => l.startsWith("data:")).map((l) => l.slice(5).trimStart());
      if (!data.length) continue; // a keep-alive comment
      if (data.join("\n") === "[DONE]") return;
      yield JSON.parse(data.join("\n"));
    }
  }
}

/** The name of the model that is served. */
export async function modelName(headers) {
  const reply = await fetch("/v1/models", { headers });
  if (!reply.ok) throw await failure(reply);
  return (await reply.json()).data[0].id;
}

/**
 * Ask for an answer; calls onText(text) as it grows and returns {finish, usage}.
 * Rejects with ServerError, or AbortError when `signal` stops it.
 */
export async function answer(request, headers, signal, onText) {
  const reply = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!reply.ok) throw await failure(reply);
  let finish = null;
  let usage = null;
  for await (const event of events(reply.body)) {
    if (event.error) throw new ServerError(event.error.message, 500);
    usage = event.usage ?? usage;
    const choice = event.choices[0];
    if (!choice) continue;
    if (choice.delta.content) onText(choice.delta.content);
    finish = choice.finish_reason ?? finish;
  }
  if (finish === null) throw new ServerError("", 0);
  return { finish, usage };
}

async function failure(reply) {
  const body = await reply.json().catch(() => null);
  return new ServerError(body?.error?.message ?? `HTTP ${reply.status}`, reply.status);
}
