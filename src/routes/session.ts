import type { FastifyPluginAsyncTypebox, TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { notFoundProblem } from '../modules/lifecycle/ended-problem.ts'
import { identityOf, type OwnedSession } from '../modules/lifecycle/lifecycle.ts'
import { mayActFor } from '../plugins/auth.ts'
import { ProblemError } from '../problems.ts'
import { HeartbeatAnswerSchema, HeartbeatRequestSchema, ref, SessionAnswerSchema, SessionIdSchema, stringEnum, TOKEN_LENGTH, TransitionRequestSchema } from '../schemas.ts'
import { BODY_STATUSES, PLAYBACK_SECURITY, responses } from './responses.ts'

const ParamsSchema = Type.Object({ session_id: SessionIdSchema })
const SESSION_STATUSES = [400, 401, 404, 410] as const

/** One session, by its playback token, its user's access token, or a service credential. */
const sessionRoutes: FastifyPluginAsyncTypebox = async function (fastify) {
  const { lifecycle, auth } = fastify

  /** Does something to the session of the path, if the caller's credential is one for it; a foreign one looks absent. Not async: most callers are known at once. */
  function asOwner<T> ({ principal }: FastifyRequest, sessionId: string, act: (session: OwnedSession) => Promise<T>): Promise<T> {
    if (principal === null) throw new ProblemError('unauthorized', 'A valid credential is required.')
    if (principal.kind !== 'session') return lifecycle.locate(sessionId, userId => mayActFor(principal, userId)).then(act)
    if (principal.claims.session_id !== sessionId) throw notFoundProblem()
    return act({ identity: identityOf(principal.claims), claims: principal.claims })
  }

  /** Counts a request of the user whom the caller has proven to be, or to hold a token of; an admin or a gateway for nobody is not counted. */
  async function counted ({ principal }: FastifyRequest): Promise<void> {
    if (principal?.kind === 'session') await fastify.countRequest(principal.claims.user_id)
    if (principal?.kind === 'user') await fastify.countRequest(principal.userId)
  }

  /** Bodies of state changes are optional; `null` is one, and wrong. */
  const defaultBody = async (request: FastifyRequest): Promise<void> => { if (request.body === undefined) request.body = {} }

  fastify.register(async function withToken (scope) {
    scope.addHook('onRequest', auth.session)
    const routes = scope.withTypeProvider<TypeBoxTypeProvider>()

    routes.get('/:session_id', {
      schema: {
        operationId: 'getSession',
        tags: ['session'],
        summary: 'Read a session',
        security: PLAYBACK_SECURITY,
        params: ParamsSchema,
        response: responses({ 200: ref(SessionAnswerSchema) }, ...SESSION_STATUSES, 429)
      },
      preHandler: counted
    }, async request => ({ session: await asOwner(request, request.params.session_id, async owned => await lifecycle.get(owned)) }))

    routes.post('/:session_id/heartbeat', {
      schema: {
        operationId: 'recordHeartbeat',
        tags: ['session'],
        summary: 'Renew a session',
        description: 'Send one every `heartbeat_interval` seconds. A session silent for longer than the timeout loses its slot. On 410 stop playing. 429 says that the session lives and that the last heartbeat was a moment ago.',
        security: PLAYBACK_SECURITY,
        params: ParamsSchema,
        body: ref(HeartbeatRequestSchema),
        response: responses({ 200: ref(HeartbeatAnswerSchema) }, ...SESSION_STATUSES, 429, ...BODY_STATUSES)
      },
      config: { load: 'heartbeat' },
      logLevel: 'warn'
    }, request => asOwner(request, request.params.session_id, owned => lifecycle.heartbeat(owned, request.body)))

    for (const [action, status, summary] of [['pause', 'paused', 'Pause a session'], ['resume', 'active', 'Resume a paused session']] as const) {
      routes.post(`/:session_id/${action}`, {
        schema: {
          operationId: `${action}Session`,
          tags: ['session'],
          summary,
          security: PLAYBACK_SECURITY,
          params: ParamsSchema,
          body: ref(TransitionRequestSchema),
          response: responses({ 200: ref(SessionAnswerSchema) }, ...SESSION_STATUSES, 409, 429, ...BODY_STATUSES)
        },
        config: { load: 'heartbeat' },
        preValidation: defaultBody,
        preHandler: counted
      }, async request => ({
        session: await asOwner(request, request.params.session_id, async owned => await lifecycle.changeStatus(owned, status, request.body))
      }))
    }

    routes.delete('/:session_id', {
      schema: {
        operationId: 'terminateSession',
        tags: ['session'],
        summary: 'Terminate a session',
        description: 'Releases the slot. Counts as played to its end, unless `reason=stopped`. Repeating it answers the first ending.',
        security: PLAYBACK_SECURITY,
        params: ParamsSchema,
        querystring: Type.Object({ reason: Type.Optional(stringEnum(['completed', 'stopped'])) }, { additionalProperties: false }),
        response: responses({ 200: ref(SessionAnswerSchema) }, ...SESSION_STATUSES)
      },
      config: { load: 'never' }
    }, async request => ({
      session: await asOwner(request, request.params.session_id, async owned => await lifecycle.end(owned, request.query.reason === 'stopped' ? 'stop' : 'complete', {}))
    }))
  })

  fastify.register(async function byBeacon (scope) {
    // navigator.sendBeacon cannot set headers and only sends safelisted content types: the same JSON comes as text/plain.
    scope.addContentTypeParser('text/plain', { parseAs: 'string' }, fastify.getDefaultJsonParser('error', 'error'))
    scope.addHook('onRequest', auth.beacon.onRequest)
    scope.addHook('preValidation', defaultBody)
    scope.addHook('preValidation', auth.beacon.preValidation)
    const routes = scope.withTypeProvider<TypeBoxTypeProvider>()

    for (const [action, summary] of [['stop', 'Stop a session before its end'], ['complete', 'Complete a session at its end']] as const) {
      routes.post(`/:session_id/${action}`, {
        schema: {
          operationId: `${action}Session`,
          tags: ['session'],
          summary,
          description: 'Repeating it answers the first ending. For `navigator.sendBeacon` the same JSON may come as `text/plain` with `playback_token` in it and no header.',
          security: [...PLAYBACK_SECURITY, {}],
          params: ParamsSchema,
          body: Type.Object({
            ...TransitionRequestSchema.properties,
            playback_token: Type.Optional(Type.String({ maxLength: TOKEN_LENGTH, description: 'Instead of the Authorization header.' }))
          }, { additionalProperties: false }),
          response: responses({ 200: ref(SessionAnswerSchema) }, ...SESSION_STATUSES, ...BODY_STATUSES)
        },
        config: { load: 'never' }
      }, async request => {
        const { playback_token: _, ...change } = request.body
        return { session: await asOwner(request, request.params.session_id, async owned => await lifecycle.end(owned, action, change)) }
      })
    }
  })
}

export default sessionRoutes
