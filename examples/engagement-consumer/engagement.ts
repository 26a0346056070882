import type { PlaybackEvent } from '../../src/schemas.ts'

/** What the engagement service keeps of one session. */
interface SessionState {
  contentId: string
  profile: string
  /** Lifecycle changes applied so far; the next one has the seq after it. */
  seq: number
  playing: boolean
  ended: boolean
  /** Time of the last event that was applied, ms. */
  lastMs: number
  position: number
  /** Lifecycle events that came before an earlier one. */
  early: PlaybackEvent[]
  seen: string[]
}

/** Where a title was left, by the newest event that said so; a completed one is kept as such, or an older event that is read later would bring it back. */
interface Bookmark { position: number, atMs: number, completed: boolean }

export interface Snapshot {
  sessions: Array<[string, SessionState]>
  watchedMs: Array<[string, number]>
  continueWatching: Array<[string, Array<[string, Bookmark]>]>
  repeats: number
}

/** Longer silence between two events of a session was not watched: two heartbeat intervals. */
const LONGEST_STEP_MS = 60_000
/** An ended session is remembered this long, so that repeats of its events are still known. */
const FORGET_MS = 3_600_000

/**
 * The consumer's side of the event contract: drops repeats by `event_id`, applies lifecycle events in the order of `seq`
 * whatever the order of arrival, takes from heartbeats what is newer than what it has.
 */
export class Engagement {
  readonly #sessions = new Map<string, SessionState>()
  readonly #watchedMs = new Map<string, number>()
  /** Profile → content → where it was left. */
  readonly #continueWatching = new Map<string, Map<string, Bookmark>>()
  #repeats = 0

  constructor (snapshot?: Snapshot) {
    if (snapshot === undefined) return
    this.#sessions = new Map(snapshot.sessions)
    this.#watchedMs = new Map(snapshot.watchedMs)
    this.#continueWatching = new Map(snapshot.continueWatching.map(([profile, contents]) => [profile, new Map(contents)]))
    this.#repeats = snapshot.repeats
  }

  apply (event: PlaybackEvent): void {
    const session = this.#session(event)
    if (session.seen.includes(event.event_id)) {
      this.#repeats++
      return
    }
    session.seen.push(event.event_id)
    if (event.event_type === 'playback.heartbeat') {
      // Only the last heartbeats can be repeated in practice; lifecycle ids are few and all kept.
      session.seen = session.seen.filter((id, index) => !id.includes(':hb:') || index > session.seen.length - 10)
      if (!session.ended && session.seq > 0) this.#advance(session, event)
      return
    }
    session.early.push(event)
    session.early.sort((a, b) => a.seq - b.seq)
    while (session.early[0]?.seq === session.seq + 1) this.#change(session, session.early.shift())
  }

  /** Forgets what ended long ago. */
  expire (nowMs: number): void {
    for (const [id, session] of this.#sessions) if (session.ended && nowMs - session.lastMs > FORGET_MS) this.#sessions.delete(id)
  }

  view () {
    const live = new Map<string, number>()
    for (const { contentId, ended, seq } of this.#sessions.values()) if (!ended && seq > 0) live.set(contentId, (live.get(contentId) ?? 0) + 1)
    return {
      live_viewers: Object.fromEntries(live),
      minutes_watched: Object.fromEntries([...this.#watchedMs].map(([content, ms]) => [content, Math.round(ms / 6_000) / 10])),
      continue_watching: Object.fromEntries([...this.#continueWatching].map(([profile, contents]) => [profile, Object.fromEntries([...contents].filter(([, { completed }]) => !completed).map(([content, { position }]) => [content, position]))])),
      repeats_dropped: this.#repeats,
      waiting_for_earlier: [...this.#sessions.values()].reduce((sum, { early }) => sum + early.length, 0)
    }
  }

  snapshot (): Snapshot {
    return {
      sessions: [...this.#sessions],
      watchedMs: [...this.#watchedMs],
      continueWatching: [...this.#continueWatching].map(([profile, contents]) => [profile, [...contents]]),
      repeats: this.#repeats
    }
  }

  #session (event: PlaybackEvent): SessionState {
    let session = this.#sessions.get(event.session_id)
    if (session === undefined) {
      session = {
        contentId: event.content_id, profile: `${event.user_id}/${event.profile_id}`, seq: 0, playing: false, ended: false, lastMs: 0, position: event.metadata.position, early: [], seen: []
      }
      this.#sessions.set(event.session_id, session)
    }
    return session
  }

  #change (session: SessionState, event: PlaybackEvent | undefined): void {
    if (event === undefined) return
    this.#advance(session, event)
    session.seq = event.seq
    session.playing = event.event_type === 'playback.started' || event.event_type === 'playback.resumed'
    session.ended = event.event_type === 'playback.stopped' || event.event_type === 'playback.completed'
  }

  /** Counts the time since the last event as watched, if it was played, and keeps the newest position. */
  #advance (session: SessionState, event: PlaybackEvent): void {
    const atMs = Date.parse(event.timestamp)
    if (atMs < session.lastMs) return
    if (session.playing && event.metadata.reason !== 'expired') {
      this.#watchedMs.set(session.contentId, (this.#watchedMs.get(session.contentId) ?? 0) + Math.min(atMs - session.lastMs, LONGEST_STEP_MS))
    }
    session.lastMs = atMs
    session.position = event.metadata.position
    const contents = this.#continueWatching.get(session.profile) ?? new Map<string, Bookmark>()
    this.#continueWatching.set(session.profile, contents)
    if ((contents.get(session.contentId)?.atMs ?? 0) <= atMs) {
      contents.set(session.contentId, { position: session.position, atMs, completed: event.event_type === 'playback.completed' })
    }
  }
}
