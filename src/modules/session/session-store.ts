import type { RedisClock } from '../../redis/clock.ts'
import { keys, slotOf } from '../../redis/keys.ts'
import { ENDINGS, type EndCause, type OutboxEntry, tagOfSession, terminalEntry } from '../../redis/outbox.ts'
import { type EndedRecord, formatBeatBlock, formatPosition, LAYOUT, type LiveStatus, parseEnded, parseRecord, RENEWAL, type SessionRecord } from '../../redis/record.ts'
import { ChangeCodes, EndCodes, type RedisClient } from '../../redis/scripts.ts'
import { ManySlots } from '../../redis/many-slots.ts'

/**
 * user: account. profile: viewer within it. content: what is played. device: what plays. session: one playback.
 * slot: one unit of a user's concurrent-stream limit. heartbeat: renews a session. live: admitted, not ended, heard of within T.
 * lapsed: silent longer than T, not yet ended by a script. expire: end by silence. supersede: end because another session took the slot.
 */
export type SessionView =
  | { state: 'live', session: SessionRecord }
  | { state: 'ended', ended: EndedRecord }
  | { state: 'absent' }

export type Renewal =
  | { outcome: 'renewed', status: LiveStatus, seq: number, beatMs: number, previousBeatMs: number, heardAt: string }
  /** Live; nothing was written, because its last heartbeat is younger than the shortest gap. */
  | { outcome: 'too-soon', waitMs: number }
  | { outcome: 'absent' }

export type Change =
  | { outcome: 'changed', session: SessionRecord, event: OutboxEntry }
  | { outcome: 'unchanged', session: SessionRecord }
  | { outcome: 'absent' }

export type Ending =
  | { outcome: 'ended', ended: EndedRecord, event: OutboxEntry }
  | { outcome: 'already-ended', ended: EndedRecord }
  | { outcome: 'absent' }

/** What a client may say with a change: a position in seconds, and metadata as JSON text or ''. */
export interface ClientState { position: number | undefined, metadata: string }

interface Beat { sessionId: string, position: number, heardAt: string }

export interface SessionStoreOptions {
  client: RedisClient
  clock: RedisClock
  endedTtlMs: number
  /** Shortest gap between two heartbeats of a session, ms; 0: none. */
  heartbeatGapMs: number
}

/** One session at a time: reading, renewing, pausing, ending. Starting belongs to the slots (`modules/concurrency`). */
export class SessionStore {
  readonly #client: RedisClient
  readonly #clock: RedisClock
  readonly #endedTtlMs: number
  readonly #heartbeatGapMs: number
  readonly #renewals: ManySlots<Beat, Renewal>
  readonly #beats: ManySlots<string, number | undefined>

