import type { Config } from '../config.ts'
import type { RedisTarget } from '../config/redis-target.ts'
import { startEmbeddedRedis } from './redis.ts'
import { startStubServices } from './stub-services.ts'

/** Where everything is that the service talks to; `close` ends what was started for it. */
export interface Dependencies {
  redis: RedisTarget
  /** Whether that Redis reads the `#!lua` line of scripts. */
  shebang: boolean
  redisDescription: string
  identityUrl: string
  contentUrl: string
  upstreamDescription: string
  close: () => Promise<void>
}

/** What is configured, and an embedded stand-in for what is not. Production configurations name everything. */
export async function resolveDependencies (config: Config): Promise<Dependencies> {
  const closers: Array<() => Promise<void>> = []
  const { target } = config.redis
  const { identityUrl, contentUrl } = config.upstream
  let redis = target
  let shebang = true
  let redisDescription = target === undefined ? '' : describe(target)
  if (redis === undefined) {
    const embedded = await startEmbeddedRedis()
    closers.push(embedded.close)
    redis = { kind: 'single', host: embedded.host, port: embedded.port, tls: false, db: 0 }
    shebang = embedded.kind === 'binary'
    redisDescription = `embedded: ${embedded.description}`
  }
  const stubs = identityUrl === undefined || contentUrl === undefined ? await startStubServices() : undefined
  if (stubs !== undefined) closers.push(stubs.close)
  return {
    redis,
    shebang,
    redisDescription,
    identityUrl: identityUrl ?? stubs?.identityUrl ?? '',
    contentUrl: contentUrl ?? stubs?.contentUrl ?? '',
    upstreamDescription: stubs === undefined ? 'as configured' : `embedded: ${stubs.description}`,
    close: async () => { await Promise.all(closers.map(async close => { await close() })) }
  }
}

function describe (target: RedisTarget): string {
  switch (target.kind) {
    case 'single': return `${target.host}:${target.port}`
    case 'cluster': return `cluster at ${target.nodes.map(({ host, port }) => `${host}:${port}`).join(', ')}`
    case 'sentinel': return `${target.name} by the sentinels ${target.sentinels.map(({ host, port }) => `${host}:${port}`).join(', ')}`
  }
}
