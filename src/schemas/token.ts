import { type Static, Type } from '@sinclair/typebox'
import { closed, IdSchema, ref, SessionIdSchema, TimeSchema, TOKEN_LENGTH } from './common.ts'
import { BATCH_LIMIT, PlaybackTokenSchema } from './session.ts'

/** Claims of a playback token: the seed's, and `jti`. Times are whole seconds since the epoch (RFC 7519 NumericDate). */
export const PlaybackClaimsSchema = Type.Object({
  session_id: SessionIdSchema,
  user_id: IdSchema,
  profile_id: IdSchema,
  content_id: IdSchema,
  device_id: IdSchema,
  iss: Type.String({ description: 'Always `viewing-service`.' }),
  sub: IdSchema,
  iat: Type.Integer({ minimum: 0 }),
  exp: Type.Integer({ minimum: 0 }),
  nbf: Type.Integer({ minimum: 0 }),
  jti: Type.String({ maxLength: 64 })
}, { $id: 'PlaybackClaims', ...closed, description: 'Claims of a playback token.' })
export type PlaybackClaims = Static<typeof PlaybackClaimsSchema>

const tokenText = Type.String({ minLength: 1, maxLength: TOKEN_LENGTH })
const live = Type.Optional(Type.Boolean({ description: 'Also ask whether the session lives. Default true; false checks the token alone.' }))
export const ValidateRequestSchema = Type.Union([
  Type.Object({ token: tokenText, live }, closed),
  Type.Object({ tokens: Type.Array(tokenText, { minItems: 1, maxItems: BATCH_LIMIT }), live }, closed)
], { $id: 'ValidateRequest', description: 'Exactly one of `token` and `tokens`.', examples: [{ token: 'eyJhbGciOiJIUzI1NiIs…' }] })
export type ValidateRequest = Static<typeof ValidateRequestSchema>

export const TokenVerdictSchema = Type.Object({
  valid: Type.Boolean(),
  claims: Type.Optional(ref(PlaybackClaimsSchema)),
  reason: Type.Optional(Type.String({
    description: 'Why not: `malformed`, `unknown-key`, `signature`, `expired`, `not-yet-valid`, `claims`, `ended`, `lapsed`. May grow.',
    examples: ['expired']
  }))
}, { $id: 'TokenVerdict', ...closed })
export type TokenVerdict = Static<typeof TokenVerdictSchema>

export const ValidateAnswerSchema = Type.Object({
  valid: Type.Optional(Type.Boolean({ description: 'For `token`.' })),
  claims: Type.Optional(ref(PlaybackClaimsSchema)),
  reason: Type.Optional(Type.String({ description: 'See TokenVerdict.' })),
  results: Type.Optional(Type.Array(ref(TokenVerdictSchema), { description: 'For `tokens`, in order.' }))
}, { $id: 'ValidateAnswer', ...closed })
export type ValidateAnswer = Static<typeof ValidateAnswerSchema>

export const RefreshRequestSchema = Type.Object({
  token: Type.Optional(tokenText)
}, { $id: 'RefreshRequest', ...closed, description: 'A playback token that is still valid.' })

export const RefreshAnswerSchema = Type.Object({
  playback_token: PlaybackTokenSchema,
  token_expires_at: TimeSchema
}, { $id: 'RefreshAnswer', ...closed })

export const JwksSchema = Type.Object({
  keys: Type.Array(Type.Object({
    kty: Type.String(),
    crv: Type.String(),
    x: Type.String(),
    y: Type.Optional(Type.String()),
    kid: Type.String(),
    alg: Type.String(),
    use: Type.String()
  }, closed))
}, { $id: 'Jwks', ...closed, description: 'Public keys of playback tokens, RFC 7517; empty with HS256.' })
export type Jwks = Static<typeof JwksSchema>