  constructor ({ client, clock, endedTtlMs, heartbeatGapMs }: SessionStoreOptions) {
    this.#client = client
    this.#clock = clock
    this.#endedTtlMs = endedTtlMs
    this.#heartbeatGapMs = heartbeatGapMs
    this.#renewals = new ManySlots({
      client,
      slotOf: ({ sessionId }) => slotOf(sessionId),
      call: (redis, beats) => redis.heartbeat(beats.length, ...beats.map(beat => keys.session(beat.sessionId)), heartbeatGapMs, beats.map(beat => formatBeatBlock(beat.position, beat.heardAt)).join('')),
      read: (reply, beats) => this.#readRenewals(reply, beats)
    })
    this.#beats = new ManySlots({
      client,
      slotOf,
      call: (redis, sessionIds) => redis.lastBeats(sessionIds.length, ...sessionIds.map(keys.session)),
      read: (reply, sessionIds) => sessionIds.map((_, at) => Number(String(reply).slice(at * LAYOUT.beatWidth, (at + 1) * LAYOUT.beatWidth)) || undefined)
    })
  }

  async read (sessionId: string): Promise<SessionView> {
    const [record, ended] = await Promise.all([this.#client.get(keys.session(sessionId)), this.#client.get(keys.ended(sessionId))])
    if (record !== null) return { state: 'live', session: parseRecord(record) }
    return ended === null ? { state: 'absent' } : { state: 'ended', ended: parseEnded(ended) }
  }

  /** Never creates or revives a session: `absent` when a script has ended it, or when it never was. Writes nothing when it is `too-soon`. */
  heartbeat (sessionId: string, position: number): Promise<Renewal> {
    return this.#renewals.one({ sessionId, position, heardAt: this.#clock.nowIso() })
  }

  /** Many heartbeats; answers in order, an Error where Redis gave none. */
  async heartbeats (beats: ReadonlyArray<{ sessionId: string, position: number }>): Promise<Array<Renewal | Error>> {
    const heardAt = this.#clock.nowIso()
    return await this.#renewals.many(beats.map(({ sessionId, position }) => ({ sessionId, position, heardAt })))
  }

  /** Pauses or resumes; `unchanged` when it is so already, and then nothing is written. */
  async changeStatus (sessionId: string, status: LiveStatus, { position, metadata }: ClientState): Promise<Change> {
    const type = status === 'paused' ? 'playback.paused' : 'playback.resumed'
    const [code, nowMs, entryId, text] = await this.#client.changeStatus(
      keys.session(sessionId), keys.outbox(tagOfSession(sessionId)),
      status, type, position === undefined ? '' : formatPosition(position), this.#clock.nowIso(), metadata
    )
    this.#clock.observe(nowMs)
    if (code === ChangeCodes.absent) return { outcome: 'absent' }
    const session = parseRecord(text)
    if (code === ChangeCodes.unchanged) return { outcome: 'unchanged', session }
    const event = { slot: slotOf(sessionId), entryId, type, seq: session.seq, atMs: nowMs, reason: undefined, metadata, session } as const
    return { outcome: 'changed', session, event }
  }

  /** Ends a session by somebody's act and releases its slot. `endedBy`: the acting device, where known. */
  async end (sessionId: string, userId: string, cause: EndCause, { position, metadata }: ClientState, endedBy: string | undefined): Promise<Ending> {
    const tag = tagOfSession(sessionId)
    const ending = ENDINGS[cause]
    const [code, nowMs, entryId, text] = await this.#client.endSession(
      keys.session(sessionId), keys.ended(sessionId), keys.concurrency(userId), keys.userSessions(userId), keys.due(tag), keys.outbox(tag),
      sessionId, ending.type, ending.reason, ending.endReason, endedBy === undefined ? 'null' : JSON.stringify(endedBy), this.#endedTtlMs,
      position === undefined ? '' : formatPosition(position), this.#clock.nowIso(), metadata
    )
    this.#clock.observe(nowMs)
    if (code === EndCodes.absent) return { outcome: 'absent' }
    if (code === EndCodes.alreadyEnded) return { outcome: 'already-ended', ended: parseEnded(text) }
    const { ended, ...event } = terminalEntry(entryId, text, metadata)
    return { outcome: 'ended', ended, event }
  }

  /** Redis ms of each session's last heartbeat, in order; undefined for a session that is not held. */
  async beats (sessionIds: readonly string[]): Promise<Array<number | undefined | Error>> {
    return await this.#beats.many(sessionIds)
  }

  #readRenewals (reply: unknown, beats: readonly Beat[]): Renewal[] {
    const [now, text]: unknown[] = Array.isArray(reply) ? reply : []
    const [beatMs, renewals] = [Number(now), String(text)]
    this.#clock.observe(beatMs)
    return beats.map(({ heardAt }, at): Renewal => {
      const start = at * RENEWAL.width
      if (renewals[start] === ' ') return { outcome: 'absent' }
      const previousBeatMs = Number(renewals.slice(start + RENEWAL.beat, start + RENEWAL.width))
      if (renewals[start] === RENEWAL.tooSoon) return { outcome: 'too-soon', waitMs: previousBeatMs + this.#heartbeatGapMs - beatMs }
      return {
        outcome: 'renewed',
        status: renewals.startsWith('paused', start) ? 'paused' : 'active',
        seq: Number(renewals.slice(start + RENEWAL.seq, start + RENEWAL.seqEnd)),
        beatMs,
        previousBeatMs,
        heardAt
      }
    })
  }
}
