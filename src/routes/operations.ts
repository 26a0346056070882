import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { type Health, HealthSchema, JwksSchema, ref } from '../schemas.ts'

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
    const { store, eventSink } = fastify
    const answers = await store.ping()
    const { evicting } = store.state()
    const usable = answers && evicting === undefined
    const redis = !answers
      ? { status: 'down' as const, detail: 'does not answer' }
      : evicting === undefined
        ? { status: 'up' as const, detail: `admissions are ${store.admission.durability}` }
        : { status: 'down' as const, detail: `may evict sessions (maxmemory-policy ${evicting})` }
    const events = eventSink.ready() ? { status: 'up' as const } : { status: 'degraded' as const, detail: 'events wait in the outbox' }
    return {
      status: !usable || draining() ? 'unavailable' : events.status === 'up' ? 'ok' : 'degraded',
      dependencies: { redis, events }
    }
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
