import { type Static, Type } from '@sinclair/typebox'
import { closed, IdSchema, PositionSchema, SessionIdSchema, stringEnum, TimeSchema } from './common.ts'

export const EVENT_TYPES = ['playback.started', 'playback.paused', 'playback.resumed', 'playback.stopped', 'playback.completed', 'playback.heartbeat'] as const
export type EventType = typeof EVENT_TYPES[number]
export const SCHEMA_VERSION = '1.0'

/** The value of an event: the seed's fields, and what consumers need to drop repeats and to order. */
export const PlaybackEventSchema = Type.Object({
  event_type: stringEnum(EVENT_TYPES),
  session_id: SessionIdSchema,
  user_id: IdSchema,
  profile_id: IdSchema,
  content_id: IdSchema,
  device_id: IdSchema,
  timestamp: TimeSchema,
  metadata: Type.Object({
    position: PositionSchema,
    quality: Type.Optional(Type.String()),
    network: Type.Optional(Type.String()),
    reason: Type.Optional(stringEnum(['client', 'expired', 'superseded', 'terminated'], { description: 'On terminal events: why.' }))
  }, closed),
  event_id: Type.String({ description: 'Equal for repeats of one event.' }),
  seq: Type.Integer({ minimum: 1, description: 'Lifecycle changes of the session so far; orders its events.' }),
  schema_version: Type.String()
}, { $id: 'PlaybackEvent', ...closed })
export type PlaybackEvent = Static<typeof PlaybackEventSchema>
