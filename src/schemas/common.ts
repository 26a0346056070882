import { type Static, type TSchema, Type } from '@sinclair/typebox'

/** `$ref` to a schema registered under its `$id`, keeping the static type. */
export const ref = <T extends TSchema>(schema: T) => Type.Unsafe<Static<T>>(Type.Ref(schema.$id ?? ''))
/** A closed set of strings as `enum`: unions of literals come out as `anyOf`, which SDK generators handle badly. */
export const stringEnum = <const T extends string>(values: readonly T[], options: object = {}) =>
  Type.Unsafe<T>({ type: 'string', enum: values, ...options })

/** Unknown members are refused, never stripped. */
export const closed = { additionalProperties: false }

/** Longest playback token that is looked at, characters. */
export const TOKEN_LENGTH = 4_096

export const IdSchema = Type.String({
  pattern: '^[A-Za-z0-9._:@|+=-]{1,128}$',
  maxLength: 128,
  description: 'Identifier: 1 to 128 of `A-Z a-z 0-9 . _ : @ | + = -`.'
})
export const SessionIdSchema = Type.String({
  pattern: '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
  maxLength: 36,
  description: 'Session id: a UUID, version 4.',
  examples: ['3f0c9a52-8f6e-4d0b-9c41-5a1726e05132']
})
export const TimeSchema = Type.String({ format: 'date-time', description: 'ISO 8601, UTC, milliseconds.', examples: ['2026-11-23T20:15:30.000Z'] })

export const PositionSchema = Type.Number({
  minimum: 0,
  maximum: 10_000_000,
  multipleOf: 0.001,
  description: 'Playback position, seconds, at most 3 decimals.',
  examples: [120]
})
/** What a player may say about its playback; goes into events, never into decisions. */
const LABEL = '^[A-Za-z0-9 ._:/@+-]{1,64}$'
export const MetadataSchema = Type.Object({
  quality: Type.Optional(Type.String({ pattern: LABEL, description: 'Rendition played.', examples: ['1080p'] })),
  network: Type.Optional(Type.String({ pattern: LABEL, description: 'Network used.', examples: ['wifi'] }))
}, { $id: 'Metadata', ...closed, description: 'What the player says about its playback; goes into events.' })
export type Metadata = Static<typeof MetadataSchema>
