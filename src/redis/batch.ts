import { setTimeout as sleep } from 'node:timers/promises'
import type { ClientContext, RedisCommander } from 'ioredis'
import { isCluster } from './connect.ts'
import type { RedisClient } from './scripts.ts'

/** One command of a batch. `slot` decides which node it goes to; `add` calls it on a pipeline, or on the client where it is alone. */
export interface BatchItem {
  slot: number
  add: <Context extends ClientContext>(commands: RedisCommander<Context>) => unknown
}
export type BatchResult = { ok: true, value: unknown } | { ok: false, error: Error }

/**
 * Runs many independent commands together on each node, answers in order. Not atomic: each command stands alone.
 * An item that was sent to the wrong node is tried once more by itself, where the client follows redirections.
 */
export async function runBatch (client: RedisClient, items: readonly BatchItem[]): Promise<BatchResult[]> {
  const results = new Array<BatchResult>(items.length)
  await Promise.all([...byNode(client, items).values()].map(async indexes => {
    const own = indexes.flatMap(index => items[index] ?? [])
    const replies = await runOnNode(client, own)
    await Promise.all(own.map(async (item, at) => {
      const reply = replies[at] ?? away()
      results[indexes[at] ?? 0] = reply.ok || !redirected(reply.error) ? reply : await runAlone(client, item)
    }))
  }))
  return results
}

/** Between the parts of work that nobody waits for. */
export const PAUSE_MS = 10

/** As `runBatch`, for work that nobody waits for: a part at a time, so that requests get their turn here and in Redis. */
export async function runPaced (client: RedisClient, items: readonly BatchItem[], atOnce = 512): Promise<BatchResult[]> {
  const results: BatchResult[] = []
  for (let start = 0; start < items.length; start += atOnce) {
    if (start > 0) await sleep(PAUSE_MS)
    results.push(...await runBatch(client, items.slice(start, start + atOnce)))
  }
  return results
}

const redirected = (error: Error) => /^(MOVED|ASK|TRYAGAIN|CLUSTERDOWN)\b|same slots allocation group/.test(error.message)

function byNode (client: RedisClient, items: readonly BatchItem[]): Map<string, number[]> {
  const groups = new Map<string, number[]>()
  const cluster = isCluster(client) ? client : undefined
  items.forEach((item, index) => {
    const node = cluster?.slots[item.slot]?.join() ?? ''
    const group = groups.get(node)
    if (group === undefined) groups.set(node, [index])
    else group.push(index)
  })
  return groups
}

/** Without a pipeline: ioredis makes one anew with every script that it knows, some 20 µs for a single command. */
async function runAlone (client: RedisClient, item: BatchItem): Promise<BatchResult> {
  if (client.status !== 'ready') return away()
  try {
    return { ok: true, value: await item.add(client) }
  } catch (error) {
    return failed(error)
  }
}

/** In one write. */
async function runOnNode (client: RedisClient, items: readonly BatchItem[]): Promise<BatchResult[]> {
  const [first] = items
  if (items.length === 1 && first !== undefined) return [await runAlone(client, first)]
  if (client.status !== 'ready') return items.map(away)
  const pipeline = client.pipeline()
  for (const item of items) item.add(pipeline)
  try {
    const replies = await pipeline.exec()
    return (replies ?? []).map(([error, value]) => error === null ? { ok: true, value } : { ok: false, error })
  } catch (error) {
    return items.map(() => failed(error))
  }
}

/** A pipeline bypasses the client's check of the connection and would wait for a Redis that is away; a command alone is not to fare otherwise. */
const away = (): BatchResult => ({ ok: false, error: new Error('Connection is closed.') })

function failed (error: unknown): BatchResult {
  return { ok: false, error: error instanceof Error ? error : new Error(String(error)) }
}
