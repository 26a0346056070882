/**
 * The resources of the HTTP interface and the events: each schema is static type, validation, serialization and document component at once.
 * Names on the wire are snake_case, times ISO 8601 UTC, intervals whole seconds, positions seconds.
 */
import { MetadataSchema } from './schemas/common.ts'
import { EndedAllSchema, SlotSchema, UserConcurrencySchema } from './schemas/concurrency.ts'
import { HealthSchema } from './schemas/health.ts'
import { ProblemSchema } from './schemas/problem.ts'
import {
  ConcurrencySchema, HeartbeatAnswerSchema, HeartbeatRequestSchema, HeartbeatsAnswerSchema, HeartbeatsRequestSchema, SessionAnswerSchema,
  SessionSchema, StartedSchema, StartRequestSchema, TransitionRequestSchema
} from './schemas/session.ts'
import {
  JwksSchema, PlaybackClaimsSchema, RefreshAnswerSchema, RefreshRequestSchema, TokenVerdictSchema, ValidateAnswerSchema, ValidateRequestSchema
} from './schemas/token.ts'

export * from './schemas/common.ts'
export * from './schemas/concurrency.ts'
export * from './schemas/event.ts'
export * from './schemas/health.ts'
export * from './schemas/problem.ts'
export * from './schemas/session.ts'
export * from './schemas/token.ts'

/** Schemas that are registered under their `$id`, so that routes and the document share them. */
export const SHARED_SCHEMAS = [
  MetadataSchema, SessionSchema, StartRequestSchema, ConcurrencySchema, StartedSchema, SessionAnswerSchema, HeartbeatRequestSchema,
  HeartbeatAnswerSchema, TransitionRequestSchema, HeartbeatsRequestSchema, HeartbeatsAnswerSchema, PlaybackClaimsSchema, ValidateRequestSchema,
  TokenVerdictSchema, ValidateAnswerSchema, RefreshRequestSchema, RefreshAnswerSchema, SlotSchema, UserConcurrencySchema, EndedAllSchema,
  HealthSchema, JwksSchema, ProblemSchema
] as const
