import { setTimeout as sleep } from 'node:timers/promises'

export interface Failure { operation: string, what: string, atMs: number, retryAfter: string | null }

/** What a stretch of load saw. */
export interface Tally {
  requests: number
  /** Answers that a viewer would notice: anything but the operation's good status, or no answer. */
  failures: Failure[]
  /** From the first failure to the last, ms; 0 without. */
  windowMs: number
  /** Failures by operation and status. */
  kinds: Record<string, number>
}

export interface Viewers {
  /** What was seen since the last call, and begins anew. */
  take: () => Tally
  /** Sessions whose 201 was read and that were not asked to end, by user. */
  acknowledged: ReadonlyMap<string, ReadonlySet<string>>
  /** The most of them that one user ever had. */
  mostOfOneUser: () => number
  /** Acknowledged sessions that a heartbeat found gone (404 or 410). */
  lost: string[]
  /** Sessions started and ended so far. */
  counts: { started: number, ended: number, refused: number }
  /** Ends the loops where they are; what is acknowledged stays live. Gives the last token of each session. */
  stop: () => Promise<Map<string, string>>
}

export interface ViewersOptions {
  /** Tells these viewers' users, devices and keys from others'. */
  name: string
  url: () => string
  /** Loops at work at the same time; two of three share a user. */
  loops: number
  /** Rest after each request, ms: bounds the rate. */
  restMs: number
  /** Heartbeats of one session before it ends. */
  beats: number
}

interface Answer { status: number, retryAfter: string | null, body: { session?: { session_id: string }, playback_token?: string, valid?: boolean } }

/**
 * Viewers who start, beat, have their token validated and stop, over and over. A refusal that says "try again" (503) is tried again,
 * a start with the same Idempotency-Key, as the clients are told to. Every answer is counted.
 */
export function startViewers ({ name, url, loops, restMs, beats }: ViewersOptions): Viewers {
  let requests = 0
  let failures: Failure[] = []
  let most = 0
  /** A method, since a loop's condition on it changes elsewhere. */
  const life = { over: false, goesOn: () => !life.over }
  const acknowledged = new Map<string, Set<string>>()
  const tokens = new Map<string, string>()
  const lost: string[] = []
  const counts = { started: 0, ended: 0, refused: 0 }

  async function ask (operation: string, path: string, headers: Record<string, string>, body: object, good: readonly number[]): Promise<Answer | undefined> {
    requests++
    try {
      const response = await fetch(`${url()}/api/playback${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
      const text = await response.text()
      const answer = { status: response.status, retryAfter: response.headers.get('retry-after'), body: response.status < 500 ? Object(JSON.parse(text)) : {} }
      if (!good.includes(answer.status)) failures.push({ operation, what: `${answer.status} ${/"code":"([^"]*)"/.exec(text)?.[1] ?? text.slice(0, 80)}`, atMs: performance.now(), retryAfter: answer.retryAfter })
      return answer
    } catch (error) {
      failures.push({ operation, what: error instanceof Error ? `${error.message} ${String(error.cause ?? '')}` : String(error), atMs: performance.now(), retryAfter: null })
      return undefined
    } finally {
      await sleep(restMs)
    }
  }
  /** Until the answer is another than "try again", or the load ends. */
  async function insist (...args: Parameters<typeof ask>): Promise<Answer | undefined> {
    for (;;) {
      const answer = await ask(...args)
      if (answer !== undefined && answer.status < 500) return answer
      if (life.over) return undefined
    }
  }

  async function watch (user: string, device: string, turn: number): Promise<void> {
    const headers = { 'idempotency-key': `${device}-${turn}` }
    const began = await insist('start', '/session', headers, { user_id: user, profile_id: 'p', content_id: 'content789', device_id: device }, [201, 200, 409])
    if (began?.status === 409) {
      counts.refused++
      return
    }
    const id = began?.body.session?.session_id
    if (began === undefined || id === undefined) return
    const own = acknowledged.get(user) ?? new Set()
    acknowledged.set(user, own.add(id))
    most = Math.max(most, own.size)
    counts.started++
    let token = began.body.playback_token ?? ''
    const keep = (): void => { tokens.set(id, token) }
    keep()
    for (let beat = 1; beat <= beats && life.goesOn(); beat++) {
      const answer = await insist('heartbeat', `/session/${id}/heartbeat`, { authorization: `Bearer ${token}` }, { position: beat }, [200])
      if (answer?.status === 404 || answer?.status === 410) {
        lost.push(id)
        own.delete(id)
        return
      }
      token = answer?.body.playback_token ?? token
      keep()
      const checked = await ask('validate', '/token/validate', {}, { token }, [200])
      if (checked?.status === 200 && checked.body.valid !== true) failures.push({ operation: 'validate', what: `not valid ${JSON.stringify(checked.body)}`, atMs: performance.now(), retryAfter: null })
    }
    if (life.over) return
    // Asked to end: from here on the slot may be free, whether the answer arrives or not.
    own.delete(id)
    const ended = await insist('stop', `/session/${id}/stop`, { authorization: `Bearer ${token}` }, {}, [200])
    if (ended?.status === 200) counts.ended++
  }

  const loopsDone = Promise.all(Array.from({ length: loops }, async (_, loop) => {
    const user = loop % 3 === 2 ? `${name}-alone-${loop}` : `${name}-shared-${Math.floor(loop / 3) % Math.max(1, Math.floor(loops / 9))}`
    for (let turn = 0; life.goesOn(); turn++) await watch(user, `${name}-device-${loop}`, turn)
  }))

  return {
    take () {
      const kinds: Record<string, number> = {}
      for (const { operation, what } of failures) kinds[`${operation}: ${what}`] = (kinds[`${operation}: ${what}`] ?? 0) + 1
      const [first, last] = [failures[0]?.atMs ?? 0, failures.at(-1)?.atMs ?? 0]
      const tally = { requests, failures, windowMs: last - first, kinds }
      requests = 0
      failures = []
      return tally
    },
    acknowledged,
    mostOfOneUser: () => most,
    lost,
    counts,
    async stop () {
      life.over = true
      await loopsDone
      return tokens
    }
  }
}
