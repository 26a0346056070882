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

  async function requireUser ({ principal }: FastifyRequest, userId: string): Promise<void> {
    if (principal === null || !mayActFor(principal, userId)) throw new ProblemError('forbidden', 'The credential is for another user.')
    await fastify.countRequest(userId)
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
    await requireUser(request, request.params.user_id)
    return await lifecycle.concurrency(request.params.user_id)
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
    await requireUser(request, request.params.user_id)
    return { ended: await lifecycle.endAll(request.params.user_id) }
  })
}

export default concurrencyRoutes
