import { begin, call } from './two-regions.ts'

interface Service { url: string }
export interface Watched { id: string, token: string, user: string }

/**
 * Viewers who start and beat as players do: a start is repeated with its key until it is decided, a heartbeat goes out every T/2 and is not repeated.
 * Each call goes to the next of the services.
 */
export class Viewers {
  readonly #services: readonly Service[]
  readonly #beatMs: number
  readonly #closed = new AbortController()
  readonly #running: Array<Promise<void>> = []
  #calls = 0
  readonly watched: Watched[] = []
  /** Users' starts that were answered 409. */
  refused = 0
  /** performance.now() of each call that changed something. */
  readonly successes: number[] = []
  /** Calls that failed and may be repeated, by code. */
  readonly failures = new Map<string, number>()
  /** What no viewer may read: 404 and 410. */
  readonly ended: string[] = []

  constructor (services: readonly Service[], beatMs: number) {
    this.#services = services
    this.#beatMs = beatMs
  }

  /** Starts `devices` sessions of one user at once; settles when each is decided, and goes on to beat. */
  async arrive (user: string, devices: number): Promise<void> {
    await Promise.all(Array.from({ length: devices }, async (_, device) => {
      while (!this.#closed.signal.aborted) {
        const answer = await this.#try(async () => await begin(this.#next(), user, { key: `device-${device}` }))
        if (answer?.status === 200 || answer?.status === 201) {
          const session = { id: answer.id, token: answer.token, user }
          this.watched.push(session)
          this.#running.push(this.#beat(session))
          return
        }
        if (answer?.status === 409) {
          this.refused++
          return
        }
        await this.#pause(50)
      }
    }))
  }

  /** Longest time without a success that includes `from` or begins after it, ms. */
  longestGapMs (from: number): number {
    const times = this.successes.toSorted((a, b) => a - b)
    return times.reduce((longest, time, index) => index > 0 && time >= from ? Math.max(longest, time - (times[index - 1] ?? time)) : longest, 0)
  }

  async leave (): Promise<void> {
    this.#closed.abort()
    await Promise.all(this.#running)
  }

  async #beat (session: Watched): Promise<void> {
    for (let position = 1; !this.#closed.signal.aborted; position++) {
      await this.#pause(this.#beatMs)
      const answer = await this.#try(async () => await call(this.#next(), 'POST', `/session/${session.id}/heartbeat`, { token: session.token, body: { position } }))
      if (answer !== undefined && answer.status !== 200) {
        this.ended.push(`${session.user} ${answer.status} ${JSON.stringify(answer.body)}`)
        return
      }
    }
  }

  /** undefined for a call that failed: 503, or no answer. */
  async #try<T extends { status: number, body: { code?: string } }> (work: () => Promise<T>): Promise<T | undefined> {
    const answer = await work().catch((error: unknown) => String(Object(Object(error).cause).code ?? error))
    if (typeof answer === 'object' && answer.status < 500) {
      if (answer.status < 300) this.successes.push(performance.now())
      return answer
    }
    const code = typeof answer === 'string' ? answer : answer.body.code ?? String(answer.status)
    this.failures.set(code, (this.failures.get(code) ?? 0) + 1)
    return undefined
  }

  #next (): Service {
    const service = this.#services[this.#calls++ % this.#services.length]
    if (service === undefined) throw new Error('no service')
    return service
  }

  async #pause (ms: number): Promise<void> {
    await new Promise<void>(resolve => {
      const timer = setTimeout(done, ms)
      const { signal } = this.#closed
      function done (): void {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      signal.addEventListener('abort', done)
    })
  }
}
