import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { createHash, timingSafeEqual } from 'node:crypto'
import { ProblemError } from '../../problems.ts'
import type { Principal } from './principal.ts'

export const ADMIN_SCOPE = 'playback:admin'
/** User ids as everywhere in the service; anything else could never name a user. */
export const USER_ID = /^[A-Za-z0-9._:@|+=-]{1,128}$/
const SCHEME = 'bearer '

/** The one answer to whatever is wrong with a credential: saying what is wrong would help whoever guesses. */
export function unauthorized (): ProblemError {
  return new ProblemError('unauthorized', 'A valid credential is required.')
}

/**
 * The bearer token of a request (RFC 6750, section 2.1), whatever it is made of: who verifies it looks at that. undefined without an
 * Authorization header. @throws ProblemError 401 for another scheme or several headers.
 */
export function bearerOf ({ headers, rawHeaders }: IncomingMessage): string | undefined {
  const { authorization } = headers
  if (authorization === undefined) return undefined
  // Node keeps the first of several; whoever stands in front may have checked the last.
  if (authorization.slice(0, SCHEME.length).toLowerCase() !== SCHEME || isRepeated(rawHeaders, 'authorization')) throw unauthorized()
  return authorization.slice(SCHEME.length).trim()
}

function isRepeated (rawHeaders: readonly string[], name: string): boolean {
  let seen = 0
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const header = rawHeaders[at] ?? ''
    if (header.length === name.length && header.toLowerCase() === name) seen++
  }
  return seen > 1
}

/** A gateway in front of the service that proves itself with a secret and says for whom it calls. */
export class Gateway {
  readonly #expected: Buffer

  constructor (secret: string) {
    this.#expected = digest(secret)
  }

  /** What the gateway vouches for; undefined when the request shows no secret. @throws ProblemError 401 for a wrong secret or no user id. */
  vouch (headers: IncomingHttpHeaders): Principal | undefined {
    const shown = headers['x-gateway-secret']
    if (shown === undefined) return undefined
    // Hashes are compared, so that neither content nor length shows in the time it takes.
    if (typeof shown !== 'string' || !timingSafeEqual(digest(shown), this.#expected)) throw unauthorized()
    if (headers['x-scope'] === ADMIN_SCOPE) return { kind: 'admin' }
    const userId = headers['x-user-id']
    if (userId === undefined) return { kind: 'gateway' }
    if (typeof userId !== 'string' || !USER_ID.test(userId)) throw unauthorized()
    return { kind: 'user', userId, byGateway: true }
  }
}

function digest (text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
