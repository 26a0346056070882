import { Redis } from 'ioredis'
import { type RedisServer, startRedis } from './redis-server.ts'
import { waitFor } from './wait-for.ts'

export interface RedisCluster {
  servers: RedisServer[]
  /** `host:port,host:port,…`, as `REDIS_CLUSTER` takes it. */
  nodes: string
  /** The server that is master of a slot now. */
  masterOf: (slot: number) => Promise<RedisServer>
  close: () => Promise<void>
}

const SLOTS = 16_384

/** A real cluster of three or more masters with a replica each; ready when every node says so and every replica has its first sync behind it. */
export async function startRedisCluster (program: string, { masters: count = 3, nodeTimeoutMs = 2_000, replicas = true, args = [] as string[] } = {}): Promise<RedisCluster> {
  const servers = await Promise.all(Array.from({ length: replicas ? 2 * count : count }, async () => await startRedis({
    program,
    args: ['--cluster-enabled', 'yes', '--cluster-node-timeout', String(nodeTimeoutMs), '--repl-diskless-sync-delay', '0', ...args]
  })))
  const clients = servers.map(({ host, port }) => new Redis({ host, port }))
  const masters = clients.slice(0, count)
  await Promise.all(masters.map(async (client, index) => {
    const from = Math.floor(SLOTS * index / count)
    const to = Math.floor(SLOTS * (index + 1) / count) - 1
    await client.call('CLUSTER', 'ADDSLOTSRANGE', from, to)
    await client.call('CLUSTER', 'SET-CONFIG-EPOCH', index + 1)
  }))
  for (const { host, port } of servers) await clients[0]?.call('CLUSTER', 'MEET', host, port)
  await waitFor('every node to know every other', async () => {
    const counts = await Promise.all(clients.map(async client => String(await client.call('CLUSTER', 'INFO'))))
    return counts.every(info => info.includes(`cluster_known_nodes:${servers.length}`))
  }, 30_000)
  const ids = await Promise.all(masters.map(async client => String(await client.call('CLUSTER', 'MYID'))))
  await Promise.all(clients.slice(count).map(async (client, index) => { await client.call('CLUSTER', 'REPLICATE', ids[index] ?? '') }))
  await waitFor('the cluster to be whole', async () => {
    const states = await Promise.all(clients.map(async client => `${String(await client.call('CLUSTER', 'INFO'))}${await client.info('replication')}`))
    return states.every((state, index) => state.includes('cluster_state:ok') && (index < count ? !replicas || /slave0:.*state=online/.test(state) : state.includes('master_link_status:up')))
  }, 30_000)
  for (const client of clients) client.disconnect()
  return {
    servers,
    nodes: servers.map(server => server.address).join(),
    masterOf: async slot => {
      for (const server of servers) {
        const client = new Redis({ host: server.host, port: server.port, lazyConnect: true, retryStrategy: null })
        client.on('error', () => { /* a killed node */ })
        try {
          await client.connect()
          for (const [from, to, node] of await client.cluster('SLOTS')) {
            const master = slot >= from && slot <= to ? servers.find(({ port }) => port === node?.[1]) : undefined
            if (master !== undefined) return master
          }
        } catch { /* asks the next */ } finally { client.disconnect() }
      }
      throw new Error(`no master for slot ${slot}`)
    },
    close: async () => { await Promise.all(servers.map(async server => { await server.close() })) }
  }
}
