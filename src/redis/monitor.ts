import type { Redis } from 'ioredis'
import { masters } from './connect.ts'
import type { RedisClient } from './scripts.ts'

/** What the masters say of themselves. `undefined` policy: a server that does not tell. */
export interface StoreState {
  reachable: boolean
  /** `maxmemory-policy` of a master that may evict: it would silently switch the limit off. */
  evicting: string | undefined
  /** Whether every master has a replica connected. */
  replicated: boolean
}

const field = (info: string, name: string): string | undefined => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1]

/** Asks every master once. Never throws: a Redis that does not answer is a state. */
export async function inspectStore (client: RedisClient): Promise<StoreState> {
  const nodes = client.status === 'ready' ? masters(client) : []
  const infos = await Promise.all(nodes.map(async node => await read(node)))
  if (infos.length === 0 || infos.includes(undefined)) return { reachable: false, evicting: undefined, replicated: false }
  const policies = infos.map(info => field(info ?? '', 'maxmemory_policy'))
  return {
    reachable: true,
    evicting: policies.find(policy => policy !== undefined && policy !== 'noeviction'),
    replicated: infos.every(info => /^slave\d+:.*state=online/m.test(info ?? ''))
  }
}

async function read (node: Redis): Promise<string | undefined> {
  try {
    return await node.info()
  } catch {
    return undefined
  }
}
