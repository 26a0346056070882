import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { HeartbeatsAnswerSchema, HeartbeatsRequestSchema, ref } from '../schemas.ts'
import { BODY_STATUSES, responses } from './responses.ts'

/** Largest body of the routes that take up to 1,000 items, bytes. */
export const BATCH_BODY_BYTES = 2 * 1024 * 1024

/** Heartbeats of many players in one request, for gateways. Each item carries its own credential. */
const heartbeatsRoutes: FastifyPluginAsyncTypebox = async function (fastify) {
  fastify.post('/heartbeats', {
    schema: {
      operationId: 'recordHeartbeats',
      tags: ['session'],
      summary: 'Renew up to 1,000 sessions',
      description: 'One result for each item, in order, with the status that heartbeat alone would have had. Of several heartbeats of one session the first counts, the others are 429. Bodies up to 2 MiB.',
      security: [],
      body: ref(HeartbeatsRequestSchema),
      response: responses({ 200: ref(HeartbeatsAnswerSchema) }, ...BODY_STATUSES)
    },
    bodyLimit: BATCH_BODY_BYTES,
    config: { load: 'heartbeat' },
    logLevel: 'warn'
  }, async request => ({ results: await fastify.lifecycle.heartbeats(request.body.heartbeats) }))
}

export default heartbeatsRoutes
