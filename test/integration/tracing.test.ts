import { once } from 'node:events'
import { createServer } from 'node:http'
import t, { type Test } from 'tap'
import { readTopic, requireKafka, startKafka } from '../support/kafka-broker.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, newUser, start } from '../support/test-app.ts'
import { waitFor } from '../support/wait-for.ts'

const redisPart = requireRedis()
const kafkaPart = requireKafka()
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'
const PARENT = '00f067aa0ba902b7'

interface Span { traceId: string, spanId: string, parentSpanId?: string, name: string, attributes: unknown }

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
})

function ancestors (parents: Map<string, string | undefined>, id: string): string[] {
  const parent = parents.get(id)
  return parent === undefined ? [] : [parent, ...ancestors(parents, parent)]
}
