import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Region } from '../plugins/region.ts'
import { type Health, HealthSchema, JwksSchema, ref } from '../schemas.ts'

type Dependency = NonNullable<NonNullable<Health['dependencies']>['redis']>

export interface OperationsOptions {
  /** True once the process has been told to end: it takes no new traffic. */
  draining: () => boolean
}

/** What operators and verifiers ask: alive, ready, keys, document. */
const operationsRoutes: FastifyPluginAsyncTypebox<OperationsOptions> = async function (fastify, { draining }) {
  const health = (operationId: string, summary: string) => ({
    schema: {
      operationId,
      tags: ['operations'],
      summary,
      security: [],
      response: { 200: { ...ref(HealthSchema), description: 'Good.' }, 503: { ...ref(HealthSchema), description: 'Not ready.' } }
    },
    config: { load: 'never' as const },
    logLevel: 'warn' as const
  })

  async function readiness (): Promise<Health> {
    const { store, eventSink, region } = fastify
    const answers = await store.ping()
    const { evicting } = store.state()
    const usable = answers && evicting === undefined
    const redis = !answers
      ? { status: 'down' as const, detail: 'does not answer' }
      : evicting === undefined
        ? { status: 'up' as const, detail: `admissions are ${store.admission.durability}` }
        : { status: 'down' as const, detail: `may evict sessions (maxmemory-policy ${evicting})` }
    const events = eventSink.ready() ? { status: 'up' as const } : { status: 'degraded' as const, detail: 'events wait in the outbox' }
    if (region?.role() === 'reader') return readerHealth(region, redis, events)
    return {
      status: !usable || draining() ? 'unavailable' : events.status === 'up' ? 'ok' : 'degraded',
      ...(region === undefined ? {} : { role: 'writer' as const }),
      dependencies: { redis, events }
    }
  }

  /** A reader is of use as long as it can answer reads by itself or forward everything. */
  function readerHealth (region: Region, redis: Dependency, events: Dependency): Health {
    const other = region.other()
    const writer: Dependency = other === 'unreachable' || other === 'unknown'
      ? { status: 'down', detail: 'does not answer' }
      : other === 'reader' ? { status: 'degraded', detail: 'says that it is a reader too: nobody takes writes' } : { status: 'up' }
    const replica: Dependency = redis.status === 'down'
      ? redis
      : region.fresh() ? { status: 'up', detail: 'a replica; writes are forwarded' } : { status: 'degraded', detail: 'a replica out of touch with its master, or a master that refuses writes: reads are forwarded too' }
    const dependencies = { writer, redis: replica, events }
    const useless = replica.status !== 'up' && writer.status !== 'up'
    const whole = Object.values(dependencies).every(({ status }) => status === 'up')
    return { status: useless || draining() ? 'unavailable' : whole ? 'ok' : 'degraded', role: 'reader', dependencies }
  }

  fastify.get('/health/live', health('getLiveness', 'Is the process alive?'), async () => ({ status: 'ok' as const }))

  for (const [path, operationId, summary] of [['/health', 'getHealth', 'Health, dependency by dependency'], ['/health/ready', 'getReadiness', 'Should traffic be sent here?']] as const) {
    fastify.get(path, health(operationId, summary), async (_request, reply) => {
      const answer = await readiness()
      reply.code(answer.status === 'unavailable' ? 503 : 200)
      return answer
    })
  }

  fastify.get('/.well-known/jwks.json', {
    schema: {
      operationId: 'getJwks',
      tags: ['token'],
      summary: 'Public keys of playback tokens',
      security: [],
      response: { 200: { ...ref(JwksSchema), description: 'RFC 7517 key set; empty with HS256.' } }
    }
  }, async (_request, reply) => {
    reply.header('cache-control', 'public, max-age=300')
    return fastify.tokens.jwks()
  })
}

export default operationsRoutes
