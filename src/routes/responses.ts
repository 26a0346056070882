import { type TSchema, Type } from '@sinclair/typebox'
import { ProblemSchema } from '../schemas.ts'

const RETRY_AFTER = { 'retry-after': { type: 'integer', description: 'Seconds to wait before trying again.' } }

const DESCRIPTIONS: Record<number, string> = {
  400: 'The request is malformed or does not match the schema.',
  401: 'No valid credential.',
  403: 'Not allowed, not entitled, or not available.',
  404: 'No such session, or not one this credential may use.',
  408: 'The request took too long to arrive.',
  409: 'The state does not allow it.',
  410: 'The session has ended; `reason` says how.',
  413: 'The body is too large.',
  415: 'The content type is not supported.',
  422: 'The Idempotency-Key belongs to another request.',
  429: 'Too soon or too often; see `Retry-After`.',
  500: 'A fault of the service.',
  503: 'A dependency is away or the service is overloaded; see `Retry-After`.'
}

type ProblemStatus = keyof typeof DESCRIPTIONS

/** Response schemas of a route: the given success, and a problem document for each status. Every route can send 500 and 503. */
export function responses<T extends Record<number, TSchema>> (success: T, ...statuses: ProblemStatus[]) {
  const problems = Object.fromEntries([...statuses, 500, 503].map(status => [status, {
    description: DESCRIPTIONS[status] ?? '',
    ...(status === 503 || status === 429 || status === 409 ? { headers: RETRY_AFTER } : {}),
    content: { 'application/problem+json': { schema: Type.Ref(ProblemSchema.$id ?? '') } }
  }]))
  return { ...problems, ...success }
}

/** Statuses that any route with a JSON body may answer. */
export const BODY_STATUSES = [400, 413, 415] as const

export const PLAYBACK_SECURITY = [{ playbackToken: [] }, { accessToken: [] }, { gateway: [] }]
export const USER_SECURITY = [{ accessToken: [] }, { gateway: [] }]
