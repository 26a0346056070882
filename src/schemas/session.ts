import { type Static, Type } from '@sinclair/typebox'
import { closed, IdSchema, MetadataSchema, PositionSchema, ref, SessionIdSchema, stringEnum, TimeSchema, TOKEN_LENGTH } from './common.ts'

const STATUS_VALUES = ['active', 'paused', 'stopped'] as const
export const StatusSchema = stringEnum(STATUS_VALUES, { description: '`stopped` once the session has ended, however it ended.' })
export const END_REASONS = ['stopped', 'completed', 'expired', 'superseded', 'terminated'] as const
const EndReasonSchema = stringEnum(END_REASONS, { description: 'How the session ended.' })

export const SessionSchema = Type.Object({
  session_id: SessionIdSchema,
  user_id: IdSchema,
  profile_id: IdSchema,
  content_id: IdSchema,
  device_id: IdSchema,
  status: StatusSchema,
  started_at: TimeSchema,
  last_heartbeat: TimeSchema,
  position: PositionSchema,
  end_reason: Type.Optional(EndReasonSchema),
  ended_at: Type.Optional(TimeSchema)
}, { $id: 'Session', ...closed, description: 'One playback of one content by one profile on one device.' })
export type SessionResource = Static<typeof SessionSchema>

export const StartRequestSchema = Type.Object({
  user_id: IdSchema,
  profile_id: IdSchema,
  content_id: IdSchema,
  device_id: IdSchema,
  region: Type.Optional(Type.String({ pattern: '^[A-Z]{2}$', description: 'ISO 3166-1 alpha-2; counts only where the caller is trusted with it.' })),
  position: Type.Optional(PositionSchema),
  metadata: Type.Optional(ref(MetadataSchema)),
  on_limit: Type.Optional(stringEnum(['reject', 'supersede_oldest'], {
    description: 'At the limit: refuse (default), or end the oldest session and start.'
  })),
  supersede: Type.Optional(Type.Array(SessionIdSchema, {
    maxItems: 20,
    uniqueItems: true,
    description: 'Sessions of the user to end in the same step, whether or not there is room.'
  }))
}, {
  $id: 'StartRequest',
  ...closed,
  examples: [{ user_id: 'user123', profile_id: 'profile456', content_id: 'content789', device_id: 'device101' }]
})
export type StartRequest = Static<typeof StartRequestSchema>

export const ConcurrencySchema = Type.Object({
  active: Type.Integer({ minimum: 0, description: 'Slots taken, this session\'s included.' }),
  limit: Type.Integer({ minimum: 1, description: 'Slots the user may take.' })
}, { $id: 'Concurrency', ...closed })

const IntervalSchema = Type.Integer({ minimum: 1, description: 'Seconds until the next heartbeat is expected.', examples: [30] })
export const PlaybackTokenSchema = Type.String({ description: 'Signed playback token (JWT), bound to the session.' })

export const StartedSchema = Type.Object({
  session: ref(SessionSchema),
  playback_token: PlaybackTokenSchema,
  token_expires_at: TimeSchema,
  heartbeat_interval: IntervalSchema,
  concurrency: ref(ConcurrencySchema)
}, { $id: 'Started', ...closed })
export type Started = Static<typeof StartedSchema>

export const SessionAnswerSchema = Type.Object({ session: ref(SessionSchema) }, { $id: 'SessionAnswer', ...closed })

export const HeartbeatRequestSchema = Type.Object({
  position: PositionSchema,
  metadata: Type.Optional(ref(MetadataSchema))
}, { $id: 'HeartbeatRequest', ...closed, examples: [{ position: 150, metadata: { quality: '1080p', network: 'wifi' } }] })
export type HeartbeatRequest = Static<typeof HeartbeatRequestSchema>

export const HeartbeatAnswerSchema = Type.Object({
  session_id: SessionIdSchema,
  status: StatusSchema,
  position: PositionSchema,
  last_heartbeat: TimeSchema,
  heartbeat_interval: IntervalSchema,
  playback_token: Type.Optional(Type.String({ description: 'New token, sent when less than half of the old one\'s life is left.' }))
}, { $id: 'HeartbeatAnswer', ...closed })
export type HeartbeatAnswer = Static<typeof HeartbeatAnswerSchema>

/** Body of pause, resume, stop and complete; the token only where a beacon cannot send a header. */
export const TransitionRequestSchema = Type.Object({
  position: Type.Optional(PositionSchema),
  metadata: Type.Optional(ref(MetadataSchema))
}, { $id: 'TransitionRequest', ...closed, examples: [{ position: 1800 }] })
export type TransitionRequest = Static<typeof TransitionRequestSchema>

export const BATCH_LIMIT = 1_000
export const HeartbeatsRequestSchema = Type.Object({
  heartbeats: Type.Array(Type.Object({
    playback_token: Type.String({ minLength: 1, maxLength: TOKEN_LENGTH }),
    position: PositionSchema,
    metadata: Type.Optional(ref(MetadataSchema))
  }, closed), { minItems: 1, maxItems: BATCH_LIMIT })
}, { $id: 'HeartbeatsRequest', ...closed })
export type HeartbeatsRequest = Static<typeof HeartbeatsRequestSchema>

export const HeartbeatsAnswerSchema = Type.Object({
  results: Type.Array(Type.Object({
    status: Type.Integer({ description: 'HTTP status this heartbeat alone would have had.', examples: [200] }),
    session_id: Type.Optional(SessionIdSchema),
    position: Type.Optional(PositionSchema),
    code: Type.Optional(Type.String({ description: 'Problem code when the status is not 200.', examples: ['session-ended'] })),
    reason: Type.Optional(Type.String({ description: 'How the session ended, with status 410.', examples: ['expired'] })),
    playback_token: Type.Optional(Type.String())
  }, closed), { description: 'One result for each heartbeat, in order.' })
}, { $id: 'HeartbeatsAnswer', ...closed })
export type HeartbeatsAnswer = Static<typeof HeartbeatsAnswerSchema>
