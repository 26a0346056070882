import { type Static, Type } from '@sinclair/typebox'
import { closed, stringEnum } from './common.ts'

const dependencySchema = Type.Object({
  status: stringEnum(['up', 'down', 'degraded']),
  detail: Type.Optional(Type.String())
}, closed)
export const HealthSchema = Type.Object({
  status: stringEnum(['ok', 'degraded', 'unavailable']),
  role: Type.Optional(stringEnum(['writer', 'reader'], { description: 'With two regions: whether this instance writes to its own Redis, or forwards writes to the other region.' })),
  dependencies: Type.Optional(Type.Object({
    writer: Type.Optional(dependencySchema),
    redis: Type.Optional(dependencySchema),
    identity: Type.Optional(dependencySchema),
    content: Type.Optional(dependencySchema),
    events: Type.Optional(dependencySchema)
  }, closed))
}, { $id: 'Health', ...closed })
export type Health = Static<typeof HealthSchema>
