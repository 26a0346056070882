import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { ProblemError } from '../problems.ts'
import { RefreshAnswerSchema, RefreshRequestSchema, ref, ValidateAnswerSchema, ValidateRequestSchema } from '../schemas.ts'
import { BATCH_BODY_BYTES } from './heartbeats.ts'
import { BODY_STATUSES, responses } from './responses.ts'

/** Playback tokens: is it good, and does its session live? */
const tokenRoutes: FastifyPluginAsyncTypebox = async function (fastify) {
  const { lifecycle } = fastify

  fastify.post('/validate', {
    schema: {
      operationId: 'validateToken',
      tags: ['token'],
      summary: 'Validate one token, or up to 1,000',
      description: 'Anyone may ask: the token itself is the secret. A bad token is 200 with `valid: false`. Bodies up to 2 MiB.',
      security: [],
      body: ref(ValidateRequestSchema),
      response: responses({ 200: ref(ValidateAnswerSchema) }, ...BODY_STATUSES)
    },
    bodyLimit: BATCH_BODY_BYTES,
    logLevel: 'warn'
  }, async request => {
    const { body } = request
    if ('tokens' in body) return { results: await lifecycle.validate(body.tokens, body.live ?? true) }
    const [verdict] = await lifecycle.validate([body.token], body.live ?? true)
    return verdict ?? { valid: false }
  })

  fastify.post('/refresh', {
    schema: {
      operationId: 'refreshToken',
      tags: ['token'],
      summary: 'New token for a live session',
      description: 'Takes a token that is still valid, in the body or as `Authorization: Bearer`.',
      security: [{ playbackToken: [] }, {}],
      body: ref(RefreshRequestSchema),
      response: responses({ 200: ref(RefreshAnswerSchema) }, 401, 404, 410, 429, ...BODY_STATUSES)
    },
    preValidation: async request => { if (request.body === undefined) request.body = {} }
  }, async request => {
    const token = request.body.token ?? /^bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
    if (token === undefined) throw new ProblemError('unauthorized', 'A valid playback token is required.')
    const claims = lifecycle.claimsOf(token)
    await fastify.countRequest(claims.user_id)
    return await lifecycle.refresh(claims)
  })
}

export default tokenRoutes
