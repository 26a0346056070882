import { getHeapSpaceStatistics } from 'node:v8'
import { Redis } from 'ioredis'
import { test } from 'tap'
import { runBatch } from '../../src/redis/batch.ts'
import { createClient } from '../../src/redis/connect.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'

const COMMANDS = 60_000
const AT_ONCE = 20
/** Of each command's argument, so that what is kept of commands stands out from all else that a process keeps. */
const ARGUMENT = 'x'.repeat(500)

const oldBytes = (): number => getHeapSpaceStatistics().find(space => space.space_name === 'old_space')?.space_used_size ?? NaN

/** Bytes that came into the old generation meanwhile; what major collections take out of it does not count. */
async function moved (run: () => Promise<unknown>): Promise<number> {
  let [before, sum] = [oldBytes(), 0]
  for (let done = 0; done < COMMANDS; done += AT_ONCE) {
    await run()
    const now = oldBytes()
    sum += Math.max(0, now - before)
    before = now
  }
  return sum
}

test('commands leave nothing behind in the old generation', async t => {
  const server = await startRedis({ program: requireRedis().program })
  t.teardown(async () => { await server.close() })
  const plain = new Redis(server.url)
  t.teardown(() => { plain.disconnect() })
  const [hostname = '', port = ''] = server.address.split(':')
  const argument = (at: number): string => `${at} ${ARGUMENT}`
  const many = Array.from({ length: AT_ONCE }, (_, at) => at)

  const byPipeline = await moved(async () => {
    const pipeline = plain.pipeline()
    for (const at of many) pipeline.echo(argument(at))
    await pipeline.exec()
  })

  const client = createClient({ target: { kind: 'single', host: hostname, port: Number(port), tls: false, db: 0 }, commandTimeoutMs: 2_000 })
  await client.connect()
  t.teardown(() => { client.disconnect() })
  const batch = async (): Promise<unknown> => await runBatch(client, many.map(at => redis => redis.echo(argument(at))))
  t.same(await batch(), many.map(at => ({ ok: true, value: argument(at) })), 'answers are in order')
  // Until the optimising compiler is done.
  await moved(batch)
  const byBatch = await moved(batch)
  t.ok(byPipeline > COMMANDS * 200, `a pipeline of ioredis: ${Math.round(byPipeline / COMMANDS)} bytes a command`)
  t.ok(byBatch < byPipeline / 8, `a batch: ${Math.round(byBatch / COMMANDS)} bytes a command`)

  const scripts = async (): Promise<unknown> => await Promise.all(many.map(async at => await client.lastBeats(1, argument(at))))
  await moved(scripts)
  const byScript = await moved(scripts)
  t.ok(byScript < byPipeline / 8, `scripts: ${Math.round(byScript / COMMANDS)} bytes a call`)
})

test('a failed command of a batch fails alone, and so does all of it without a connection', async t => {
  const server = await startRedis({ program: requireRedis().program })
  t.teardown(async () => { await server.close() })
  const [hostname = '', port = ''] = server.address.split(':')
  const client = createClient({ target: { kind: 'single', host: hostname, port: Number(port), tls: false, db: 0 }, commandTimeoutMs: 2_000 })
  t.match(await runBatch(client, [redis => redis.echo('a'), redis => redis.echo('b')]), [{ ok: false, error: Error }, { ok: false, error: Error }], 'not connected')
  await client.connect()
  await client.set('text', 'no list')
  t.match(await runBatch(client, [redis => redis.echo('a'), redis => redis.lpush('text', 'x'), () => { throw new Error('not sent') }, redis => redis.echo('b')]), [
    { ok: true, value: 'a' }, { ok: false, error: /WRONGTYPE/ }, { ok: false, error: /not sent/ }, { ok: true, value: 'b' }
  ])
  client.disconnect()
})

test('a server that has forgotten its scripts gets them again', async t => {
  const server = await startRedis({ program: requireRedis().program })
  t.teardown(async () => { await server.close() })
  const [hostname = '', port = ''] = server.address.split(':')
  const client = createClient({ target: { kind: 'single', host: hostname, port: Number(port), tls: false, db: 0 }, commandTimeoutMs: 2_000 })
  await client.connect()
  t.teardown(() => { client.disconnect() })
  const ask = async (): Promise<unknown> => (await runBatch(client, [redis => redis.lastBeats(1, 'a'), redis => redis.lastBeats(2, 'a', 'b')])).map(reply => reply.ok && String(reply.value).length)
  t.same(await ask(), [13, 26], 'never seen')
  await client.script('FLUSH')
  t.same(await ask(), [13, 26], 'flushed')
  t.match(await runBatch(client, [redis => redis.rateLimit(1, 'rate:{a}', 'no number')]), [{ ok: false, error: Error }], 'an error of a script is no reason to send it again')
})
