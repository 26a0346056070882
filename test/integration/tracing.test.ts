import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { track } from '../support/children.ts'
import { readTopic, requireKafka, startKafka } from '../support/kafka-broker.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, newUser, start } from '../support/test-app.ts'
import { waitFor } from '../support/wait-for.ts'

const redisPart = requireRedis()
const kafkaPart = requireKafka()
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'
const PARENT = '00f067aa0ba902b7'

interface Span { traceId: string, spanId: string, parentSpanId?: string, name: string, kind: number, attributes: unknown }

/** As OTLP numbers it. */
const CONSUMER = 5

/** A receiver of OTLP/HTTP in JSON. */
async function startReceiver (t: Test): Promise<{ url: string, spans: Span[] }> {
  const spans: Span[] = []
  const server = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (chunk: string) => { text += chunk }).on('end', () => {
      if (request.url === '/v1/traces') for (const { scopeSpans } of JSON.parse(text).resourceSpans) for (const scope of scopeSpans) spans.push(...scope.spans)
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.close(); server.closeAllConnections() })
  return { url: `http://127.0.0.1:${Object(server.address()).port}/`, spans }
}

t.test('one start is one tree of spans, from the caller to the record in Kafka, without ids of users', {
  skip: redisPart.skip !== false ? redisPart.skip : kafkaPart.skip
}, async t => {
  const redis = await startRedis({ program: redisPart.program })
  const kafka = await startKafka(kafkaPart.library)
  t.teardown(async () => { await Promise.all([redis.close(), kafka.close()]) })
  await kafka.createTopic('playback.events', 1)
  const { url, spans } = await startReceiver(t)
  const { app } = await buildTestApp(t, redis.url, { OTEL_EXPORTER_OTLP_ENDPOINT: url, KAFKA_BROKERS: kafka.addresses })
  await waitFor('Kafka', async () => (await app.inject('/health/ready')).json<{ status: string }>().status === 'ok')
  const user = newUser()
  const started = await start(app, user, {}, { traceparent: `00-${TRACE}-${PARENT}-01`, 'idempotency-key': 'one' })
  t.equal(started.status, 201)

  const own = (): Span[] => spans.filter(span => span.traceId === TRACE)
  await waitFor('the spans', () => own().length >= 6)
  const root = own().find(span => span.parentSpanId === PARENT)
  t.equal(root?.name, 'POST /api/playback/session', 'the request continues the caller\'s trace')
  const below = new Map(own().map(span => [span.spanId, span.parentSpanId]))
  for (const name of ['redis GET', 'redis createSession']) {
    const span = own().find(each => each.name === name)
    t.ok(span !== undefined && ancestors(below, span.spanId).includes(root?.spanId ?? ''), `${name} is below the request`)
  }
  t.equal(own().filter(span => span.name === 'GET').length, 2, 'one call to each of the two services')
  const text = JSON.stringify(spans)
  t.notOk(text.includes(user), 'no span holds the user')
  t.notOk(text.includes(started.body.session.session_id), 'nor the session')
  t.notOk(text.includes('/metrics') || text.includes('/health'), 'probes are no traces')

  const [record] = await waitFor('the record', () => { const records = readTopic(kafka.addresses, 'playback.events'); return records.length > 0 && records })
  t.match(record?.headers.join(), new RegExp(`traceparent,00-${TRACE}-[0-9a-f]{16}-01`), 'the event carries the trace to its consumers')

  const folder = mkdtempSync(join(tmpdir(), 'viewing-consumer-'))
  const consumer = spawn(process.execPath, [fileURLToPath(new URL('../../examples/engagement-consumer/main.ts', import.meta.url))], {
    stdio: 'ignore',
    env: { PATH: process.env.PATH, KAFKA_BROKERS: kafka.addresses, OTEL_EXPORTER_OTLP_ENDPOINT: url, PORT: '0', TABLE: 'off', STATE_FILE: join(folder, 'state.json'), KAFKAJS_NO_PARTITIONER_WARNING: '1' }
  })
  track(consumer)
  t.teardown(async () => {
    const ended = once(consumer, 'exit')
    consumer.kill('SIGKILL')
    await ended
    rmSync(folder, { recursive: true, force: true })
  })
  const consumed = await waitFor('the span of the consumer', () => own().find(({ kind }) => kind === CONSUMER), 60_000)
  t.equal(consumed.name, 'process playback.events')
  const all = new Map(own().map(span => [span.spanId, span.parentSpanId]))
  t.ok(ancestors(all, consumed.spanId).includes(root?.spanId ?? ''), 'the consumer\'s work is in the tree of the request that caused it')
})

t.test('without a receiver no package of the traces is loaded', { skip: redisPart.skip }, async t => {
  const redis = await startRedis({ program: redisPart.program })
  t.teardown(async () => { await redis.close() })
  const loaded = async (env: Record<string, string>): Promise<boolean> => {
    const script = `
      import { buildTestApp } from ${JSON.stringify(new URL('../support/test-app.ts', import.meta.url).href)}
      import { registerHooks } from 'node:module'
      let seen = false
      registerHooks({ load: (url, context, next) => { seen ||= url.includes('/@opentelemetry/'); return next(url, context) } })
      const ends = []
      await buildTestApp({ teardown: end => { ends.push(end) } }, ${JSON.stringify(redis.url)}, ${JSON.stringify(env)})
      for (const end of ends) await end()
      process.stdout.write('loaded=' + seen)
      process.exit(0)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    track(child)
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
    await once(child, 'close')
    return /loaded=(true|false)/.exec(text)?.[1] === 'true'
  }
  t.equal(await loaded({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9' }), true, 'the check sees them where they are loaded')
  t.equal(await loaded({}), false)
})

function ancestors (parents: Map<string, string | undefined>, id: string): string[] {
  const parent = parents.get(id)
  return parent === undefined ? [] : [parent, ...ancestors(parents, parent)]
}
