import { setTimeout as sleep } from 'node:timers/promises'
import { runBatch } from '../../redis/batch.ts'
import type { RedisClock } from '../../redis/clock.ts'
import { keys, tagOfSlot } from '../../redis/keys.ts'
import type { EventReason, OutboxEntry } from '../../redis/outbox.ts'
import { parseRecord } from '../../redis/record.ts'
import { ManySlots } from '../../redis/many-slots.ts'
import type { RedisClient } from '../../redis/scripts.ts'
import { EVENT_TYPES, type EventType, type PlaybackEvent } from '../../schemas.ts'
import type { EventSink } from './event-sink.ts'
import type { OutboxCapacity } from './outbox-capacity.ts'
import { type BeatContent, type EventSubject, heartbeatEvent, lifecycleEvent } from './playback-event.ts'

export interface RelayObserver {
  sent: (type: EventType, count: number) => void
  dropped: (type: EventType, count: number) => void
  lost: (events: number) => void
  failed: (error: unknown) => void
}

/** Which heartbeats become events: all, the first of a session in each minute, or none. */
export type HeartbeatSampling = 'all' | 'sampled' | 'off'

/** What Redis says of a heartbeat; ms. */
export interface BeatFacts { seq: number, beatMs: number, previousBeatMs: number }

export interface RelayOptions {
  client: RedisClient
  clock: RedisClock
  sink: EventSink
  heartbeats: HeartbeatSampling
  capacity: OutboxCapacity
  observer: RelayObserver
  /** Headers that tie an event to the request that caused it; read while that request runs. */
  traceHeaders?: (() => Record<string, string>) | undefined
}

/** Younger entries belong to the instance that wrote them; older ones it has failed to ship. */
const LEFT_OVER_MS = 5_000
const LEFT_OVER_COUNT = 500
const SLOTS_AT_ONCE = 512
/** Lifecycle events on their way to the sink; beyond this they stay in the outbox for the sweep, so memory stays bounded. */
const MAX_IN_FLIGHT = 50_000
const MAX_HEARTBEATS = 50_000
/** Removals are gathered for this long: nobody waits for them, and one call for many costs a fifth. */
const ACKNOWLEDGE_MS = 10
const DRAIN_MS = 5_000
/** Longest wait of a sweep for what it ships: the other tasks of the sweep must not stand still because the sink does. */
const SHIP_MS = 2_000

interface Delivered { slot: number, ids: string[] }

/** Brings events from the outbox to the sink, and removes them from it once they are safe there. */
export class EventRelay {
  readonly #options: RelayOptions
  /** `slot:entryId` of the entries on their way. */
  readonly #inFlight = new Set<string>()
  /** Sent but not yet removed from the outbox, by slot. */
  #delivered = new Map<number, string[]>()
  #acknowledgeTimer: NodeJS.Timeout | undefined
  readonly #removals: ManySlots<Delivered, undefined>
  #heartbeats = new Map<string, PlaybackEvent>()
  #flushTimer: NodeJS.Timeout | undefined

