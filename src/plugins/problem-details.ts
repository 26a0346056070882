import type { Socket } from 'node:net'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { PROBLEMS, type ProblemCode, ProblemError } from '../problems.ts'
import { storeProblem } from '../redis/errors.ts'

/** Identifies a problem type; a URN, because no address of ours is promised to answer. */
const typeOf = (code: ProblemCode) => `urn:viewing-service:problem:${code}`

/** What Fastify's own errors mean. Everything else of Fastify's with a 4xx status is `bad-request`. */
const FRAMEWORK_CODES: Record<string, ProblemCode> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'payload-too-large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported-media-type',
  FST_ERR_MAX_PARAM_LENGTH: 'uri-too-long',
  FST_ERR_CTP_INVALID_HANDLER: 'unsupported-media-type'
}

/** One error handler, one not-found handler: every failure leaves as `application/problem+json` (RFC 9457). */
export default fp(async function problemDetails (fastify) {
  const routes: Array<{ method: string, pattern: RegExp }> = []
  fastify.addHook('onRoute', ({ method, url }) => {
    const pattern = new RegExp(`^${url.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/:[a-z_]+/g, '[^/]+')}/?$`)
    for (const each of [method].flat()) routes.push({ method: each, pattern })
  })

  fastify.setErrorHandler(async (error: FastifyError, request, reply) => {
    // Fastify looks at the content type of QUERY (RFC 10008) before it looks for the route; none of ours takes that method.
    if (error.code === 'FST_ERR_ROUTE_MISSING_CONTENT_TYPE') return notFound(request, reply)
    const problem = toProblem(error)
    if (problem.statusCode >= 500 && problem.code === 'internal-error') request.log.error({ err: error }, 'request failed')
    else if (problem.statusCode >= 500) request.log.warn({ code: problem.code, cause: causeText(problem) }, 'request refused')
    return sendProblem(problem, request, reply)
  })

  fastify.setNotFoundHandler(async (request, reply) => notFound(request, reply))

  function notFound (request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const path = pathOf(request)
    const allowed = routes.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method)
    if (allowed.length === 0 || allowed.includes(request.method)) {
      return sendProblem(new ProblemError('route-not-found', 'Nothing answers to this path.'), request, reply)
    }
    reply.header('allow', [...new Set(allowed)].join(', '))
    return sendProblem(new ProblemError('method-not-allowed', `The path answers to ${[...new Set(allowed)].join(', ')}.`), request, reply)
  }
}, { name: 'problem-details' })

/** For requests that fail before routing: bad escapes, over-long parameters. */
export function frameworkErrors (error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  return sendProblem(toProblem(error), request, reply)
}

/** For bytes that are no HTTP request: a complete answer by hand, because there is no request to answer. */
export function clientErrorHandler (error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const code = error.code === 'HPE_HEADER_OVERFLOW' ? 'headers-too-large' : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 'request-timeout' : 'bad-request'
  const { status, title } = PROBLEMS[code]
  const body = JSON.stringify({ type: typeOf(code), title, status, detail: 'The bytes received are no acceptable HTTP request.', instance: '', code, request_id: '' })
  socket.end(`HTTP/1.1 ${status} ${title}\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`)
}

function toProblem (error: FastifyError | ProblemError): ProblemError {
  if (error instanceof ProblemError) return error
  if (error.validation !== undefined) return validationProblem(error)
  const store = storeProblem(error)
  if (store !== undefined) return store
  const status = error.statusCode ?? 500
  if (status >= 400 && status < 500) {
    const byStatus = status === 415 ? 'unsupported-media-type' : status === 413 ? 'payload-too-large' : 'bad-request'
    const code = FRAMEWORK_CODES[error.code] ?? byStatus
    return new ProblemError(code, DETAILS[code] ?? 'The request could not be read.', { cause: error })
  }
  return new ProblemError('internal-error', 'The request could not be completed.', { cause: error })
}

const DETAILS: Partial<Record<ProblemCode, string>> = {
  'payload-too-large': 'The request body is larger than this route takes.',
  'unsupported-media-type': 'Send application/json.',
  'uri-too-long': 'A part of the path is too long.'
}

/** Says where and which rule, never the value: it may be a credential. */
function validationProblem (error: FastifyError): ProblemError {
  const place = error.validationContext ?? 'body'
  const errors = (error.validation ?? []).map(({ instancePath, keyword, params, message }) => {
    const member = keyword === 'required' ? `/${String(params.missingProperty)}` : ''
    const detail = keyword === 'additionalProperties' ? 'has a member that is not known' : message ?? 'is invalid'
    return { pointer: `/${place}${instancePath}${member}`, detail }
  })
  return new ProblemError('validation-failed', `The ${place} does not match the schema.`, { extensions: { errors } })
}

function sendProblem (problem: ProblemError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { status, title } = PROBLEMS[problem.code]
  if (problem.retryAfterSeconds !== undefined) reply.header('retry-after', problem.retryAfterSeconds)
  if (status === 401) reply.header('www-authenticate', 'Bearer')
  return reply.code(status).type('application/problem+json').serializer(JSON.stringify).send({
    type: typeOf(problem.code),
    title,
    status,
    detail: problem.message,
    instance: pathOf(request),
    code: problem.code,
    request_id: request.id,
    ...problem.extensions
  })
}

const pathOf = (request: FastifyRequest) => request.url.split('?', 1)[0] ?? ''
const causeText = (problem: ProblemError) => problem.cause instanceof Error ? problem.cause.message : undefined
