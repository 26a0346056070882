import { setTimeout as sleep } from 'node:timers/promises'
import { type Call, PAUSE_MS, runPaced } from '../../redis/batch.ts'
import { masters } from '../../redis/connect.ts'
import { keys, SLOTS, tagOfSlot } from '../../redis/keys.ts'
import { ManySlots } from '../../redis/many-slots.ts'
import { occupiedSlots } from '../../redis/occupied.ts'
import type { RedisClient } from '../../redis/scripts.ts'

export interface OutboxCapacityOptions {
  client: RedisClient
  /** Bytes that one shard may spend on events not yet delivered. */
  maxBytes: number
  lost: (events: number) => void
}

/** Slots that are weighed; beyond as many, bytes per event are known well enough (weighing 16,384 slots cost 6 % of a core). */
const MAX_WEIGHED = 512

const SLOTS_AT_ONCE = 512

/** A slot's outbox and how many events wait in it. */
export interface Waiting { slot: number, length: number }

/** What the outbox holds, at the last sweep of this instance. */
export interface OutboxLevel { events: number, bytes: number }

/**
 * Keeps the outbox within its capacity. Sessions come before events: Redis must not fill up because Kafka is away. The oldest
 * events of each slot go first, in proportion to what the slot holds; each is counted in Redis and here.
 */
export class OutboxCapacity {
  readonly #options: OutboxCapacityOptions
  readonly #lengths: ManySlots<number, number>
  #level: OutboxLevel = { events: 0, bytes: 0 }

  constructor (options: OutboxCapacityOptions) {
    this.#options = options
    this.#lengths = new ManySlots({
      client: options.client,
      slotOf: slot => slot,
      call: (redis, slots) => redis.outboxLengths(slots.length, ...slots.map(outboxOf)),
      read: (reply, slots) => slots.map((_, index) => Array.isArray(reply) ? Number(reply[index]) : 0)
    })
  }

  get level (): OutboxLevel {
    return this.#level
  }

  /** Those of the slots in which events wait; a part at a time, so that requests get their turn. What Redis does not tell is left to the next sweep. */
  async waiting (slots: readonly number[]): Promise<Waiting[]> {
    const occupied = await occupiedSlots(this.#options.client, slots, outboxOf)
    const waiting: Waiting[] = []
    for (let start = 0; start < occupied.length; start += SLOTS_AT_ONCE) {
      if (start > 0) await sleep(PAUSE_MS)
      const chunk = occupied.slice(start, start + SLOTS_AT_ONCE)
      const lengths = await this.#lengths.many(chunk)
      for (const [index, slot] of chunk.entries()) {
        const length = lengths[index]
        if (typeof length === 'number' && length > 0) waiting.push({ slot, length })
      }
    }
    return waiting
  }

  /** @param swept how many slots were looked at. @param holding what waits in them. */
  async enforce (swept: number, holding: readonly Waiting[]): Promise<void> {
    const { client, maxBytes, lost } = this.#options
    const events = sum(holding.map(({ length }) => length))
    const weighed = holding.filter((_, index) => Math.floor(index * MAX_WEIGHED / holding.length) !== Math.floor((index - 1) * MAX_WEIGHED / holding.length))
    // A server that cannot tell (the in-process one) answers an error, and its outbox is not bounded.
    const weights = await this.#numbers(weighed.map(({ slot }) => redis => redis.memory('USAGE', outboxOf(slot), 'SAMPLES', 0)))
    const bytes = Math.round(sum(weights) / Math.max(1, sum(weighed.map(({ length }) => length))) * events)
    this.#level = { events, bytes }
    const capacity = maxBytes * masters(client).length * swept / SLOTS
    if (this.#level.bytes <= capacity) return
    const share = 1 - capacity / this.#level.bytes
    const calls: Call[] = []
    // Nearly one to begin with: being a byte past the capacity costs an event, else it would last for ever.
    let due = 0.999_999
    for (const { slot, length } of holding) {
      // Whole events only; what a slot falls short of, the next one makes up.
      due += length * share
      const given = Math.min(Math.floor(due), length)
      due -= given
      if (given > 0) calls.push(redis => redis.trimOutbox(outboxOf(slot), keys.lost(tagOfSlot(slot)), given))
    }
    for (const reply of await runPaced(client, calls)) {
      if (reply.ok && Array.isArray(reply.value)) lost(Number(reply.value[0]))
    }
  }

  async #numbers (calls: readonly Call[]): Promise<number[]> {
    return (await runPaced(this.#options.client, calls)).map(reply => reply.ok ? Number(reply.value) || 0 : 0)
  }
}

const outboxOf = (slot: number): string => keys.outbox(tagOfSlot(slot))
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
