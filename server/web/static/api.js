// Calls to the server. Errors are ApiError with the problem document's code and detail, and the key
// that was sent, since an answer to an older key says nothing of the one in use.

export class ApiError extends Error {
  constructor(detail, { code = "network", status = 0, key = null } = {}) {
    super(detail);
    this.code = code;
    this.status = status;
    this.key = key;
  }
}

export const currentKey = () => sessionStorage.getItem("key");

function headers(key, extra = {}) {
  return { ...extra, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function call(path, { body, signal, accept = "application/json" } = {}) {
  const key = currentKey();
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: headers(key, { Accept: accept, ...(body ? { "Content-Type": "application/json" } : {}) }),
      body: body && JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new ApiError(problem.detail ?? response.statusText, { code: problem.code, status: response.status, key });
  }
  return response;
}

const json = async (path, options) => (await call(path, options)).json();

export const search = (body, signal) => json("/v1/search", { body, signal });
export const suggest = (q, collection, signal) => json(`/v1/suggest?${new URLSearchParams({ q, collection })}`, { signal });
export const collections = () => json("/v1/collections");
export const getDocument = (collection, id, signal) =>
  json(`/v1/collections/${encodeURIComponent(collection)}/documents/${encodeURIComponent(id).replaceAll("%2F", "/")}`, { signal });
/** Readiness, whose 503 is an answer too. */
export const readiness = async () => (await fetch("/readyz", { headers: headers(currentKey()) })).json();

/** Events of a streamed answer as {event, data}; ends with the stream. */
export async function* answer(body, signal) {
  const response = await call("/v1/answer", { body: { ...body, stream: true }, signal, accept: "text/event-stream" });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("");
    }
    if (piece.done) return;
    buffer += piece.value.replaceAll("\r\n", "\n");
    let end;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const event = parse(buffer.slice(0, end));
      buffer = buffer.slice(end + 2);
      if (event) yield event;
    }
  }
}

/** One event of the HTML standard's event stream; null for a comment (heartbeat). */
function parse(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  return data.length ? { event, data: JSON.parse(data.join("\n")) } : null;
}
