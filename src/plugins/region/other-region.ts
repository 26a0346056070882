import { Pool } from 'undici'

export interface OtherRegionOptions {
  /** Base URL of the service there; its path, if any, is put before every path asked. */
  url: string
  deadlineMs: number
}

export interface ForwardedCall {
  method: string
  /** Path and query. */
  path: string
  headers: Record<string, string>
  body: string | undefined
}
export interface ForwardedAnswer { status: number, headers: Record<string, string | string[] | undefined>, body: Buffer }

/** `reachable`: it answers, and does not say which of the two it is. */
export type OtherRole = 'unknown' | 'writer' | 'reader' | 'reachable' | 'unreachable'

/** Each waits for one answer across regions, some 100 ms. */
const MAX_CONNECTIONS = 512
/** The largest answer, a batch's, stays well below. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024

/** The service in the other region. */
export class OtherRegion {
  readonly #pool: Pool
  readonly #prefix: string
  readonly #deadlineMs: number
  role: OtherRole = 'unknown'

  constructor ({ url, deadlineMs }: OtherRegionOptions) {
    const { origin, pathname } = new URL(url)
    this.#prefix = pathname.replace(/\/+$/, '')
    this.#deadlineMs = deadlineMs
    // The library's own timers are coarse and only clean up; the deadline is the signal below.
    const cleanUpMs = 2 * deadlineMs
    this.#pool = new Pool(origin, {
      connections: MAX_CONNECTIONS, pipelining: 1, allowH2: false, maxResponseSize: MAX_ANSWER_BYTES, connect: { timeout: cleanUpMs }, headersTimeout: cleanUpMs, bodyTimeout: cleanUpMs
    })
  }

  /**
   * Sends once, never again by itself: only the caller knows whether he may. Follows no redirect. The answer is read in full, so that the deadline
   * holds for its last byte too. @throws Error without one; then nobody knows whether the call was carried out.
   */
  async send ({ method, path, headers, body }: ForwardedCall): Promise<ForwardedAnswer> {
    const answer = await this.#pool.request({
      method, path: `${this.#prefix}${path}`, headers, body: body ?? null, signal: AbortSignal.timeout(this.#deadlineMs)
    })
    return { status: answer.statusCode, headers: answer.headers, body: Buffer.from(await answer.body.arrayBuffer()) }
  }

  /** Asks for its health, to know its role. Never throws. */
  async probe (): Promise<void> {
    try {
      const { body } = await this.send({ method: 'GET', path: '/health/ready', headers: { accept: 'application/json' }, body: undefined })
      this.role = roleIn(body.toString())
    } catch {
      this.role = 'unreachable'
    }
  }

  async close (): Promise<void> {
    await this.#pool.destroy()
  }
}

function roleIn (text: string): OtherRole {
  try {
    const health: unknown = JSON.parse(text)
    if (typeof health !== 'object' || health === null || !('role' in health)) return 'reachable'
    return health.role === 'writer' || health.role === 'reader' ? health.role : 'reachable'
  } catch {
    return 'reachable'
  }
}
