import { Redis } from 'ioredis'
import { type RedisServer, startRedis } from './redis-server.ts'
import { waitFor } from './wait-for.ts'

export interface RedisSentinel {
  /** The name of the master that the sentinels watch. */
  name: string
  /** `host:port,host:port,…`, as `REDIS_SENTINELS` takes it. */
  nodes: string
  /** The data servers, the first master first. */
  servers: RedisServer[]
  sentinels: RedisServer[]
  /** The master as a majority of all sentinels names it now. */
  master: () => Promise<RedisServer>
  close: () => Promise<void>
}

export interface SentinelOptions {
  replicas?: number
  /** A majority of them has to agree that the master is gone. */
  sentinels?: number
  downAfterMs?: number
}

const NAME = 'mymaster'
const FORMS_WITHIN_MS = 30_000

/** A real master with replicas under real sentinels; ready when the replicas are in step and every sentinel knows all the others, so that a failover can happen. */
export async function startRedisSentinel (program: string, { replicas = 1, sentinels = 3, downAfterMs = 1_000 }: SentinelOptions = {}): Promise<RedisSentinel> {
  const started: RedisServer[] = []
  const close = async () => { await Promise.all(started.map(async server => { await server.close() })) }
  const keep = async (starting: Promise<RedisServer>) => {
    const server = await starting
    started.push(server)
    return server
  }
  try {
    const master = await keep(startRedis({ program }))
    const others = await all(replicas, async () => await keep(startRedis({
      program, args: ['--replicaof', master.host, String(master.port), '--repl-diskless-sync-delay', '0']
    })))
    await waitFor('the replicas to be in step', async () => {
      const states = await Promise.all(others.map(async server => await ask(server, async client => await client.info('replication'))))
      return states.every(state => state?.includes('master_link_status:up'))
    }, FORMS_WITHIN_MS)
    const config = [
      'sentinel announce-ip 127.0.0.1',
      `sentinel monitor ${NAME} ${master.host} ${master.port} ${Math.floor(sentinels / 2) + 1}`,
      `sentinel down-after-milliseconds ${NAME} ${downAfterMs}`,
      `sentinel failover-timeout ${NAME} 10000`,
      ''
    ].join('\n')
    const watchers = await all(sentinels, async () => await keep(startRedis({ program, config, args: ['--sentinel'] })))
    await waitFor('the sentinels to know each other and the replicas', async () => {
      const views = await Promise.all(watchers.map(async watcher => await ask(watcher, async client => fields(await client.call('SENTINEL', 'MASTER', NAME)))))
      return views.every(view => view?.flags === 'master' && view['num-slaves'] === String(replicas) && view['num-other-sentinels'] === String(sentinels - 1))
    }, FORMS_WITHIN_MS)
    return { name: NAME, nodes: watchers.map(server => server.address).join(), servers: [master, ...others], sentinels: watchers, master: masterSeenBy(watchers, [master, ...others]), close }
  } catch (error) {
    await close()
    throw error
  }
}

function masterSeenBy (watchers: readonly RedisServer[], servers: readonly RedisServer[]) {
  return async (): Promise<RedisServer> => {
    const ports = await Promise.all(watchers.map(async watcher => await ask(watcher, async client => {
      const reply = await client.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', NAME)
      return Array.isArray(reply) ? Number(reply[1]) : undefined
    })))
    const named = servers.find(server => ports.filter(port => port === server.port).length * 2 > watchers.length)
    if (named === undefined) throw new Error('the sentinels do not agree on the master')
    return named
  }
}

/** Starts them side by side; rejects only when all starts are over, so that nothing starts after the clean-up. */
async function all<T> (count: number, start: () => Promise<T>): Promise<T[]> {
  const results = await Promise.allSettled(Array.from({ length: count }, start))
  return results.map(result => {
    if (result.status === 'rejected') throw result.reason
    return result.value
  })
}

/** One answer over a connection of its own; undefined if the server does not give it. */
async function ask<T> ({ host, port }: RedisServer, question: (client: Redis) => Promise<T>): Promise<T | undefined> {
  const client = new Redis({ host, port, protocol: 2, lazyConnect: true, commandTimeout: 2_000, retryStrategy: null, maxRetriesPerRequest: 0 })
  client.on('error', () => { /* the question fails */ })
  try {
    await client.connect()
    return await question(client)
  } catch {
    return undefined
  } finally {
    client.disconnect()
  }
}

/** A flat list of names and values as an object. */
function fields (reply: unknown): Record<string, string> {
  const list: unknown[] = Array.isArray(reply) ? reply : []
  const entries: Record<string, string> = {}
  for (let at = 0; at + 1 < list.length; at += 2) entries[String(list[at])] = String(list[at + 1])
  return entries
}
