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
  /** How the server stands to its own master when it is a replica; `undefined`: it is a master, or does not tell. */
  following: Following | undefined
}

/** What a replica says of the stream from its master. */
export interface Following {
  connected: boolean
  /** Connected: since it last heard anything from its master. Else: since the connection went. Infinity: never was. */
  silentSeconds: number
}

const field = (info: string, name: string): string | undefined => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1]

/** Asks every master once. Never throws: a Redis that does not answer is a state. */
export async function inspectStore (client: RedisClient): Promise<StoreState> {
  const nodes = client.status === 'ready' ? masters(client) : []
  const infos = await Promise.all(nodes.map(async node => await read(node)))
  if (infos.length === 0 || infos.includes(undefined)) return { reachable: false, evicting: undefined, replicated: false, following: undefined }
  const policies = infos.map(info => field(info ?? '', 'maxmemory_policy'))
  return {
    reachable: true,
    evicting: policies.find(policy => policy !== undefined && policy !== 'noeviction'),
    replicated: infos.every(info => /^slave\d+:.*state=online/m.test(info ?? '')),
    following: infos.map(info => followingOf(info ?? '')).find(following => following !== undefined)
  }
}

function followingOf (info: string): Following | undefined {
  if (field(info, 'role') !== 'slave') return undefined
  const connected = field(info, 'master_link_status') === 'up'
  const seconds = Number(field(info, connected ? 'master_last_io_seconds_ago' : 'master_link_down_since_seconds') ?? -1)
  return { connected, silentSeconds: seconds < 0 ? Infinity : seconds }
}

async function read (node: Redis): Promise<string | undefined> {
  try {
    return await node.info()
  } catch {
    return undefined
  }
}
