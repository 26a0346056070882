import { Cluster, Redis, type RedisOptions } from 'ioredis'
import type { RedisTarget } from '../config/redis-target.ts'
import { defineScripts, type RedisClient, type ScriptOptions } from './scripts.ts'
import { keepCommandsYoung } from './young-commands.ts'

export interface ConnectOptions {
  target: RedisTarget
  /** Longest wait for one answer, ms. A command that takes longer is *unknown*, not failed: every script can be repeated. */
  commandTimeoutMs: number
  scripts?: ScriptOptions
}

/** Reconnects soon and for ever, so that a Redis that comes back is used again within seconds. */
const retryDelayMs = (attempt: number) => Math.min(50 * 2 ** attempt, 1_000) * (0.75 + Math.random() / 2)

function nodeOptions ({ target, commandTimeoutMs }: ConnectOptions) {
  return {
    commandTimeout: commandTimeoutMs,
    connectTimeout: Math.max(commandTimeoutMs, 1_000),
    // Nothing is queued for a Redis that is away: callers get their 503 at once, and no stale command runs on its return.
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 1,
    retryStrategy: retryDelayMs,
    lazyConnect: true,
    connectionName: 'viewing-service',
    ...(target.username === undefined ? {} : { username: target.username }),
    ...(target.password === undefined ? {} : { password: target.password }),
    ...(target.tls ? { tls: {} } : {})
  } satisfies RedisOptions
}

/** A client for the target with every script defined; it is not connected yet. */
export function createClient (options: ConnectOptions): RedisClient {
  keepCommandsYoung()
  const { target } = options
  const node = nodeOptions(options)
  const client = target.kind === 'cluster'
    ? new Cluster(target.nodes, {
      redisOptions: node,
      enableOfflineQueue: false,
      lazyConnect: true,
      clusterRetryStrategy: retryDelayMs,
      maxRedirections: 5,
      retryDelayOnFailover: 100,
      retryDelayOnClusterDown: 100,
      retryDelayOnTryAgain: 50,
      slotsRefreshTimeout: 1_000,
      slotsRefreshInterval: 5_000
    })
    : new Redis(target.kind === 'single'
      ? { ...node, host: target.host, port: target.port, db: target.db }
      : {
          ...node,
          sentinels: target.sentinels,
          name: target.name,
          db: target.db,
          ...(target.password === undefined ? {} : { sentinelPassword: target.password }),
          ...(target.tls ? { enableTLSForSentinelMode: true, sentinelTLS: {} } : {}),
          sentinelRetryStrategy: retryDelayMs
        })
  defineScripts(client, options.scripts)
  return client
}

/** A second connection to the master that holds `slot`, and to it alone. `address` tells masters apart. */
export function createMasterClient (options: ConnectOptions, client: RedisClient, slot: number): { address: string, connect: () => Redis } | undefined {
  if (!isCluster(client)) {
    return {
      address: 'master',
      connect: () => {
        const second = client.duplicate()
        defineScripts(second, options.scripts)
        return second
      }
    }
  }
  const address = client.slots[slot]?.[0]
  if (address === undefined) return undefined
  const at = address.lastIndexOf(':')
  return {
    address,
    connect: () => {
      const second = new Redis({ ...nodeOptions(options), host: address.slice(0, at), port: Number(address.slice(at + 1)) })
      defineScripts(second, options.scripts)
      return second
    }
  }
}

export function isCluster (client: RedisClient): client is Cluster {
  return client.isCluster
}

/** The masters as single-node clients: one, or all of a cluster. */
export function masters (client: RedisClient): Redis[] {
  return isCluster(client) ? client.nodes('master') : [client]
}
