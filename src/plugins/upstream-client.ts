import type { IncomingHttpHeaders } from 'node:http'
import { type Dispatcher, errors, Pool } from 'undici'

/**
 * What one GET came to. An upstream that fails is a normal outcome, so nothing here is an exception.
 * `reason` is for our own log: it holds no identifier and no text of the answer.
 */
export type HttpAnswer =
  /** 200 with a JSON body, which is parsed and not yet checked. */
  | { result: 'ok', body: unknown }
  /** No answer, or one that says the service is broken (5xx) or overloaded (429). */
  | { result: 'error', retryable: boolean, reason: string }
  | { result: 'timeout', reason: string }
  /** An answer outside the contract. `systemic`: the service as a whole speaks something else; else it may be about this question only. */
  | { result: 'invalid', systemic: boolean, reason: string }

export interface UpstreamClientOptions {
  /** Base URL of the service; its path, if any, is put before every path asked. */
  baseUrl: string
  /** The deadline that callers enforce by signal, ms; connections and dumped bodies get little more. */
  deadlineMs: number
}

/** A valid answer has some hundred bytes; what is larger is not the service we meant to ask. */
const MAX_BODY_BYTES = 64 * 1024
/** Bounds sockets while a service hangs; what waits for one is given up at its deadline. */
const MAX_CONNECTIONS = 128
/** Drops a byte order mark, which a JSON text may carry and a parser ignore (RFC 8259, section 8.1). */
const UTF8 = new TextDecoder()
const HEADERS = { accept: 'application/json', 'user-agent': 'viewing-service' }
const JSON_TYPE = /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i

/** GETs JSON from one HTTP origin over a pool of kept connections. Follows no redirect, since that would let the answer come from elsewhere. */
export class UpstreamClient {
  readonly #pool: Pool
  readonly #prefix: string
  readonly #deadlineMs: number

  constructor ({ baseUrl, deadlineMs }: UpstreamClientOptions) {
    const { origin, pathname } = new URL(baseUrl)
    // The library's own timers tick in half seconds: they only clean up, the deadline itself is the caller's signal.
    const cleanUpMs = Math.max(1_000, 2 * deadlineMs)
    this.#prefix = pathname.replace(/\/+$/, '')
    this.#deadlineMs = deadlineMs
    this.#pool = new Pool(origin, {
      connections: MAX_CONNECTIONS,
      pipelining: 1,
      allowH2: false,
      maxResponseSize: MAX_BODY_BYTES,
      connect: { timeout: cleanUpMs },
      headersTimeout: cleanUpMs,
      bodyTimeout: cleanUpMs
    })
  }

  /** Asks once. Settles at the latest when the signal aborts, and never rejects. */
  async get (path: string, query: Record<string, string>, signal: AbortSignal): Promise<HttpAnswer> {
    const target = `${this.#prefix}${path}?${queryText(query)}`
    return await new Promise(resolve => { this.#pool.dispatch({ method: 'GET', path: target, headers: HEADERS }, new Exchange(signal, resolve)) })
  }

  /** Lets running calls end, for as long as their deadline can last, then closes every connection. */
  async close (): Promise<void> {
    const bound = setTimeout(() => { this.#pool.destroy().catch(() => { /* closing already */ }) }, this.#deadlineMs)
    await this.#pool.close().catch(() => { /* destroyed by the bound */ })
    clearTimeout(bound)
  }
}

/**
 * One question and its answer, as the library's core tells of them: its `request` makes a stream of each body and listeners around it, which was
 * half of what a question cost. Settles once; what comes later only keeps the connection.
 */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #signal: AbortSignal
  readonly #settle: (answer: HttpAnswer) => void
  #controller: Dispatcher.DispatchController | undefined
  #chunks: Buffer[] = []
  #settled = false
  readonly #onAbort = (): void => {
    this.#finish({ result: 'timeout', reason: 'deadline' })
    this.#controller?.abort(new errors.RequestAbortedError())
  }

  constructor (signal: AbortSignal, settle: (answer: HttpAnswer) => void) {
    this.#signal = signal
    this.#settle = settle
    if (signal.aborted) this.#onAbort()
    else signal.addEventListener('abort', this.#onAbort)
  }

  /** Not at once when every connection is taken: then the deadline may have passed. */
  onRequestStart (controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#signal.aborted) controller.abort(new errors.RequestAbortedError())
  }

  onResponseStart (_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    const refused = status < 200 ? undefined : judge(status, headers)
    if (refused !== undefined) this.#finish(refused)
  }

  onResponseData (_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.#settled) this.#chunks.push(chunk)
  }

  onResponseEnd (): void {
    if (!this.#settled) this.#finish(parse(UTF8.decode(Buffer.concat(this.#chunks))))
  }

  onResponseError (_controller: Dispatcher.DispatchController, error: Error): void {
    this.#finish(failure(error))
  }

  #finish (answer: HttpAnswer): void {
    if (this.#settled) return
    this.#settled = true
    this.#chunks = []
    this.#signal.removeEventListener('abort', this.#onAbort)
    this.#settle(answer)
  }
}

/** As `URLSearchParams` writes what is no space, in a quarter of its time. */
function queryText (query: Record<string, string>): string {
  return Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&')
}

/** The outcome of an answer whose body does not matter; undefined if it does. */
function judge (status: number, headers: Record<string, string | string[] | undefined>): HttpAnswer | undefined {
  const reason = `status ${status}`
  if (status === 429) return { result: 'error', retryable: false, reason }
  // A service that names a time to come back does not want to be asked again within ours.
  if (status >= 500) return { result: 'error', retryable: headers['retry-after'] === undefined, reason }
  if (status !== 200) return { result: 'invalid', systemic: status < 400, reason }
  if (!JSON_TYPE.test(String(headers['content-type'] ?? ''))) return { result: 'invalid', systemic: true, reason: 'not JSON' }
  return undefined
}

function parse (text: string): HttpAnswer {
  try {
    const body: unknown = JSON.parse(text)
    return { result: 'ok', body }
  } catch {
    return { result: 'invalid', systemic: true, reason: 'malformed JSON' }
  }
}

function failure (error: unknown): HttpAnswer {
  if (error instanceof errors.ResponseExceededMaxSizeError) return { result: 'invalid', systemic: true, reason: 'too large' }
  if (error instanceof errors.HTTPParserError || error instanceof errors.HeadersOverflowError) return { result: 'invalid', systemic: true, reason: 'not HTTP' }
  if (error instanceof errors.ConnectTimeoutError || error instanceof errors.HeadersTimeoutError || error instanceof errors.BodyTimeoutError) {
    return { result: 'timeout', reason: error.code }
  }
  const ours = error instanceof errors.ClientClosedError || error instanceof errors.ClientDestroyedError
  return { result: 'error', retryable: !ours, reason: codeOf(error) }
}

function codeOf (error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name
}
