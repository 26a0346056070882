import { setTimeout as sleep } from 'node:timers/promises'
import { masters } from './connect.ts'
import type { RedisClient } from './scripts.ts'

/** Sends one command. */
export type Call = (client: RedisClient) => unknown
export type BatchResult = { ok: true, value: unknown } | { ok: false, error: Error }

/**
 * Sends many independent commands, in one write to each node; answers in order. Not atomic: each command stands alone.
 * Commands go to corked sockets, not into a pipeline of ioredis: that one costs twice as much a command (14 instead of 8 µs by 16, 31 instead of 16
 * by 2), and each of them gets a hidden class of its own, in which V8 keeps it with all it sent and read until a major collection.
 */
export async function runBatch (client: RedisClient, calls: readonly Call[]): Promise<BatchResult[]> {
  // ioredis would write to a Redis that is still loading.
  if (client.status !== 'ready') return calls.map(() => ({ ok: false, error: new Error('Connection is closed.') }))
  const [first] = calls
  if (calls.length === 1 && first !== undefined) return [await settled(client, first)]
  const streams = masters(client).map(node => node.stream)
  for (const stream of streams) stream?.cork()
  // Each call writes before it first waits.
  const replies = calls.map(async call => await settled(client, call))
  for (const stream of streams) stream?.uncork()
  return await Promise.all(replies)
}

/** Between the parts of work that nobody waits for. */
export const PAUSE_MS = 10

/** As `runBatch`, for work that nobody waits for: a part at a time, so that requests get their turn here and in Redis. */
export async function runPaced (client: RedisClient, calls: readonly Call[], atOnce = 512): Promise<BatchResult[]> {
  const results: BatchResult[] = []
  for (let start = 0; start < calls.length; start += atOnce) {
    if (start > 0) await sleep(PAUSE_MS)
    results.push(...await runBatch(client, calls.slice(start, start + atOnce)))
  }
  return results
}

async function settled (client: RedisClient, call: Call): Promise<BatchResult> {
  try {
    return { ok: true, value: await call(client) }
  } catch (error) {
    return { ok: false, error: error instanceof Error ? error : new Error(String(error)) }
  }
}
