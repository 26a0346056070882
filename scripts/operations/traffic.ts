import { setTimeout as sleep } from 'node:timers/promises'

/** What the viewers do now; may be changed at any time. */
export interface Habits {
  startsPerSecond: number
  /** Heartbeats of a session, and the rest between them, ms. */
  beats: number
  restMs: number
  /** Viewers that come back again and again; fewer of them use more slots each. */
  viewers: number
  /** Shares of the starts that come from an account whose slots are all taken, and from one without the plan. */
  atLimit: number
  denied: number
  /** Share of those at their limit that take over a slot. */
  takeOver: number
  /** Whether a player stops its session when it is done. */
  stops: boolean
  /** Whether tokens are validated against the session as well. */
  live: boolean
  /** A token to validate in place of the session's own. */
  token: string | undefined
}

const ORDINARY: Habits = { startsPerSecond: 10, beats: 3, restMs: 150, viewers: 1_000, atLimit: 0, denied: 0, takeOver: 0, stops: true, live: true, token: undefined }
const TICK_MS = 50
/** So many viewers at most wait for something; further ones stay away, as nobody is behind a hanging answer for ever. */
const MOST = 400
const PATIENCE_MS = 5_000

/** Viewers at a steady rate, whatever the answers are: each starts, beats, has its token validated and stops. */
export class Traffic {
  readonly habits: Habits
  readonly #url: () => string | undefined
  #due = 0
  #number = 0
  #watching = 0
  #timer: NodeJS.Timeout | undefined

  constructor (url: () => string | undefined, habits: Partial<Habits> = {}) {
    this.#url = url
    this.habits = { ...ORDINARY, ...habits }
    this.#timer = setInterval(() => {
      this.#due += this.habits.startsPerSecond * TICK_MS / 1_000
      for (; this.#due >= 1; this.#due--) if (this.#watching < MOST) this.#watch().catch(() => { /* a viewer who gives up */ })
    }, TICK_MS)
  }

  close (): void {
    clearInterval(this.#timer)
    this.habits.startsPerSecond = 0
  }

  async post (path: string, body: object, token = ''): Promise<{ status: number, body: Record<string, unknown> }> {
    const url = this.#url()
    if (url === undefined) return { status: 0, body: {} }
    try {
      const response = await fetch(`${url}/api/playback${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...(token === '' ? {} : { authorization: `Bearer ${token}` }) },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(PATIENCE_MS)
      })
      return { status: response.status, body: Object(await response.json()) }
    } catch {
      return { status: 0, body: {} }
    }
  }

  async #watch (): Promise<void> {
    this.#watching++
    try {
      const { habits } = this
      const number = this.#number++
      const kind = Math.random()
      const crowd = kind < habits.atLimit
      const user = crowd ? 'crowd' : kind < habits.atLimit + habits.denied ? `blocked-${number}` : `viewer-${number % habits.viewers}`
      const { status, body } = await this.post('/session', {
        user_id: user, profile_id: 'p', content_id: `title-${number % 50}`, device_id: `device-${number % 4}`, ...(crowd && Math.random() < habits.takeOver ? { on_limit: 'supersede_oldest' } : {})
      })
      if (status !== 201) return
      const id = String(Object(body.session).session_id)
      let token = String(body.playback_token)
      for (let beat = 1; beat <= habits.beats; beat++) {
        await sleep(habits.restMs)
        const answer = await this.post(`/session/${id}/heartbeat`, { position: beat, metadata: { quality: '1080p', network: 'wifi' } }, token)
        if (answer.status === 404 || answer.status === 410) return
        if (typeof answer.body.playback_token === 'string') token = answer.body.playback_token
        await this.post('/token/validate', { token: habits.token ?? token, live: habits.live })
      }
      // The account at its limit keeps its sessions, until they are silent for T.
      if (habits.stops && !crowd) await this.post(`/session/${id}/${number % 3 === 0 ? 'complete' : 'stop'}`, {}, token)
    } finally {
      this.#watching--
    }
  }
}
