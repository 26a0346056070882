import type { OutgoingHttpHeaders } from 'node:http'
import fp from 'fastify-plugin'
import { PlainAnswer } from './plain-http/messages.ts'

export interface AnswerHeadersOptions {
  draining: () => boolean
}

/**
 * Headers of every answer. An API's answers are data and never a page: what the OWASP REST Security Cheat Sheet asks for is fixed text. Helmet
 * builds a page's headers anew for each answer (5 % of a heartbeat), so the pages under /docs alone have it.
 */
const FIXED = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  // Answers hold tokens and what a user watches (RFC 6750, section 5.3).
  'cache-control': 'no-store'
}
const NAMES = ['x-content-type-options', 'content-security-policy', 'cache-control'] as const satisfies Array<keyof typeof FIXED>
const line = (name: keyof typeof FIXED): string => `${name}: ${FIXED[name]}\r\n`
const BLOCK = NAMES.map(line).join('')

/** The fixed headers as text; a route's own of the same name takes the place of one. */
export function fixedLines (own: OutgoingHttpHeaders): string {
  const taken = 'x-content-type-options' in own || 'content-security-policy' in own || 'cache-control' in own
  return taken ? NAMES.filter(name => !(name in own)).map(line).join('') : BLOCK
}

export default fp<AnswerHeadersOptions>(async function answerHeaders (fastify, { draining }) {
  // Set when the request comes, not in onSend: without such hooks Fastify answers without one more turn.
  fastify.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    // The others have them as one text, made once: as headers of Fastify, looked at and put together for each answer, they were 5 to 9 % of a heartbeat.
    if (!(reply.raw instanceof PlainAnswer)) reply.headers(FIXED)
    // A process that is about to end asks its keep-alive clients to leave, before it closes on them.
    if (draining()) reply.header('connection', 'close')
    done()
  })
}, { name: 'answer-headers' })
