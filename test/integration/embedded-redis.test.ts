import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t from 'tap'
import { startBinary } from '../../src/embedded/redis-binary.ts'
import { type EmbeddedRedis, startEmbeddedRedis } from '../../src/embedded/redis.ts'

/** Without a server on PATH, what concerns it is skipped on a laptop and fails where everything has to be there. */
const probe = await startEmbeddedRedis()
await probe.close()
const withoutBinary = probe.kind === 'binary' || process.env.CI !== undefined ? false : probe.description

async function until (holds: () => Promise<boolean>, withinMs = 5_000): Promise<boolean> {
  const endMs = performance.now() + withinMs
  while (performance.now() < endMs) {
    if (await holds()) return true
    await sleep(20)
  }
  return false
}

/** True if something accepts a connection there. */
async function listens (host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port, timeout: 1_000 })
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

async function client ({ host, port }: { host: string, port: number }): Promise<Redis> {
  const redis = new Redis({ host, port, lazyConnect: true, retryStrategy: () => null })
  redis.on('error', () => { /* the tests look at the commands */ })
  await redis.connect()
  return redis
}

/** Addresses a server on every interface would answer at; 127.0.0.2 is one of them where loopback is a whole network. */
const otherAddresses = ['127.0.0.2', '::1', ...Object.values(networkInterfaces()).flat()
  .flatMap(address => address === undefined || address.internal || address.address.startsWith('fe80') ? [] : [address.address])]

for (const prefer of ['binary', 'js'] as const) {
  t.test(`the embedded Redis (${prefer}) does what the service needs, for this machine only, until it is closed`, { skip: prefer === 'binary' && withoutBinary }, async t => {
    const server = await startEmbeddedRedis({ prefer })
    t.teardown(async () => { await server.close() })
    t.equal(server.kind, prefer)
    t.equal(server.host, '127.0.0.1')
    t.ok(server.description.includes(`127.0.0.1:${server.port}`), server.description)

    const redis = await client(server)
    t.equal(await redis.ping(), 'PONG')
    t.same(await redis.eval("redis.call('SET', KEYS[1], ARGV[1]) return { redis.call('GET', KEYS[1]), #redis.call('TIME') }", 1, 'k', 'v'), ['v', 2])
    t.equal(await redis.select(15), 'OK')
    t.same(await redis.config('GET', 'maxmemory-policy'), ['maxmemory-policy', 'noeviction'])
    for (const address of otherAddresses) t.equal(await listens(address, server.port), false, `not on ${address}`)

    const left = once(redis, 'end')
    await server.close()
    await left
    t.ok(await until(async () => !(await listens(server.host, server.port))))
    await server.close()
  })
}

t.test('two embedded servers do not meet', { skip: withoutBinary }, async t => {
  const servers = await Promise.all([startEmbeddedRedis(), startEmbeddedRedis(), startEmbeddedRedis({ prefer: 'js' }), startEmbeddedRedis({ prefer: 'js' })])
  t.teardown(async () => { await Promise.all(servers.map(async server => await server.close())) })
  t.equal(new Set(servers.map(server => server.port)).size, 4)
  for (const server of servers) {
    const redis = await client(server)
    t.equal(await redis.setnx('mine', '1'), 1)
    redis.disconnect()
  }
})

t.test('the in-process server answers small commands at once, not after a delayed acknowledgement', async t => {
  const server = await startEmbeddedRedis({ prefer: 'js' })
  const redis = await client(server)
  t.teardown(async () => { redis.disconnect(); await server.close() })
  await redis.ping()
  const startedMs = performance.now()
  for (let turn = 0; turn < 50; turn++) await Promise.all([redis.set('a', '1'), redis.get('a'), redis.eval('return 1', 0)])
  const eachMs = (performance.now() - startedMs) / 50
  t.ok(eachMs < 20, `${eachMs.toFixed(1)} ms each`)
})

t.test('a program that is absent, too old or unable to start is passed over with its reason', async t => {
  const folder = await mkdtemp(join(tmpdir(), 'embedded-redis-'))
  t.teardown(async () => { await rm(folder, { recursive: true }) })
  const program = async (name: string, script: string) => {
    await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`)
    await chmod(join(folder, name), 0o755)
    return join(folder, name)
  }
  const old = await program('old', 'echo "Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64"')
  t.match(await startBinary(old), { started: false, reason: /6\.2\.14 is too old/ })
  const other = await program('other', 'echo "no such option"')
  t.match(await startBinary(other), { started: false, reason: /^no / })
  const broken = await program('broken', 'if [ "$1" = --version ]; then echo "Valkey server v=8.1.0 sha=0"; else echo "out of luck"; exit 1; fi')
  t.match(await startBinary(broken), { started: false, reason: /8\.1\.0 does not start: out of luck/ })
  t.match(await startBinary(join(folder, 'absent')), { started: false, reason: /^no / })

  const path = process.env.PATH
  process.env.PATH = folder
  t.teardown(() => { process.env.PATH = path })
  const server = await startEmbeddedRedis()
  t.teardown(async () => { await server.close() })
  t.equal(server.kind, 'js')
  t.match(server.description, /no redis-server on PATH; no valkey-server on PATH/)
})

/** A process of its own that starts the embedded server, tells its port and stays, whatever the terminal sends. */
async function owner (ending: string) {
  const module = new URL('../../src/embedded/redis.ts', import.meta.url).href
  const code = `
    import { startEmbeddedRedis } from ${JSON.stringify(module)}
    const server = await startEmbeddedRedis()
    process.on('SIGINT', () => { process.stdout.write('interrupted') })
    process.stdout.write(JSON.stringify({ host: server.host, port: server.port }))
    ${ending}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['pipe', 'pipe', 'inherit'], detached: true })
  child.stdout.setEncoding('utf8')
  const [text]: unknown[] = await once(child.stdout, 'data')
  const { host, port }: Pick<EmbeddedRedis, 'host' | 'port'> = JSON.parse(String(text))
  return { child, host, port }
}

t.test('the server outlives a Ctrl-C that its owner takes its time over', { skip: withoutBinary }, async t => {
  const { child, host, port } = await owner('process.stdin.resume()')
  t.teardown(() => child.kill('SIGKILL'))
  const interrupted = once(child.stdout, 'data')
  // As a terminal does it: to the whole foreground process group.
  if (child.pid !== undefined) process.kill(-child.pid, 'SIGINT')
  t.same(await interrupted, ['interrupted'])
  for (let turn = 0; turn < 5; turn++) {
    await sleep(20)
    t.ok(await listens(host, port))
  }
})

t.test('the server dies with its owner, even if that is killed', { skip: withoutBinary }, async t => {
  const { child, host, port } = await owner('process.stdin.resume()')
  t.ok(await listens(host, port))
  child.kill('SIGKILL')
  t.ok(await until(async () => !(await listens(host, port))))
})

t.test('the server neither keeps its owner alive nor outlives it', { skip: withoutBinary }, async t => {
  const { child, host, port } = await owner('')
  t.same(child.exitCode ?? (await once(child, 'exit'))[0], 0)
  t.ok(await until(async () => !(await listens(host, port))))
})
