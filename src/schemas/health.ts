import { type Static, Type } from '@sinclair/typebox'
import { closed, stringEnum } from './common.ts'

const dependencySchema = Type.Object({
  status: stringEnum(['up', 'down', 'degraded']),
  detail: Type.Optional(Type.String())
}, closed)
export const HealthSchema = Type.Object({
  status: stringEnum(['ok', 'degraded', 'unavailable']),
  dependencies: Type.Optional(Type.Object({
    redis: Type.Optional(dependencySchema),
    identity: Type.Optional(dependencySchema),
    content: Type.Optional(dependencySchema),
    events: Type.Optional(dependencySchema)
  }, closed))
}, { $id: 'Health', ...closed })
export type Health = Static<typeof HealthSchema>
