import { setTimeout as sleep } from 'node:timers/promises'
import fp from 'fastify-plugin'
import type { Config } from '../config.ts'
import { Admission } from '../redis/admission.ts'
import { RedisClock } from '../redis/clock.ts'
import { type ConnectOptions, createClient, isCluster } from '../redis/connect.ts'
import { inspectStore, type StoreState } from '../redis/monitor.ts'
import { Pulse } from '../redis/pulse.ts'
import type { RedisClient } from '../redis/scripts.ts'

/** The session store: one client, the clock and the admission lanes on it. */
export interface Store {
  client: RedisClient
  clock: RedisClock
  admission: Admission
  pulse: Pulse
  /** The last look at the masters, at most `INSPECT_MS` old. */
  state: () => StoreState
  /** Looks now. */
  inspect: () => Promise<StoreState>
  /** True when Redis answers right now. */
  ping: () => Promise<boolean>
  connections: () => number
}

declare module 'fastify' {
  interface FastifyInstance { store: Store }
}

export interface RedisPluginOptions {
  config: Config
  connect: ConnectOptions
}

const INSPECT_MS = 5_000
/** How long the start waits for Redis before it goes on without: unready, and healed by itself later. */
const BOOT_WAIT_MS = 3_000

export default fp<RedisPluginOptions>(async function redis (fastify, { config, connect }) {
  const client = createClient(connect)
  const clock = new RedisClock()
  const admission = new Admission(connect, client, config.admission.durability)
  const { session } = config
  const pulse = new Pulse({ client, clock, timeoutMs: session.timeoutMs, heartbeatMs: session.heartbeatMs, sweepMs: session.sweepMs, ttlMs: session.ttlMs })
  let state: StoreState = { reachable: false, evicting: undefined, replicated: false, following: undefined }

  const inspect = async (): Promise<StoreState> => {
    const before = state
    state = await inspectStore(client)
    admission.replicasConnected = state.replicated
    if (state.evicting !== undefined && before.evicting === undefined) {
      fastify.log.error({ policy: state.evicting }, 'Redis may evict sessions: set maxmemory-policy to noeviction')
    }
    if (before.replicated && !state.replicated && state.reachable) fastify.log.warn('a Redis master has no replica: admissions are no longer replicated')
    return state
  }

  let reachable = true
  client.on('error', error => {
    if (reachable) fastify.log.error({ err: error }, 'Redis connection failed')
    reachable = false
  })
  client.on('ready', () => {
    if (!reachable) fastify.log.info('Redis connection restored')
    reachable = true
    inspect().catch(error => { fastify.log.error({ err: error }, 'Redis inspection failed') })
  })

  fastify.decorate('store', {
    client,
    clock,
    admission,
    pulse,
    state: () => state,
    inspect,
    ping: async () => {
      try {
        if (client.status !== 'ready') return false
        // One key's node may be away while another answers; readiness means that all masters do.
        const nodes = isCluster(client) ? client.nodes('master') : [client]
        await Promise.all(nodes.map(async node => await node.ping()))
        return true
      } catch {
        return false
      }
    },
    connections: () => admission.connections +
      (isCluster(client) ? client.nodes('all').filter(node => node.status === 'ready').length : Number(client.status === 'ready'))
  })

  await Promise.race([client.connect().catch(() => { /* logged by the handler above; it goes on trying */ }), sleep(BOOT_WAIT_MS, undefined, { ref: false })])
  await inspect()
  if (config.production && state.evicting !== undefined) {
    throw new Error(`Redis evicts (maxmemory-policy ${state.evicting}): the limit would be switched off silently; set noeviction`)
  }
  if (!state.reachable) fastify.log.error('Redis does not answer: starting unready')
  // With a second region it is first to be known whose Redis this is (plugins/region.ts).
  pulse.suspended = config.region !== undefined
  await pulse.takeAll()

  const timer = setInterval(() => {
    inspect().catch(error => { fastify.log.error({ err: error }, 'Redis inspection failed') })
  }, INSPECT_MS)
  timer.unref()
  fastify.addHook('onClose', async () => {
    clearInterval(timer)
    admission.close()
    client.disconnect()
  })
}, { name: 'redis' })
