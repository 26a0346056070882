import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { mayActFor } from '../plugins/auth.ts'
import { ProblemError } from '../problems.ts'
import { EndedAllSchema, IdSchema, ref, UserConcurrencySchema } from '../schemas.ts'
import { responses, USER_SECURITY } from './responses.ts'

const ParamsSchema = Type.Object({ user_id: IdSchema })

/** A user's slots. */
const concurrencyRoutes: FastifyPluginAsyncTypebox = async function (fastify) {
  const { lifecycle } = fastify
  fastify.addHook('onRequest', fastify.auth.user)

  function requireUser ({ principal }: FastifyRequest, userId: string): void {
    if (principal === null || !mayActFor(principal, userId)) throw new ProblemError('forbidden', 'The credential is for another user.')
  }

  fastify.get('/:user_id', {
    schema: {
      operationId: 'getConcurrency',
      tags: ['concurrency'],
      summary: 'Slots of a user and who holds them',
      security: [...USER_SECURITY, {}],
      params: ParamsSchema,
      response: responses({ 200: ref(UserConcurrencySchema) }, 400, 401, 403, 429)
    }
  }, async request => {
    const { user_id: userId } = request.params
    requireUser(request, userId)
    // Side by side: to read for one who then is refused costs Redis less than to make everyone wait once more.
    const [slots] = await Promise.all([lifecycle.concurrency(userId), fastify.countRequest(userId)])
    return slots
  })

  fastify.delete('/:user_id', {
    schema: {
      operationId: 'endAllSessions',
      tags: ['concurrency'],
      summary: 'End all sessions of a user (sign out everywhere)',
      security: [...USER_SECURITY, {}],
      params: ParamsSchema,
      response: responses({ 200: ref(EndedAllSchema) }, 400, 401, 403, 429)
    },
    config: { load: 'never' }
  }, async request => {
    requireUser(request, request.params.user_id)
    await fastify.countRequest(request.params.user_id)
    return { ended: await lifecycle.endAll(request.params.user_id) }
  })
}

export default concurrencyRoutes
