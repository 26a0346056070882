import { type Call, runBatch } from '../../redis/batch.ts'
import type { RedisClock } from '../../redis/clock.ts'
import { keys, slotOf, tagOfSlot } from '../../redis/keys.ts'
import { ManySlots } from '../../redis/many-slots.ts'
import { type OutboxEntry, terminalEntry } from '../../redis/outbox.ts'
import type { Pulse } from '../../redis/pulse.ts'
import { parseRecord, type SessionRecord } from '../../redis/record.ts'
import { ReapCodes, type RedisClient } from '../../redis/scripts.ts'

export interface ReaperOptions {
  client: RedisClient
  clock: RedisClock
  pulse: Pulse
  timeoutMs: number
  ttlMs: number
  endedTtlMs: number
  /** Takes the terminal events of the sessions that were ended. */
  publish: (events: OutboxEntry[]) => void
  expired: () => void
}

const SLOTS_AT_ONCE = 512
const DUE_AT_ONCE = 1_000
/** More than this, and more than a fifth of what was looked at, dead in one sweep looks like a fault of ours: wait and see. */
const MASS_DEATH = 1_000
const MASS_DEATH_SHARE = 0.2

interface Candidate { sessionId: string, slot: number, session: SessionRecord | undefined }

/**
 * Ends sessions by silence. Each session is looked at once per T, when its due entry comes up: a live one is put off to
 * `last heartbeat + T` and its keys' TTLs are renewed, a silent one goes to the script, which looks again and decides.
 * Any number of reapers may run; one wins each session.
 */
export class Reaper {
  readonly #options: ReaperOptions
  /** Ids of the sessions of each slot whose time has come. */
  readonly #due: ManySlots<number, string[]>
  #holdingSince: number | undefined

  constructor (options: ReaperOptions) {
    const { client, clock } = options
    this.#options = options
    this.#due = new ManySlots({
      client,
      slotOf: slot => slot,
      call: (redis, slots) => redis.dueSessions(slots.length, ...slots.map(slot => keys.due(tagOfSlot(slot))), clock.nowMs(), DUE_AT_ONCE),
      read: (reply, slots) => {
        const bySlot = new Map<number, string[]>(slots.map(slot => [slot, []]))
        for (const id of Array.isArray(reply) ? reply.map(String) : []) bySlot.get(slotOf(id))?.push(id)
        return slots.map(slot => bySlot.get(slot) ?? [])
      }
    })
  }

  /** Whether reaping is put off because too many sessions look dead at once. */
  get holding (): boolean {
    return this.#holdingSince !== undefined
  }

  async run (slots: readonly number[]): Promise<void> {
    const silent: Candidate[] = []
    let examined = 0
    for (let start = 0; start < slots.length; start += SLOTS_AT_ONCE) {
      const due = await this.#candidates(slots.slice(start, start + SLOTS_AT_ONCE))
      examined += due.length
      silent.push(...await this.#putOffLive(due))
    }
    if (this.#holdsBack(silent.length, examined)) return
    for (let start = 0; start < silent.length; start += DUE_AT_ONCE) await this.#reap(silent.slice(start, start + DUE_AT_ONCE))
  }

  async #candidates (slots: readonly number[]): Promise<Candidate[]> {
    const due = await this.#due.many(slots)
    const found = due.flatMap((ids, index) => ids instanceof Error ? [] : ids.map(sessionId => ({ sessionId, slot: slots[index] ?? 0 })))
    const records = await this.#replies(found.map(({ sessionId }) => redis => redis.get(keys.session(sessionId))))
    return found.map((candidate, index) => {
      const record = records[index]
      return { ...candidate, session: typeof record === 'string' ? parseRecord(record) : undefined }
    })
  }

  /** Re-arms the live and answers the silent. XX: an entry that a script removed meanwhile is not brought back. */
  async #putOffLive (due: readonly Candidate[]): Promise<Candidate[]> {
    const { client, clock, timeoutMs, ttlMs } = this.#options
    const now = clock.nowMs()
    const silent: Candidate[] = []
    const calls: Call[] = []
    for (const candidate of due) {
      const { session, slot } = candidate
      if (session === undefined || session.beatMs + timeoutMs <= now) {
        silent.push(candidate)
        continue
      }
      calls.push(
        redis => redis.zadd(keys.due(tagOfSlot(slot)), 'XX', session.beatMs + timeoutMs, session.sessionId),
        redis => redis.pexpire(keys.session(session.sessionId), ttlMs),
        redis => redis.pexpire(keys.concurrency(session.userId), ttlMs),
        redis => redis.pexpire(keys.userSessions(session.userId), ttlMs)
      )
    }
    await runBatch(client, calls)
    return silent
  }

  async #reap (silent: readonly Candidate[]): Promise<void> {
    const { pulse, timeoutMs, endedTtlMs, publish, expired } = this.#options
    const calls = await Promise.all(silent.map(async ({ sessionId, slot, session }): Promise<Call> => {
      const graceUntilMs = await pulse.graceUntilMs(slot)
      // Without a record nobody knows the user; the script then only forgets the due entry. The id is as good a name: same slot.
      const userId = session?.userId ?? sessionId
      return redis => redis.reapSession(
        keys.session(sessionId), keys.ended(sessionId), keys.concurrency(userId), keys.userSessions(userId), keys.due(tagOfSlot(slot)),
        keys.outbox(tagOfSlot(slot)), sessionId, timeoutMs, graceUntilMs, endedTtlMs
      )
    }))
    const events: OutboxEntry[] = []
    for (const reply of await this.#replies(calls)) {
      const [code, , entryId, text]: unknown[] = Array.isArray(reply) ? reply : []
      if (code !== ReapCodes.expired) continue
      const { ended: _, ...event } = terminalEntry(String(entryId), String(text))
      events.push(event)
      expired()
    }
    publish(events)
  }

  /** Mass-death breaker: puts reaping off, at most 2 T, and never touches acquisition. */
  #holdsBack (silent: number, examined: number): boolean {
    const { clock, timeoutMs } = this.#options
    if (silent <= MASS_DEATH || silent <= MASS_DEATH_SHARE * examined) {
      this.#holdingSince = undefined
      return false
    }
    this.#holdingSince ??= clock.nowMs()
    return clock.nowMs() - this.#holdingSince < 2 * timeoutMs
  }

  /** Replies in order; undefined where Redis gave none: the next sweep looks again. */
  async #replies (calls: readonly Call[]): Promise<unknown[]> {
    return (await runBatch(this.#options.client, calls)).map(reply => reply.ok ? reply.value : undefined)
  }
}
