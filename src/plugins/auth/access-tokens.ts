import fastifyJwt from '@fastify/jwt'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { AuthConfig } from '../../config.ts'
import { isKeyPairMaterial } from '../../config/secret-material.ts'
import { ProblemError } from '../../problems.ts'
import { ADMIN_SCOPE, bearerOf, unauthorized, USER_ID } from './credentials.ts'
import { JwksKeys } from './jwks-keys.ts'
import type { Principal } from './principal.ts'

declare module 'fastify' {
  interface FastifyRequest {
    verifyAccessToken: () => Promise<unknown>
  }
}
declare module '@fastify/jwt' {
  interface JWT { access: JWT }
}

/** Who the access token of a request speaks for. @throws ProblemError 401 for one that is not valid, 503 while that cannot be known. */
export type VerifyAccess = (request: FastifyRequest, token: string) => Promise<Principal> | Principal

/** `iss` of playback tokens, which are never access tokens. */
export const PLAYBACK_ISSUER = 'viewing-service'
const LEEWAY_SECONDS = 5
/** Headers of valid tokens that need not be looked at again; an issuer writes one or two. */
const MOST_HEADERS = 16
const PAIR_ALGORITHMS = ['RS256', 'ES256', 'EdDSA'] as const

/**
 * Registers the verification of the platform's access tokens (RFC 9068 in spirit: `iss`, `aud`, `sub`, `exp` are required) and gives
 * the function that does it. Verified with the platform's keys alone: a playback token cannot pass, whatever it claims.
 *
 * @param nowMs Redis' time; the library's own time checks are off, they would use the instance's clock.
 * @throws Error at the start when a setting would make the check worthless.
 */
export async function registerAccessTokens (
  fastify: FastifyInstance,
  { jwtSecret, jwksUrl, issuer, audience }: Extract<AuthConfig, { mode: 'jwt' }>,
  nowMs: () => number
): Promise<VerifyAccess> {
  // The library takes an empty name for "any".
  if (issuer === '' || audience === '') throw new Error('AUTH_ISSUER, AUTH_AUDIENCE: required with AUTH_MODE=jwt')
  if (issuer === PLAYBACK_ISSUER) throw new Error(`AUTH_ISSUER: ${PLAYBACK_ISSUER} is the issuer of playback tokens`)
  if (jwtSecret !== undefined && isKeyPairMaterial(jwtSecret)) throw new Error('AUTH_JWT_SECRET: a key pair\'s material is no shared secret; use AUTH_JWKS_URL')
  const report = (away: boolean): void => {
    if (away) fastify.log.warn('AUTH_JWKS_URL gives no keys: known ones are used for up to 24 h, others are 503')
    else fastify.log.info('AUTH_JWKS_URL gives keys again')
  }
  const jwks = jwksUrl === undefined ? undefined : new JwksKeys(jwksUrl, report)

  await fastify.register(fastifyJwt, {
    namespace: 'access',
    jwtVerify: 'verifyAccessToken',
    decode: { complete: true },
    // Keys are given as text: only then does the plugin keep one verifier for each.
    secret: jwtSecret ?? (async (_request: FastifyRequest, token: unknown) => {
      const { kid, alg, crit } = headerOf(token)
      // Nobody is sent to the platform for the key of a playback token.
      if (crit !== undefined || typeof kid !== 'string' || Object(Object(token).payload).iss === PLAYBACK_ISSUER) throw unauthorized()
      const key = await jwks?.find(kid)
      if (key === undefined || key.alg !== alg) throw unauthorized()
      return key.pem
    }),
    verify: {
      algorithms: jwtSecret === undefined ? [...PAIR_ALGORITHMS] : ['HS256'],
      allowedIss: issuer,
      allowedAud: audience,
      requiredClaims: ['sub', 'exp', 'iss', 'aud'],
      ignoreExpiration: true,
      ignoreNotBefore: true,
      extractToken: request => bearerOf(request.raw)
    }
  })
  const judge = (claims: unknown): Principal => principalOf({ ...Object(claims) }, nowMs() / 1_000)
  const refuse = (error: unknown): never => { throw error instanceof ProblemError ? error : unauthorized() }
  if (jwtSecret === undefined) return async request => judge(await request.verifyAccessToken().catch(refuse))

  // One key for all: nothing has to be waited for, and the token is taken apart once.
  const { access } = fastify.jwt
  const plainHeaders = new Set<string>()
  return (_request, token) => {
    const header = token.slice(0, token.indexOf('.'))
    try {
      const claims = access.verify(token)
      if (!plainHeaders.has(header)) {
        if (headerOf(access.decode(token, { complete: true })).crit !== undefined) throw unauthorized()
        if (plainHeaders.size < MOST_HEADERS) plainHeaders.add(header)
      }
      return judge(claims)
    } catch (error) {
      return refuse(error)
    }
  }
}

function principalOf ({ sub, exp, nbf, scope, scp }: Record<string, unknown>, now: number): Principal {
  if (!isNumericDate(exp) || now >= exp + LEEWAY_SECONDS) throw unauthorized()
  if (nbf !== undefined && (!isNumericDate(nbf) || now < nbf - LEEWAY_SECONDS)) throw unauthorized()
  if (typeof sub !== 'string' || sub === '') throw unauthorized()
  if ([...scopesIn(scope), ...scopesIn(scp)].includes(ADMIN_SCOPE)) return { kind: 'admin' }
  if (!USER_ID.test(sub)) throw unauthorized()
  return { kind: 'user', userId: sub }
}

/** RFC 7519, section 2: seconds, fractions allowed. JSON can also spell infinity (`1e999`). */
function isNumericDate (value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}

/** Scopes separated by spaces (RFC 8693, section 4.2), or the list that several identity providers send instead. */
function scopesIn (claim: unknown): string[] {
  const texts: unknown[] = Array.isArray(claim) ? claim : [claim]
  return texts.flatMap(text => typeof text === 'string' ? text.split(' ') : [])
}

function headerOf (token: unknown): Record<string, unknown> {
  const header: unknown = typeof token === 'object' && token !== null && 'header' in token ? token.header : undefined
  if (typeof header !== 'object' || header === null) throw unauthorized()
  return { ...header }
}
