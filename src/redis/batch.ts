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
 * Runs many independent commands in one pipeline per node, answers in order. Not atomic: each command stands alone.
 * An item that was sent to the wrong node is tried once more by itself, where the client follows redirections.
 */
export async function runBatch (client: RedisClient, items: readonly BatchItem[]): Promise<BatchResult[]> {
  const [only] = items
  if (items.length === 1 && only !== undefined) return [await runAlone(client, only)]
  const results = new Array<BatchResult>(items.length)
  await Promise.all([...byNode(client, items).values()].map(async indexes => {
    const replies = await runPipeline(client, indexes.map(index => items[index]))
    await Promise.all(indexes.map(async (index, at) => {
      const reply = replies[at] ?? { ok: false, error: new Error('Connection is closed.') }
      const item = items[index]
      results[index] = reply.ok || !redirected(reply.error) || item === undefined ? reply : await runAlone(client, item)
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

/** Without a pipeline: ioredis makes one anew with every script that it knows, some 20 µs and 4 kB for a single command. */
async function runAlone (client: RedisClient, item: BatchItem): Promise<BatchResult> {
  if (client.status !== 'ready') return away()
  try {
    return { ok: true, value: await item.add(client) }
  } catch (error) {
    return failed(error)
  }
}

async function runPipeline (client: RedisClient, items: ReadonlyArray<BatchItem | undefined>): Promise<BatchResult[]> {
  if (client.status !== 'ready') return items.map(away)
  const pipeline = client.pipeline()
  for (const item of items) item?.add(pipeline)
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
