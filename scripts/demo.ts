import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createInterface } from 'node:readline'
import { startKafka } from '../test/support/kafka-broker.ts'
import { kafkaLibrary } from './kafka-library.mjs'

/**
 * Everything at once, live: the service on its embedded Redis and stub services, Kafka where Java and Maven are, the engagement
 * consumer, and viewers who start, pause, leave and hit the limit. Ends with Ctrl-C, or after the seconds given as argument.
 */
const seconds = Number(process.argv[2] ?? Infinity)
const VIEWERS = 8
const TITLES = ['content789', 'content-us-only', 'series-1', 'series-2']
const say = (text: string): void => { process.stdout.write(`demo: ${text}\n`) }
const folder = await mkdtemp(join(tmpdir(), 'viewing-demo-'))
const children: ChildProcess[] = []
const curtain = new AbortController()

const library = kafkaLibrary()
const kafka = library === undefined ? undefined : await startKafka(library)
if (kafka === undefined) say('no Java and Maven here: events go to the log sink, and from there to the consumer')
else {
  await kafka.createTopic('playback.events', 3)
  say(`Apache Kafka at ${kafka.addresses}`)
}

const service = spawn(process.execPath, ['src/server.ts'], {
  env: { ...process.env, PORT: '0', HOST: '127.0.0.1', LOG_FORMAT: 'json', HEARTBEAT_INTERVAL: '1s', SESSION_TIMEOUT: '6s', SWEEP_INTERVAL: '1s', ...(kafka === undefined ? {} : { KAFKA_BROKERS: kafka.addresses }) },
  stdio: ['ignore', 'pipe', 'inherit'],
  detached: true
})
children.push(service)
const consumer = spawn(process.execPath, ['examples/engagement-consumer/main.ts'], {
  env: { ...process.env, PORT: '0', STATE_FILE: join(folder, 'state.json'), ...(kafka === undefined ? {} : { KAFKA_BROKERS: kafka.addresses }) },
  stdio: ['pipe', 'inherit', 'inherit'],
  detached: true
})
children.push(consumer)

const base = await new Promise<string>((resolve, reject) => {
  createInterface({ input: service.stdout }).on('line', line => {
    if (line.includes('"stream":"event"')) consumer.stdin.write(`${line}\n`)
    const address = /"address":"([^"]+)"/.exec(line)?.[1]
    if (address !== undefined) resolve(address)
  })
  service.once('exit', () => { reject(new Error('the service ended')) })
})
say(`service at ${base}, documentation at ${base}/docs`)

interface Answer { session?: { session_id: string }, playback_token?: string, detail?: string }
async function post (path: string, body: object, token?: string): Promise<{ status: number, body: Answer }> {
  const response = await fetch(`${base}/api/playback${path}`, {
    method: 'POST', headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }, body: JSON.stringify(body)
  })
  return { status: response.status, body: await response.json() as Answer }
}

async function viewer (number: number): Promise<void> {
  while (!curtain.signal.aborted) {
    // Two viewers share each account of three streams, and sometimes leave without a word: the limit is met now and then.
    const title = TITLES[Math.floor(Math.random() * TITLES.length)] ?? 'content789'
    const { status, body } = await post('/session', { user_id: `family-${number % 2}`, profile_id: `profile-${number}`, content_id: title, device_id: `device-${number}` })
    if (body.session === undefined || body.playback_token === undefined) {
      say(`viewer ${number}: ${status} ${body.detail ?? ''}`)
      await sleep(3_000)
      continue
    }
    const path = `/session/${body.session.session_id}`
    let position = 0
    for (let beat = 0; beat < 5 + Math.random() * 10 && !curtain.signal.aborted; beat++) {
      await sleep(1_000)
      position += 1
      await post(`${path}/heartbeat`, { position }, body.playback_token)
    }
    const leaving = Math.random()
    if (leaving < 0.2) say(`viewer ${number} vanishes; the slot falls free by itself`)
    else await post(`${path}/${leaving < 0.6 ? 'stop' : 'complete'}`, { position }, body.playback_token)
  }
}

process.once('SIGINT', () => { curtain.abort() })
process.once('SIGTERM', () => { curtain.abort() })
const timer = Number.isFinite(seconds) ? setTimeout(() => { curtain.abort() }, seconds * 1_000) : undefined
await Promise.all(Array.from({ length: VIEWERS }, async (_, number) => { await viewer(number) })).catch((error: unknown) => { say(String(error)) })
clearTimeout(timer)
say('ending')
for (const child of children) {
  const ended = new Promise(resolve => { child.once('exit', resolve) })
  child.kill('SIGTERM')
  consumer.stdin.end()
  await ended
}
await kafka?.close()
await rm(folder, { recursive: true, force: true })
