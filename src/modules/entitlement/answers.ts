import { Type } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'

/** What a service said, once its answer is known to be valid. */
export type Verdict<T> =
  | { answer: 'yes', value: T }
  | { answer: 'no', reason: string | undefined }

/** What is known about a question. `retryAfterMs`: how long the service will certainly not be asked again; 0 if it may be at once. */
export type Knowledge<T> = Verdict<T> | { answer: 'unknown', retryAfterMs: number }

/** What the plan grants; `limit` undefined: the plan names none. */
export interface Grant { limit: number | undefined }

const MAX_REASON_LENGTH = 200

/** `GET /api/entitlement/validate` of the identity service. Further properties are its own business. */
export const EntitlementAnswerSchema = Type.Object({
  entitled: Type.Boolean(),
  max_streams: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
  reason: Type.Optional(Type.String())
})

/** `GET /api/content/availability` of the content service. */
export const AvailabilityAnswerSchema = Type.Object({
  available: Type.Boolean(),
  reason: Type.Optional(Type.String())
})

const entitlementAnswer = TypeCompiler.Compile(EntitlementAnswerSchema)
const availabilityAnswer = TypeCompiler.Compile(AvailabilityAnswerSchema)

/** @returns undefined if the answer breaks the contract: then it says neither yes nor no. */
export function readEntitlement (body: unknown): Verdict<Grant> | undefined {
  if (!entitlementAnswer.Check(body)) return undefined
  return body.entitled ? { answer: 'yes', value: { limit: body.max_streams } } : { answer: 'no', reason: printable(body.reason) }
}

/** @returns undefined if the answer breaks the contract. */
export function readAvailability (body: unknown): Verdict<true> | undefined {
  if (!availabilityAnswer.Check(body)) return undefined
  return body.available ? { answer: 'yes', value: true } : { answer: 'no', reason: printable(body.reason) }
}

/** Reasons reach clients: one line of at most 200 UTF-16 units, without controls, direction overrides or halves of characters. */
function printable (text: string | undefined): string | undefined {
  let line = ''
  for (const character of text?.slice(0, 4 * MAX_REASON_LENGTH).replaceAll(/[^\p{L}\p{M}\p{N}\p{P}\p{S}]+/gu, ' ').trim() ?? '') {
    if (line.length + character.length > MAX_REASON_LENGTH) break
    line += character
  }
  return line === '' ? undefined : line
}
