import { runBatch } from './batch.ts'
import { isCluster } from './connect.ts'
import { Gather } from './gather.ts'
import type { RedisClient } from './scripts.ts'

export interface ManySlotsOptions<Item, Reply> {
  client: RedisClient
  slotOf: (item: Item) => number
  /** The one call for these items. */
  call: (client: RedisClient, items: readonly Item[]) => unknown
  /** Reads that call's reply, one for each item. */
  read: (reply: unknown, items: readonly Item[]) => Reply[]
}

/** Items that share a call, and where they stand among all. */
interface Part<Item> { items: Item[], indexes: number[] }

/** A call holds up the server for as long as it runs: 128 heartbeats are about 0.2 ms. */
const MAX_PER_CALL = 128

/**
 * A script that takes many items, called for whatever was gathered: one call for as many as may share one (on a cluster those of a
 * slot, else up to 128), one write for each node.
 */
export class ManySlots<Item, Reply> {
  readonly #options: ManySlotsOptions<Item, Reply>
  readonly #gather = new Gather<Item, Reply>(async items => await this.#call(items))

  constructor (options: ManySlotsOptions<Item, Reply>) {
    this.#options = options
  }

  /** The reply for this item; rejects with the error of the call it was in. */
  one (item: Item): Promise<Reply> {
    return this.#gather.one(item)
  }

  /** A reply for each item, in order, or the error of the call it was in. */
  async many (items: readonly Item[]): Promise<Array<Reply | Error>> {
    return await this.#gather.many(items)
  }

  async #call (items: readonly Item[]): Promise<Array<Reply | Error>> {
    const { client, slotOf, call, read } = this.#options
    const parts = group(items, isCluster(client) ? slotOf : () => 0)
    const results = await runBatch(client, parts.map(part => redis => call(redis, part.items)))
    if (parts.length === 1 && results[0]?.ok === true) return read(results[0].value, items)
    const replies = new Array<Reply | Error>(items.length)
    for (const [at, part] of parts.entries()) {
      const result = results[at] ?? { ok: false, error: new Error('no reply') }
      const own = result.ok ? read(result.value, part.items) : []
      part.indexes.forEach((index, place) => { replies[index] = result.ok ? own[place] as Reply : result.error })
    }
    return replies
  }
}

function group<Item> (items: readonly Item[], slotOf: (item: Item) => number): Array<Part<Item>> {
  const parts: Array<Part<Item>> = []
  const open = new Map<number, Part<Item>>()
  for (const [index, item] of items.entries()) {
    const slot = slotOf(item)
    let part = open.get(slot)
    if (part === undefined || part.items.length >= MAX_PER_CALL) {
      part = { items: [], indexes: [] }
      open.set(slot, part)
      parts.push(part)
    }
    part.items.push(item)
    part.indexes.push(index)
  }
  return parts
}
