import { ProblemError } from '../../problems.ts'
import type { Admission } from '../../redis/admission.ts'
import { type BatchResult, runBatch } from '../../redis/batch.ts'
import type { RedisClock } from '../../redis/clock.ts'
import { Gather } from '../../redis/gather.ts'
import { keys, slotOf, tagOfSlot } from '../../redis/keys.ts'
import { type OutboxEntry, terminalEntry } from '../../redis/outbox.ts'
import type { Pulse } from '../../redis/pulse.ts'
import { type EndedRecord, formatRecord, newRecord, type NewSession, parseEnded, parseRecord, type SessionRecord } from '../../redis/record.ts'
import { CreateCodes, type RedisClient } from '../../redis/scripts.ts'
import { TurnQueue } from './turn-queue.ts'

export interface SlotRequest {
  session: NewSession
  /** Metadata of the start as JSON text, or ''. */
  metadata: string
  onLimit: 'reject' | 'supersede_oldest'
  /** Sessions to end by name; those outside the user's hash slot cannot be his and are dropped. */
  supersede: readonly string[]
}

export type SlotOutcome =
  | { outcome: 'admitted', session: SessionRecord, active: number, events: OutboxEntry[] }
  | { outcome: 'exists', session: SessionRecord, active: number }
  | { outcome: 'ended', ended: EndedRecord }
  /** The limit is reached; `sessions` are the user's live ones. */
  | { outcome: 'refused', active: number, sessions: SessionRecord[] }

export interface UserSlots { active: number, sessions: SessionRecord[] }

export interface SlotStoreOptions {
  client: RedisClient
  clock: RedisClock
  admission: Admission
  pulse: Pulse
  timeoutMs: number
  ttlMs: number
  endedTtlMs: number
}

/** Racing take-overs of one user need about two calls each; more than this means that something else keeps moving. */
const MAX_CALLS = 32

/** The slots of users: the concurrent-stream limit. */
export class SlotStore {
  readonly #options: SlotStoreOptions
  readonly #turns = new TurnQueue()
  readonly #lists = new Gather<string, UserSlots>(async userIds => await this.#listAll(userIds))

  constructor (options: SlotStoreOptions) {
    this.#options = options
  }

