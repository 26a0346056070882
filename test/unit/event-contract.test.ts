import { readFileSync } from 'node:fs'
import { Ajv } from 'ajv'
import t from 'tap'
import { PlaybackEventSchema } from '../../src/schemas/event.ts'

/**
 * Version 1 of the event contract, as consumers were promised it: field, JSON type, required. Fields may be added as optional;
 * a change to this table is a breaking change and needs a new `schema_version`.
 */
const PROMISED: Record<string, string> = {
  event_type: 'string',
  session_id: 'string',
  user_id: 'string',
  profile_id: 'string',
  content_id: 'string',
  device_id: 'string',
  timestamp: 'string',
  metadata: 'object',
  event_id: 'string',
  seq: 'integer',
  schema_version: 'string'
}
const PROMISED_TYPES = ['playback.started', 'playback.paused', 'playback.resumed', 'playback.stopped', 'playback.completed', 'playback.heartbeat']
const required: string[] = [...PlaybackEventSchema.required ?? []]
const PROMISED_REASONS = ['client', 'expired', 'superseded', 'terminated']

t.test('every field of version 1 is there, of its type, and required', async t => {
  for (const [name, type] of Object.entries(PROMISED)) {
    const schema = Object(PlaybackEventSchema.properties)[name]
    t.equal(schema?.type, type, name)
    t.ok(required.includes(name), `${name} is required`)
  }
})

t.test('no field beyond version 1 is required', async t => {
  t.same(required.filter(name => !(name in PROMISED)), [])
  t.same(PlaybackEventSchema.properties.metadata.required, ['position'])
})

t.test('event types and reasons are those of version 1', async t => {
  t.same(PlaybackEventSchema.properties.event_type.enum, PROMISED_TYPES)
  t.same(PlaybackEventSchema.properties.metadata.properties.reason.enum, PROMISED_REASONS)
})

t.test('the fixture stream is valid under the schema and holds each event type', async t => {
  const plain = JSON.parse(readFileSync(new URL('../../events/playback-event.schema.json', import.meta.url), 'utf8'))
  t.same(plain.required, PlaybackEventSchema.required)
  const lines = readFileSync(new URL('../../events/fixtures.jsonl', import.meta.url), 'utf8').trim().split('\n')
  const types = new Set<string>()
  const validate = new Ajv({ multipleOfPrecision: 4, formats: { 'date-time': true } }).compile(plain)
  for (const line of lines) {
    const event = JSON.parse(line)
    t.ok(validate(event), `${event.event_id}: ${JSON.stringify(validate.errors)}`)
    types.add(event.event_type)
  }
  t.same([...types].sort(), [...PROMISED_TYPES].sort())
  t.notOk(validate({ ...JSON.parse(lines[0] ?? ''), seq: '1' }), 'a wrong type is refused')
})
