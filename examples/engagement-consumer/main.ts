import { readFile, rename, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { Kafka, logLevel } from 'kafkajs'
import type { PlaybackEvent } from '../../src/schemas.ts'
import { Engagement, type Snapshot } from './engagement.ts'

/**
 * The engagement service's side of the event contract, small enough to read. Events come from Kafka (`KAFKA_BROKERS`), or as the
 * log sink's lines on standard input. State and offsets are saved together, in one file: after a restart, or a kill at any
 * moment, it goes on from exactly what it has counted.
 */
const { KAFKA_BROKERS, KAFKA_TOPIC = 'playback.events', STATE_FILE = 'engagement-state.json', PORT = '8090', TABLE = 'on', OTEL_EXPORTER_OTLP_ENDPOINT } = process.env
const SAVE_MS = 1_000
const LEAVE_MS = 3_000

interface Saved { offsets: Record<string, string>, engagement: Snapshot }
const saved: Saved | undefined = await readFile(STATE_FILE, 'utf8').then(text => JSON.parse(text), () => undefined)
const engagement = new Engagement(saved?.engagement)
const tracing = OTEL_EXPORTER_OTLP_ENDPOINT ? await import('./tracing.ts').then(({ startTracing }) => startTracing(OTEL_EXPORTER_OTLP_ENDPOINT)) : undefined
/** Next offset to read, by partition. */
const offsets: Record<string, string> = { ...saved?.offsets }

async function save (): Promise<void> {
  engagement.expire(Date.now())
  const state: Saved = { offsets: { ...offsets }, engagement: engagement.snapshot() }
  await writeFile(`${STATE_FILE}.new`, JSON.stringify(state))
  await rename(`${STATE_FILE}.new`, STATE_FILE)
}

async function followKafka (brokers: string): Promise<() => Promise<void>> {
  const kafka = new Kafka({ clientId: 'engagement', brokers: brokers.split(','), logLevel: logLevel.NOTHING })
  // A consumer that was killed holds its partitions until its session times out: 6 s is the least that brokers allow.
  const consumer = kafka.consumer({ groupId: 'engagement', maxWaitTimeInMs: 500, sessionTimeout: 6_000, heartbeatInterval: 2_000 })
  await consumer.connect()
  await consumer.subscribe({ topic: KAFKA_TOPIC, fromBeginning: true })
  consumer.on(consumer.events.GROUP_JOIN, () => {
    // Our own offsets count, not the group's: they belong to the saved state.
    for (const [partition, offset] of Object.entries(offsets)) consumer.seek({ topic: KAFKA_TOPIC, partition: Number(partition), offset })
  })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ topic, partition, message }) => {
      if (BigInt(message.offset) < BigInt(offsets[partition] ?? '0')) return
      const { value } = message
      const apply = (): void => { if (value !== null) engagement.apply(JSON.parse(value.toString()) as PlaybackEvent) }
      if (tracing === undefined) apply()
      else tracing.process(topic, message.headers ?? {}, apply)
      offsets[partition] = String(BigInt(message.offset) + 1n)
    }
  })
  return async () => { await consumer.disconnect() }
}

function followLog (): () => Promise<void> {
  const lines = createInterface({ input: process.stdin })
  lines.on('line', line => {
    if (!line.includes('"stream":"event"')) return
    engagement.apply((JSON.parse(line) as { event: PlaybackEvent }).event)
  })
  return async () => { lines.close() }
}

function draw (): void {
  const { live_viewers: live, minutes_watched: minutes, repeats_dropped: repeats } = engagement.view()
  const titles = [...new Set([...Object.keys(live), ...Object.keys(minutes)])].sort()
  const rows = titles.map(title => `${title.padEnd(24)} ${String(live[title] ?? 0).padStart(6)} ${String(minutes[title] ?? 0).padStart(10)}`)
  process.stdout.write(`\n${'title'.padEnd(24)} ${'live'.padStart(6)} ${'minutes'.padStart(10)}\n${rows.join('\n')}\nrepeats dropped: ${repeats}\n`)
}

const stop = KAFKA_BROKERS === undefined ? followLog() : await followKafka(KAFKA_BROKERS)
const server = createServer((_request, response) => {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(engagement.view()))
}).listen(Number(PORT), '127.0.0.1')
server.on('listening', () => {
  const address = server.address()
  process.stdout.write(`engagement: http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : PORT}\n`)
})
let saving = Promise.resolve()
const timer = setInterval(() => {
  if (TABLE === 'on') draw()
  saving = saving.then(save)
}, SAVE_MS)
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    clearInterval(timer)
    server.close()
    server.closeAllConnections()
    // Without Kafka there is nobody to take leave of.
    Promise.race([stop(), sleep(LEAVE_MS)]).then(async () => { await Promise.all([saving.then(save), tracing?.close()]) }).catch((error: unknown) => {
      process.stderr.write(`${String(error)}\n`)
      process.exitCode = 1
    }).finally(() => { process.exit() })
  })
}
