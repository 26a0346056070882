// Runs the parts of docker-compose.yml together, inside `compose-world.sh`: the built image twice and once as the consumer, real Redis, Kafka, proxy and
// Prometheus, by the compose file's commands, environments, health checks and mounted files.
//
//     check-compose-run.mjs FOLDER CONFIGURATION CADDY PROMETHEUS
import { readFileSync } from 'node:fs'
import { kafkaLibrary } from '../kafka-library.mjs'
import { waitFor } from '../../test/support/wait-for.ts'
import * as parts from './compose-parts.mjs'
import { check, finish, same, unchecked } from './verdict.mjs'

const [, , rootfs, file, caddy, prometheus] = process.argv
const image = { rootfs, config: JSON.parse(readFileSync(file, 'utf8')).Docker.config }
/** In the container; the compose file publishes it as 8080. */
const PROXY = 'http://127.0.0.1:80'
const [FIRST, SECOND, THIRD] = ['127.0.0.21', '127.0.0.22', '127.0.0.23']
const VIEWERS = 24

async function post (base, path, body, token) {
  const response = await fetch(`${base}/api/playback${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body)
  })
  return { status: response.status, body: await response.json().catch(() => ({})) }
}
const start = async (base, user) => await post(base, '/session', { user_id: user, profile_id: 'p', content_id: 'content789', device_id: 'd' })
const series = async query => {
  const answer = await fetch(`http://127.0.0.1:9090/api/v1/query?query=${encodeURIComponent(query)}`)
  return (await answer.json()).data.result
}
const startedAt = async address => Number(/^viewing_sessions_started_total(?:\{.*\})? (\d+)/m.exec(await (await fetch(`http://${address}:8080/metrics`)).text())?.[1] ?? 0)

const redis = parts.startRedis()
await waitFor('Redis, by its health check', parts.redisHealthy)
const kafka = await parts.startKafka(kafkaLibrary() ?? 'Java and Maven are needed')
const receiver = await parts.startReceiver()
const first = await parts.startInstance(image, FIRST)
const second = await parts.startInstance(image, SECOND)
parts.publish([FIRST, SECOND])
const proxy = await parts.startProxy(caddy)
const engagement = await parts.startEngagement(image)
const monitoring = await parts.startPrometheus(prometheus)
process.on('uncaughtExceptionMonitor', () => {
  finish()
  for (const [name, { lines }] of Object.entries({ first, second, engagement, kafka, proxy, monitoring })) process.stdout.write(`${name}:\n  ${lines.slice(-8).join('\n  ')}\n`)
})

// Behind the proxy, both instances are one service.
const started = []
for (let index = 0; index < VIEWERS; index++) {
  // A cold instance's upstream calls may miss their deadline on a busy machine: 503, and the client tries again.
  started.push(await waitFor(`start ${index}`, async () => {
    const answer = await start(PROXY, `viewer-${index}`)
    return answer.status !== 503 && answer
  }))
}
same(started.filter(({ status }) => status !== 201), [], 'starts through the proxy')
const shares = [await startedAt(FIRST), await startedAt(SECOND)]
check(shares[0] + shares[1] === VIEWERS && Math.min(...shares) > 0, `both instances take starts: ${shares.join(' and ')}`)
const { playback_token: token, session: { session_id: id } } = started[0].body
for (const address of [FIRST, SECOND]) same((await post(`http://${address}:8080`, '/token/validate', { token })).body.valid, true, `the token at ${address}`)
same((await fetch(`${PROXY}/metrics`)).status, 404, '/metrics through the proxy')
same((await (await fetch(`${PROXY}/health`)).json()).status, 'ok', 'health through the proxy')

// The consumer reads what the service wrote; the receiver got spans.
const view = async () => await (await fetch('http://127.0.0.1:8090')).json()
await waitFor('all viewers at the consumer', async () => (await view()).live_viewers.content789 === VIEWERS, 120_000)
same((await post(PROXY, `/session/${id}/stop`, { position: 60 }, token)).status, 200, 'stop through the proxy')
await waitFor('one viewer less at the consumer', async () => (await view()).live_viewers.content789 === VIEWERS - 1, 30_000)
check(true, 'events reach the consumer')
check(await waitFor('spans', () => receiver.paths.includes('/v1/traces'), 30_000), 'spans reach the receiver')

// Prometheus finds the instances by their name, and its rules run.
const up = async expected => await waitFor(`${expected} instances at Prometheus`, async () => (await series('up{job="viewing-service"} == 1')).length === expected, 60_000)
check(await up(2), 'Prometheus scrapes both instances')
const rules = await waitFor('rules that have run', async () => {
  const { data: { groups } } = await (await fetch('http://127.0.0.1:9090/api/v1/rules')).json()
  const all = groups.flatMap(group => group.rules)
  return all.length > 0 && all.every(({ health }) => health !== 'unknown') && all
}, 120_000)
same(rules.filter(({ health }) => health !== 'ok').map(({ name, lastError }) => `${name}: ${lastError}`), [], 'rules')
check(rules.some(({ type }) => type === 'alerting') && rules.some(({ type }) => type === 'recording'), 'alerts and recordings are loaded')

// A third instance joins, the first one leaves, while heartbeats go on.
const answers = new Map()
const curtain = new AbortController()
const beat = async ({ body }) => {
  while (!curtain.signal.aborted) {
    const answer = await post(PROXY, `/session/${body.session.session_id}/heartbeat`, { position: 1 }, body.playback_token)
      .then(({ status, body: { code } }) => code === undefined ? `${status}` : `${status} ${code}`, error => error.message)
    answers.set(answer, (answers.get(answer) ?? 0) + 1)
  }
}
const beats = Promise.all(started.slice(1, 9).map(beat))
const third = await parts.startInstance(image, THIRD)
parts.publish([FIRST, SECOND, THIRD])
check(await up(3), 'Prometheus finds a third instance')
await waitFor('starts at the third instance', async () => {
  await start(PROXY, `later-${performance.now()}`)
  return await startedAt(THIRD) > 0
}, 30_000)
check(true, 'the proxy finds a third instance')
first.signal('SIGTERM')
same(await first.exited, 0, 'exit code of the first instance')
parts.publish([SECOND, THIRD])
check(await up(2), 'Prometheus forgets the first instance')
curtain.abort()
await beats
process.stdout.write(`heartbeats meanwhile: ${JSON.stringify(Object.fromEntries(answers))}\n`)
for (const line of proxy.lines) if (line.includes('"level":"error"')) process.stdout.write(`proxy: ${line.slice(0, 300)} … ${line.slice(-200)}\n`)
same([...answers.keys()], ['200'], 'answers to heartbeats while instances come and go')

// What the file's first lines promise.
await kafka.stop()
same((await start(PROXY, 'without-kafka')).status, 201, 'a start while Kafka is away')
same(await waitFor('health to say so', async () => {
  const { status } = await (await fetch(`${PROXY}/health`)).json()
  return status !== 'ok' && status
}, 30_000), 'degraded', 'health while Kafka is away')

for (const [name, container] of Object.entries({ second, third, engagement })) {
  container.signal('SIGTERM')
  const code = await container.exited
  same(code, 0, `exit code of ${name} without Kafka`)
  if (code !== 0) process.stdout.write(`${container.lines.slice(-8).join('\n')}\n`)
}
for (const part of [proxy, monitoring, redis]) await part.stop()
receiver.close()
unchecked('compose\'s own doing (networks, volumes, order), the images it names, Kafka\'s and Jaeger\'s containers, Grafana')
finish()
