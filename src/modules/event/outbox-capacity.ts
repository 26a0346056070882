import { type BatchItem, runPaced } from '../../redis/batch.ts'
import { masters } from '../../redis/connect.ts'
import { keys, SLOTS, tagOfSlot } from '../../redis/keys.ts'
import type { RedisClient } from '../../redis/scripts.ts'

export interface OutboxCapacityOptions {
  client: RedisClient
  /** Bytes that one shard may spend on events not yet delivered. */
  maxBytes: number
  lost: (events: number) => void
}

/** Slots that are weighed; beyond as many, bytes per event are known well enough (weighing 16,384 slots cost 6 % of a core). */
const MAX_WEIGHED = 512

/** What the outbox holds, at the last sweep of this instance. */
export interface OutboxLevel { events: number, bytes: number }

/**
 * Keeps the outbox within its capacity. Sessions come before events: Redis must not fill up because Kafka is away. The oldest
 * events of each slot go first, in proportion to what the slot holds; each is counted in Redis and here.
 */
export class OutboxCapacity {
  readonly #options: OutboxCapacityOptions
  #level: OutboxLevel = { events: 0, bytes: 0 }

  constructor (options: OutboxCapacityOptions) {
    this.#options = options
  }

  get level (): OutboxLevel {
    return this.#level
  }

  /** @param swept the slots of this turn. @param occupied those of them that hold events. */
  async enforce (swept: readonly number[], occupied: readonly number[]): Promise<void> {
    const { client, maxBytes, lost } = this.#options
    const key = (slot: number): string => keys.outbox(tagOfSlot(slot))
    const lengths = await this.#numbers(occupied.map(slot => ({ slot, add: pipeline => pipeline.xlen(key(slot)) })))
    const holding = occupied.map((slot, index) => ({ slot, length: lengths[index] ?? 0 })).filter(({ length }) => length > 0)
    const events = sum(holding.map(({ length }) => length))
    const weighed = holding.filter((_, index) => Math.floor(index * MAX_WEIGHED / holding.length) !== Math.floor((index - 1) * MAX_WEIGHED / holding.length))
    // A server that cannot tell (the in-process one) answers an error, and its outbox is not bounded.
    const weights = await this.#numbers(weighed.map(({ slot }) => ({ slot, add: pipeline => pipeline.memory('USAGE', key(slot), 'SAMPLES', 0) })))
    const bytes = Math.round(sum(weights) / Math.max(1, sum(weighed.map(({ length }) => length))) * events)
    this.#level = { events, bytes }
    const capacity = maxBytes * masters(client).length * swept.length / SLOTS
    if (this.#level.bytes <= capacity) return
    const share = 1 - capacity / this.#level.bytes
    const items: BatchItem[] = []
    // Nearly one to begin with: being a byte past the capacity costs an event, else it would last for ever.
    let due = 0.999_999
    for (const { slot, length } of holding) {
      // Whole events only; what a slot falls short of, the next one makes up.
      due += length * share
      const given = Math.min(Math.floor(due), length)
      due -= given
      if (given > 0) items.push({ slot, add: pipeline => pipeline.trimOutbox(key(slot), keys.lost(tagOfSlot(slot)), given) })
    }
    for (const reply of await runPaced(client, items)) {
      if (reply.ok && Array.isArray(reply.value)) lost(Number(reply.value[0]))
    }
  }

  async #numbers (items: readonly BatchItem[]): Promise<number[]> {
    return (await runPaced(this.#options.client, items)).map(reply => reply.ok ? Number(reply.value) || 0 : 0)
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
