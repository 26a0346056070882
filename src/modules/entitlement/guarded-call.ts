import { setTimeout as sleep } from 'node:timers/promises'
import type { Knowledge, Verdict } from './answers.ts'
import { Circuit, Guarded } from './circuit.ts'
import { RetryBudget } from './retry-budget.ts'

export type UpstreamName = 'identity' | 'content'
/** One call, or the refusal to make one (`open`), for metrics. A retry is a call of its own. */
export interface CallReport {
  upstream: UpstreamName
  result: 'ok' | 'denied' | 'error' | 'timeout' | 'invalid' | 'open'
  durationSeconds: number
}

/** What the transport gives back; see the upstream plugin, which provides it. */
export type TransportAnswer =
  | { result: 'ok', body: unknown }
  | { result: 'error', retryable: boolean, reason: string }
  | { result: 'timeout', reason: string }
  | { result: 'invalid', systemic: boolean, reason: string }

export interface GuardedCallOptions<T> {
  upstream: UpstreamName
  /** Asks once; settles at the latest when the signal aborts, never rejects. */
  ask: (query: Record<string, string>, signal: AbortSignal) => Promise<TransportAnswer>
  /** Checks an answer; undefined if it breaks the contract. */
  read: (body: unknown) => Verdict<T> | undefined
  deadlineMs: number
  /** Monotonic time, ms. */
  clock: () => number
  /** Uniform in [0, 1). */
  random: () => number
  onCall?: (call: CallReport) => void
  onCircuit?: (change: { upstream: UpstreamName, open: boolean, reason: string }) => void
}

interface Attempt<T> { knowledge: Knowledge<T>, retryable: boolean }

/** A retry waits up to this share of the deadline, so that retries of one moment spread, … */
const JITTER_SHARE = 0.1
/** … and is made only if this share is left then: with less it would most likely only add load. */
const RETRY_SHARE = 0.4

/**
 * Asks one service one question within a deadline: at most one retry, of fast failures only and within a budget, behind a circuit breaker.
 *
 * The circuit counts what says that the service as a whole is broken: no connection, 5xx, 429, no answer in time, an answer that is not
 * JSON. An answer about one question (4xx, a body that breaks the schema) shows that the service is alive: else one caller who
 * asks for odd ids could close the door for everyone.
 */
export class GuardedCall<T> {
  readonly #options: GuardedCallOptions<T>
  readonly #budget = new RetryBudget()
  readonly #circuit: Circuit
  #lastFailure = ''

  constructor (options: GuardedCallOptions<T>) {
    this.#options = options
    const { upstream, clock, onCircuit } = options
    this.#circuit = new Circuit({ clock, onChange: open => { onCircuit?.({ upstream, open, reason: this.#lastFailure }) } })
  }

  /** Never rejects for a reason that lies with the service. */
  async call (query: Record<string, string>): Promise<Knowledge<T>> {
    const { deadlineMs, clock, random } = this.#options
    const endMs = clock() + deadlineMs
    const abort = new AbortController()
    const timer = setTimeout(() => { abort.abort() }, deadlineMs)
    try {
      if (this.#circuit.closed) this.#budget.deposit()
      const first = await this.#attempt(query, abort.signal)
      const pauseMs = random() * JITTER_SHARE * deadlineMs
      const inTime = endMs - clock() - pauseMs >= RETRY_SHARE * deadlineMs
      if (!first.retryable || !inTime || !this.#circuit.closed || !this.#budget.withdraw()) return first.knowledge
      await sleep(pauseMs)
      return (await this.#attempt(query, abort.signal)).knowledge
    } finally {
      clearTimeout(timer)
    }
  }

  async #attempt (query: Record<string, string>, signal: AbortSignal): Promise<Attempt<T>> {
    const { upstream, ask, clock, onCall } = this.#options
    const startedMs = clock()
    const attempt = await this.#circuit.run(async () => {
      const answer = await ask(query, signal)
      const judged = this.#judge(answer)
      onCall?.({ upstream, result: judged.result, durationSeconds: (clock() - startedMs) / 1_000 })
      return new Guarded(judged.attempt, judged.failed)
    })
    if (attempt !== undefined) return attempt
    onCall?.({ upstream, result: 'open', durationSeconds: 0 })
    return this.#failed(false)
  }

  #judge (answer: TransportAnswer): { attempt: Attempt<T>, failed: boolean, result: CallReport['result'] } {
    if (answer.result === 'ok') {
      const verdict = this.#options.read(answer.body)
      if (verdict === undefined) return { attempt: this.#failed(false), failed: false, result: 'invalid' }
      return { attempt: { knowledge: verdict, retryable: false }, failed: false, result: verdict.answer === 'yes' ? 'ok' : 'denied' }
    }
    this.#lastFailure = answer.reason
    const failed = answer.result !== 'invalid' || answer.systemic
    return { attempt: this.#failed(answer.result === 'error' && answer.retryable), failed, result: answer.result }
  }

  #failed (retryable: boolean): Attempt<T> {
    return { knowledge: { answer: 'unknown', retryAfterMs: this.#circuit.remainingMs }, retryable }
  }
}
