import { Type } from '@sinclair/typebox'
import { closed, ref, TimeSchema } from './common.ts'
import { SlotSchema } from './concurrency.ts'

/** RFC 9457, with the extension members each code may carry. */
export const ProblemSchema = Type.Object({
  type: Type.String({ format: 'uri', description: 'Identifies the problem type.' }),
  title: Type.String(),
  status: Type.Integer({ examples: [409] }),
  detail: Type.String(),
  instance: Type.String({ description: 'Path of the request.' }),
  code: Type.String({ description: 'Stable problem code; may grow.', examples: ['concurrency-limit-reached'] }),
  request_id: Type.String(),
  errors: Type.Optional(Type.Array(Type.Object({
    pointer: Type.String({ description: 'JSON Pointer (RFC 6901) to the offending member, led by its place.' }),
    detail: Type.String()
  }, closed), { description: 'With `validation-failed`.' })),
  limit: Type.Optional(Type.Integer({ description: 'With `concurrency-limit-reached`.' })),
  active: Type.Optional(Type.Integer({ description: 'With `concurrency-limit-reached`.' })),
  sessions: Type.Optional(Type.Array(ref(SlotSchema), { description: 'With `concurrency-limit-reached`: who holds the slots, at most 20.' })),
  session_status: Type.Optional(Type.String({ description: 'With `illegal-transition`: the status now.' })),
  reason: Type.Optional(Type.String({ description: 'With `session-ended`: stopped, completed, expired, superseded, terminated. With 403: the deciding service\'s reason.' })),
  ended_at: Type.Optional(TimeSchema),
  ended_by: Type.Optional(Type.String({ description: 'With `session-ended`: device that ended it, where known.' })),
  may_retry: Type.Optional(Type.Boolean({ description: 'With `session-ended`: whether a new start makes sense without asking the viewer.' }))
}, { $id: 'Problem', ...closed, description: 'Problem details, RFC 9457.' })
