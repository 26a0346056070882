import { type Static, Type } from '@sinclair/typebox'
import { closed, IdSchema, ref, SessionIdSchema, stringEnum, TimeSchema } from './common.ts'
import { StatusSchema } from './session.ts'

export const SlotSchema = Type.Object({
  session_id: SessionIdSchema,
  device_id: IdSchema,
  content_id: IdSchema,
  profile_id: IdSchema,
  status: StatusSchema,
  started_at: TimeSchema,
  last_heartbeat: TimeSchema,
  expires_at: Type.String({ format: 'date-time', description: 'When the slot becomes free if the session stays silent.' })
}, { $id: 'Slot', ...closed, description: 'A session as the user\'s other devices see it.' })
export type SlotResource = Static<typeof SlotSchema>

export const UserConcurrencySchema = Type.Object({
  user_id: IdSchema,
  limit: Type.Integer({ minimum: 1, description: 'What the newest live session was admitted under, else the default.' }),
  limit_source: stringEnum(['plan', 'default']),
  active: Type.Integer({ minimum: 0 }),
  available: Type.Integer({ minimum: 0 }),
  sessions: Type.Array(ref(SlotSchema))
}, { $id: 'UserConcurrency', ...closed })
export type UserConcurrency = Static<typeof UserConcurrencySchema>

export const EndedAllSchema = Type.Object({
  ended: Type.Integer({ minimum: 0, description: 'Sessions ended by this call.' })
}, { $id: 'EndedAll', ...closed })
