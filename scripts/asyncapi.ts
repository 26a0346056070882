import { readFile, writeFile } from 'node:fs/promises'
import { Parser } from '@asyncapi/parser'
import { stringify } from 'yaml'
import { PlaybackEventSchema, SCHEMA_VERSION } from '../src/schemas/event.ts'

/**
 * Writes `asyncapi.yaml` and `events/playback-event.schema.json` from the event's TypeBox schema (`--write`), or fails when they
 * differ from it or the document is invalid (`--check`).
 */
const HEADER = '# Generated from src/schemas/event.ts by `npm run asyncapi:write`; edits here are lost.\n'
const { version }: { version: string } = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8'))

/** Consumers must accept members they do not know: optional ones may be added without a new version. */
const open = (schema: unknown): unknown => {
  if (Array.isArray(schema)) return schema.map(open)
  if (typeof schema !== 'object' || schema === null) return schema
  return Object.fromEntries(Object.entries(schema).filter(([name]) => name !== 'additionalProperties' && name !== '$id').map(([name, value]) => [name, open(value)]))
}
const payload = open(JSON.parse(JSON.stringify(PlaybackEventSchema)))

const text = (description: string) => ({ type: 'string', description })
const document = {
  asyncapi: '3.0.0',
  info: {
    title: 'Viewing Service events',
    version,
    description: 'What happens to playbacks. Drop repeats by `event_id`, order the lifecycle events of a session by `seq`, accept members you do not know. Heartbeat events carry the seq of the last lifecycle change and may be missing.',
    license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' }
  },
  defaultContentType: 'application/json',
  channels: {
    playbackEvents: {
      address: 'playback.events',
      description: 'Topic `KAFKA_TOPIC`; the key is the session id, so the events of a session are in one partition.',
      messages: { playbackEvent: { $ref: '#/components/messages/PlaybackEvent' } },
      bindings: { kafka: { topic: 'playback.events', partitions: 12, replicas: 3, topicConfiguration: { 'cleanup.policy': ['delete'], 'retention.ms': 604_800_000 }, bindingVersion: '0.5.0' } }
    }
  },
  operations: {
    publishPlaybackEvent: {
      action: 'send',
      channel: { $ref: '#/channels/playbackEvents' },
      summary: 'The service tells of a lifecycle change or a heartbeat.',
      messages: [{ $ref: '#/channels/playbackEvents/messages/playbackEvent' }]
    }
  },
  components: {
    messages: {
      PlaybackEvent: {
        name: 'PlaybackEvent',
        title: 'Playback event',
        contentType: 'application/json',
        headers: {
          type: 'object',
          description: 'CloudEvents 1.0 attributes, Kafka binding, binary mode.',
          properties: {
            ce_specversion: text('Always 1.0.'),
            ce_id: text('Equal to event_id.'),
            ce_type: text('Equal to event_type.'),
            ce_source: text('Always /viewing-service.'),
            ce_time: text('Equal to timestamp.'),
            ce_partitionkey: text('Equal to session_id.'),
            'content-type': text('Always application/json.'),
            traceparent: text('W3C trace context of the request that caused the event; only where the service traces, and not on events that another instance ships.')
          }
        },
        payload: { schemaFormat: 'application/schema+json;version=draft-07', schema: payload },
        bindings: { kafka: { key: { type: 'string', description: 'The session id.' }, bindingVersion: '0.5.0' } },
        examples: [{ name: 'started', payload: JSON.parse((await readFile(new URL('../events/fixtures.jsonl', import.meta.url), 'utf8')).split('\n', 1)[0] ?? '{}') }]
      }
    }
  }
}

const { diagnostics } = await new Parser().parse(JSON.stringify(document))
const errors = diagnostics.filter(({ severity }) => severity === 0)
for (const { message, path } of errors) process.stderr.write(`asyncapi.yaml: ${path.join('.')}: ${message}\n`)
if (errors.length > 0) process.exitCode = 1

const files = new Map([
  ['asyncapi.yaml', HEADER + stringify(document, { aliasDuplicateObjects: false, lineWidth: 0 })],
  ['events/playback-event.schema.json', `${JSON.stringify({ $schema: 'http://json-schema.org/draft-07/schema#', title: `PlaybackEvent ${SCHEMA_VERSION}`, ...Object(payload) }, undefined, 2)}\n`]
])
for (const [name, content] of files) {
  const file = new URL(`../${name}`, import.meta.url)
  if (process.argv.includes('--write')) {
    await writeFile(file, content)
  } else if (await readFile(file, 'utf8').catch(() => '') !== content) {
    process.stderr.write(`${name} differs from the event schema: run \`npm run asyncapi:write\`\n`)
    process.exitCode = 1
  }
}