  constructor (options: RelayOptions) {
    this.#options = options
    this.#removals = new ManySlots({
      client: options.client,
      slotOf: ({ slot }) => slot,
      call: (redis, delivered) => redis.acknowledgeEvents(
        delivered.length, ...delivered.map(({ slot }) => keys.outbox(tagOfSlot(slot))), ...delivered.flatMap(({ ids }) => [ids.length, ...ids])
      ),
      read: (_reply, delivered) => delivered.map(() => undefined)
    })
  }

  /** Ships events that a script has just written. Never throws and never waits: what fails here, the sweep ships. */
  publish (entries: readonly OutboxEntry[]): void {
    const headers = this.#options.traceHeaders?.()
    for (const entry of entries) {
      if (this.#inFlight.size >= MAX_IN_FLIGHT || !this.#options.sink.ready()) return
      this.#ship(entry, headers).catch(this.#options.observer.failed)
    }
  }

  /** Queues a heartbeat event, the latest per session. Under pressure it is dropped, and the drop is counted. */
  heartbeat (subject: EventSubject, renewal: BeatFacts, said: BeatContent): void {
    const { heartbeats } = this.#options
    if (heartbeats === 'off' || (heartbeats === 'sampled' && sameMinute(renewal.beatMs, renewal.previousBeatMs))) return
    if (!this.#heartbeats.has(subject.sessionId) && this.#heartbeats.size >= MAX_HEARTBEATS) {
      this.#options.observer.dropped('playback.heartbeat', 1)
      return
    }
    this.#heartbeats.set(subject.sessionId, heartbeatEvent(subject, renewal, said))
    this.#flushTimer ??= setTimeout(() => { this.#flushHeartbeats() }, this.#options.sink.lingerMs)
  }

  /** Ships what other instances, or this one, have left in the outboxes of these slots. */
  async shipLeftOvers (slots: readonly number[]): Promise<void> {
    const { client, clock, sink, capacity } = this.#options
    const waiting = await capacity.waiting(slots)
    await capacity.enforce(slots.length, waiting)
    if (!sink.ready()) return
    const until = String(clock.nowMs() - LEFT_OVER_MS)
    for (let start = 0; start < waiting.length; start += SLOTS_AT_ONCE) {
      const chunk = waiting.slice(start, start + SLOTS_AT_ONCE)
      const replies = await runBatch(client, chunk.map(({ slot }) => redis => redis.xrange(keys.outbox(tagOfSlot(slot)), '-', until, 'COUNT', LEFT_OVER_COUNT)))
      const entries = replies.flatMap((reply, index) => reply.ok ? readEntries(chunk[index]?.slot ?? 0, reply.value) : [])
      const shipped = Promise.allSettled(entries.filter(entry => !this.#inFlight.has(`${entry.slot}:${entry.entryId}`)).map(async entry => { await this.#ship(entry) }))
      // What takes longer stays in flight, so that no sweep ships it once more.
      if (await Promise.race([shipped, sleep(SHIP_MS, undefined, { ref: false })]) === undefined) break
    }
    await this.#acknowledge()
  }

  /** Ships what is queued and waits a while for what is under way; the rest stays in the outbox for another instance. */
  async drain (): Promise<void> {
    clearTimeout(this.#flushTimer)
    this.#flushHeartbeats()
    const deadline = performance.now() + DRAIN_MS
    while (this.#inFlight.size > 0 && performance.now() < deadline) await new Promise(resolve => setTimeout(resolve, 5))
    await this.#acknowledge()
  }

  async #ship (entry: OutboxEntry, headers?: Record<string, string>): Promise<void> {
    const { sink, observer } = this.#options
    const id = `${entry.slot}:${entry.entryId}`
    this.#inFlight.add(id)
    try {
      await sink.send([lifecycleEvent(entry)], headers)
      observer.sent(entry.type, 1)
      const ids = this.#delivered.get(entry.slot)
      if (ids === undefined) this.#delivered.set(entry.slot, [entry.entryId])
      else ids.push(entry.entryId)
      this.#acknowledgeTimer ??= setTimeout(() => { this.#acknowledge().catch(observer.failed) }, ACKNOWLEDGE_MS)
    } finally {
      this.#inFlight.delete(id)
    }
  }

  /** Removes what was delivered meanwhile. A lost removal means a repeat, which consumers drop. */
  async #acknowledge (): Promise<void> {
    clearTimeout(this.#acknowledgeTimer)
    this.#acknowledgeTimer = undefined
    const delivered = [...this.#delivered].map(([slot, ids]) => ({ slot, ids }))
    if (delivered.length === 0) return
    this.#delivered = new Map()
    const replies = await this.#removals.many(delivered)
    for (const reply of replies) if (reply instanceof Error) this.#options.observer.failed(reply)
  }

  #flushHeartbeats (): void {
    const { sink, observer } = this.#options
    this.#flushTimer = undefined
    const events = [...this.#heartbeats.values()]
    this.#heartbeats = new Map()
    if (events.length === 0) return
    const dropped = (): void => { observer.dropped('playback.heartbeat', events.length) }
    if (sink.ready()) sink.send(events).then(() => { observer.sent('playback.heartbeat', events.length) }, dropped)
    else dropped()
  }
}

const sameMinute = (a: number, b: number) => Math.floor(a / 60_000) === Math.floor(b / 60_000)

/** Reads XRANGE's reply: `[id, [field, value, …]]…`. Entries of another shape are left where they are. */
function readEntries (slot: number, reply: unknown): OutboxEntry[] {
  if (!Array.isArray(reply)) return []
  const entries: OutboxEntry[] = []
  for (const item of reply as unknown[]) {
    if (!Array.isArray(item) || !Array.isArray(item[1])) continue
    const [entryId, flat]: unknown[] = item
    const fields = new Map<string, string>()
    const list = Array.isArray(flat) ? flat : []
    for (let i = 0; i + 1 < list.length; i += 2) fields.set(String(list[i]), String(list[i + 1]))
    const type = EVENT_TYPES.find(known => known === fields.get('type'))
    if (type === undefined) continue
    entries.push({
      slot,
      entryId: String(entryId),
      type,
      seq: Number(fields.get('seq')),
      atMs: Number(fields.get('at')),
      reason: REASONS.find(known => known === fields.get('reason')),
      metadata: fields.get('metadata') ?? '',
      session: parseRecord(fields.get('record') ?? '')
    })
  }
  return entries
}

const REASONS = ['client', 'expired', 'superseded', 'terminated'] as const satisfies EventReason[]