  /**
   * Takes a slot and stores the session in one script, or does neither. At the limit the script names the members and is
   * called once more with their keys declared, so that the silent give way and take-overs end the right one.
   * @throws ProblemError `admission-contended` after 32 calls; `admission-unconfirmed` when no replica has it; Redis errors as they are.
   */
  async acquire (request: SlotRequest): Promise<SlotOutcome> {
    const { userId } = request.session
    const slot = slotOf(userId)
    const named = request.supersede.filter(id => slotOf(id) === slot && id !== request.session.sessionId)
    const first = await this.#call(request, slot, 'probe', named, named.length)
    if (first.outcome !== 'members') return first
    return await this.#turns.run(userId, async () => {
      let { members } = first
      for (let calls = 2; calls <= MAX_CALLS; calls++) {
        const declared = [...named, ...members.filter(id => !named.includes(id))]
        const next = await this.#call(request, slot, 'decide', declared, named.length)
        if (next.outcome !== 'members') return next
        members = next.members
      }
      throw new ProblemError('admission-contended', 'The user\'s slots change hands too fast; try again shortly.', { retryAfterSeconds: 1 })
    })
  }

  /**
   * Whether a session that was seen is there as durably as an admission promises. Asked by the admission itself, with a limit that admits nobody.
   * @throws ProblemError `admission-unconfirmed` when no replica has it.
   */
  async confirm (session: Omit<NewSession, 'limit' | 'limitSource'>): Promise<boolean> {
    if (this.#options.admission.durability === 'local') return true
    const request: SlotRequest = { session: { ...session, limit: 0, limitSource: 'default' }, metadata: '', onLimit: 'reject', supersede: [] }
    return (await this.#call(request, slotOf(session.userId), 'probe', [], 0)).outcome === 'exists'
  }

  /** The user's sessions that hold a slot, oldest first; `active` counts the slots taken (SCARD). */
  async list (userId: string): Promise<UserSlots> {
    return await this.#lists.one(userId)
  }

  /** Two steps for all users together: their sets, then their sessions' records, which lie in the user's own hash slot. */
  async #listAll (userIds: readonly string[]): Promise<Array<UserSlots | Error>> {
    const { client } = this.#options
    const sets = await runBatch(client, userIds.map(userId => redis => redis.smembers(keys.concurrency(userId))))
    const members = sets.map(set => set.ok && Array.isArray(set.value) ? set.value.map(String) : [])
    const holders = [...members.keys()].filter(at => members[at]?.length !== 0)
    const replies = await runBatch(client, holders.map(at => redis => redis.mget((members[at] ?? []).map(keys.session))))
    const records = new Map(replies.map((reply, place) => [holders[place], reply]))
    return userIds.map((_, at) => slotsOf(sets[at], members[at] ?? [], records.get(at)))
  }

  async #call (request: SlotRequest, slot: number, mode: 'probe' | 'decide', declared: readonly string[], named: number): Promise<SlotOutcome | { outcome: 'members', members: string[] }> {
    const { clock, admission, pulse, timeoutMs, ttlMs, endedTtlMs } = this.#options
    const { session } = request
    const tag = tagOfSlot(slot)
    const startedAt = clock.nowIso()
    const [head, tail] = formatRecord(session, startedAt)
    const scriptKeys = [
      keys.session(session.sessionId), keys.ended(session.sessionId), keys.concurrency(session.userId), keys.userSessions(session.userId),
      keys.due(tag), keys.outbox(tag), ...declared.flatMap(id => [keys.session(id), keys.ended(id)])
    ]
    const args = [
      session.sessionId, head, tail, session.limit, timeoutMs, ttlMs, endedTtlMs, await pulse.graceUntilMs(slot), mode, request.onLimit,
      named, session.deviceId, request.metadata, ...declared
    ]
    const [code, nowMs, active, ...rest] = await admission.run({ slot, numberOfKeys: scriptKeys.length, keysAndArgs: [...scriptKeys, ...args] })
    clock.observe(nowMs)
    const [one = ''] = rest
    switch (code) {
      case CreateCodes.admitted: {
        const record = newRecord(session, startedAt, nowMs)
        const started: OutboxEntry = { slot, entryId: one, type: 'playback.started', seq: 1, atMs: nowMs, reason: undefined, metadata: request.metadata, session: record }
        return { outcome: 'admitted', session: record, active, events: [...gaveWay(rest.slice(1)), started] }
      }
      case CreateCodes.exists: return { outcome: 'exists', session: parseRecord(one), active }
      case CreateCodes.ended: return { outcome: 'ended', ended: parseEnded(one) }
      case CreateCodes.members: return { outcome: 'members', members: rest }
      case CreateCodes.refused: return { outcome: 'refused', active, sessions: rest.map(parseRecord) }
      default: throw new Error(`create-session.lua answered ${code}`)
    }
  }
}

/** What one user's two replies say; his error, if there is one, is his alone. */
function slotsOf (set: BatchResult | undefined, members: readonly string[], record: BatchResult | undefined): UserSlots | Error {
  if (set?.ok === false) return set.error
  if (record?.ok === false) return record.error
  const texts: unknown[] = Array.isArray(record?.value) ? record.value : []
  try {
    const sessions = texts.filter(text => typeof text === 'string').map(parseRecord)
    return { active: members.length, sessions: sessions.sort((a, b) => a.startedAt < b.startedAt ? -1 : 1) }
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

/** Terminal events of the sessions that made room, from pairs of outbox entry and ended text. */
function gaveWay (pairs: readonly string[]): OutboxEntry[] {
  const events: OutboxEntry[] = []
  for (let i = 0; i + 1 < pairs.length; i += 2) {
    const { ended: _, ...event } = terminalEntry(pairs[i] ?? '', pairs[i + 1] ?? '')
    events.push(event)
  }
  return events
}
