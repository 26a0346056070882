import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import { mayActFor, type RegionPolicy, vouchedRegion } from '../plugins/auth.ts'
import { ProblemError } from '../problems.ts'
import { ref, StartedSchema, StartRequestSchema } from '../schemas.ts'
import { BODY_STATUSES, responses, USER_SECURITY } from './responses.ts'

const HeadersSchema = Type.Object({
  'idempotency-key': Type.Optional(Type.String({
    pattern: '^[!-~]{1,255}$',
    description: 'Makes the start safe to repeat: one key, one session. 1 to 255 visible ASCII characters.',
    examples: ['6d2f4f0e-play-1']
  }))
})

/** May this person start playing this, here, now? */
const startRoutes: FastifyPluginAsyncTypebox<{ region: RegionPolicy }> = async function (fastify, { region }) {
  fastify.addHook('onRequest', fastify.auth.user)

  fastify.post('', {
    schema: {
      operationId: 'createSession',
      tags: ['session'],
      summary: 'Start a session',
      description: 'Checks entitlement and availability, takes a slot and issues a playback token. 409 names who holds the slots; `Retry-After` says when the first falls free by itself.',
      security: [...USER_SECURITY, {}],
      headers: HeadersSchema,
      body: ref(StartRequestSchema),
      response: responses({
        200: { ...ref(StartedSchema), description: 'The session this Idempotency-Key has started.' },
        201: { ...ref(StartedSchema), description: 'Started.' }
      }, 401, 403, 409, 410, 422, 429, ...BODY_STATUSES)
    },
    config: { load: 'start' }
  }, async (request, reply) => {
    const { principal, body } = request
    if (principal === null || !mayActFor(principal, body.user_id)) {
      throw new ProblemError('forbidden', 'The credential is for another user.')
    }
    await fastify.countRequest(body.user_id)
    const where = vouchedRegion(request, principal, body.region, region)
    const { repeated, body: started } = await fastify.starter.start(body, where, request.headers['idempotency-key'])
    reply.code(repeated ? 200 : 201).header('location', `${request.url}/${started.session.session_id}`)
    return started
  })
}

export default startRoutes
