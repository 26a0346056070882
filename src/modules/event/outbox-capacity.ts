import { type BatchItem, runBatch } from '../../redis/batch.ts'
import { masters } from '../../redis/connect.ts'
import { keys, SLOTS, tagOfSlot } from '../../redis/keys.ts'
import type { RedisClient } from '../../redis/scripts.ts'

export interface OutboxCapacityOptions {
  client: RedisClient
  /** Bytes that one shard may spend on events not yet delivered. */
  maxBytes: number
  lost: (events: number) => void
}

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
    // A server that cannot tell (the in-process one) answers an error, and its outbox is not bounded.
    const sizes = await this.#numbers(occupied.map(slot => ({ slot, add: pipeline => pipeline.memory('USAGE', key(slot), 'SAMPLES', 0) })))
    const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0)
    this.#level = { events: sum(lengths), bytes: sum(sizes) }
    const capacity = maxBytes * masters(client).length * swept.length / SLOTS
    if (this.#level.bytes <= capacity) return
    const share = 1 - capacity / this.#level.bytes
    const items: BatchItem[] = []
    // Nearly one to begin with: being a byte past the capacity costs an event, else it would last for ever.
    let due = 0.999_999
    for (const [index, slot] of occupied.entries()) {
      // Whole events only; what a slot falls short of, the next one makes up.
      due += (lengths[index] ?? 0) * share
      const events = Math.min(Math.floor(due), lengths[index] ?? 0)
      due -= events
      if (events > 0) items.push({ slot, add: pipeline => pipeline.trimOutbox(key(slot), keys.lost(tagOfSlot(slot)), events) })
    }
    for (const reply of await runBatch(client, items)) {
      if (reply.ok && Array.isArray(reply.value)) lost(Number(reply.value[0]))
    }
  }

  async #numbers (items: readonly BatchItem[]): Promise<number[]> {
    return (await runBatch(this.#options.client, items)).map(reply => reply.ok ? Number(reply.value) || 0 : 0)
  }
}
