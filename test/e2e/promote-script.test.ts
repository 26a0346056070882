import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { startRedisSentinel } from '../support/redis-sentinel.ts'
import { requirePrograms, requireRedis } from '../support/requirements.ts'
import { startTcpLink } from '../support/tcp-link.ts'
import { promote } from '../support/two-regions.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip: noRedis } = requireRedis()
const skip = noRedis || requirePrograms('redis-cli').skip
const QUICK = ['--repl-diskless-sync-delay', '0']
const PASSWORD = 'pass-word/of-0123456789'
/** What an operator's user needs. docs/regions.md says the same. */
const OPERATOR = 'user operator on >OPERATOR resetchannels -@all +ping +info +set +eval +replicaof +config|get +config|set +config|rewrite +client|list ~viewing:promotion-probe'

function connect (t: Test, { host, port }: RedisServer, password?: string): Redis {
  const client = new Redis({ host, port, ...(password === undefined ? {} : { password }) })
  client.on('error', () => { /* each command says its own */ })
  t.teardown(() => { client.disconnect() })
  return client
}
const infoOf = async (client: Redis): Promise<string> => await client.info('replication')
const fenceOf = async (client: Redis): Promise<number> => Number((await client.config('GET', 'min-replicas-to-write') as string[])[1])

t.test('wrong usage, and everything that must not be promoted', { skip }, async t => {
  const [one, other] = [await startRedis({ program, args: QUICK }), await startRedis({ program, args: QUICK })]
  const line = await startTcpLink(one.port)
  const replica = await startRedis({ program, args: [...QUICK, '--replicaof', line.host, String(line.port)] })
  t.teardown(async () => { await Promise.all([one, other, replica, line].map(async each => { await each.close() })) })
  const [master, follower] = [connect(t, one), connect(t, replica)]
  await waitFor('the replica', async () => (await infoOf(follower)).includes('master_link_status:up'))
  const ends = ['--from', one.address, '--to', replica.address]

  for (const args of [[], ['--from', one.address], ['--from', 'x', '--to', 'y'], [...ends, '--max-wait', 'soon'], [...ends, '--old-writer-is-fenced', ''], [...ends, '--unknown']]) {
    t.match(await promote(args), { code: 2, output: /usage: promote\.sh/ }, args.join(' '))
  }
  t.match(await promote(['--help']), { code: 0, output: /split|two\s+regions may write/ })
  const refused: Array<[string, string[], RegExp]> = [
    ['another server\'s replica', ['--from', other.address, '--to', replica.address], /is not a replica of/],
    ['two masters', ['--from', one.address, '--to', other.address], /both are masters/],
    ['a replica of somebody else', ['--from', replica.address, '--to', other.address], /is not a replica of/],
    ['an old writer that answers', [...ends, '--old-writer-is-fenced', 'because I say so'], /answers and is a master/],
    ['a target that does not answer', ['--from', one.address, '--to', '127.0.0.1:1'], /does not answer/],
    ['a replica as the rejoined one\'s master', [...ends, '--rejoin'], /is not the writer/]
  ]
  for (const [name, args, reason] of refused) t.match(await promote(args), { code: 3, output: reason }, name)
  t.match(await promote([...ends, '--dry-run']), { code: 0, output: /would do/ })
  t.match(await infoOf(follower), /role:slave/, 'nothing was promoted')
  t.equal(await fenceOf(master), 0, 'nobody was fenced')

  await t.test('a replica that does not catch up: the old writer writes on', async t => {
    await master.config('SET', 'min-replicas-to-write', '1')
    await master.config('SET', 'min-replicas-max-lag', '0')
    line.hang()
    await master.set('a', '1')
    const attempt = promote([...ends, '--max-wait', '1'])
    await waitFor('the fence', async () => await fenceOf(master) > 1)
    t.match(await master.set('a', '2').catch((error: Error) => error.message), /^NOREPLICAS/)
    t.match(await attempt, { code: 1, output: /did not catch up[\s\S]*the fence is off again/ })
    t.equal(await fenceOf(master), 1, 'as it was')
    t.same(await master.config('GET', 'min-replicas-max-lag'), ['min-replicas-max-lag', '0'])
    t.equal(await master.set('a', '3'), 'OK')
    line.mend()
  })

  await t.test('an old writer that is out of the operator\'s reach, and alive', async t => {
    await waitFor('the line', async () => (await infoOf(follower)).includes('master_link_status:up'))
    const alive = setInterval(() => { master.set('beat', String(Date.now())).catch(() => {}) }, 200)
    t.teardown(() => { clearInterval(alive) })
    t.match(await promote(['--from', '127.0.0.1:1', '--to', replica.address, '--old-writer-is-fenced', 'I cannot see it']), { code: 3, output: /still hears from[\s\S]*alive/ })
    t.match(await infoOf(follower), /role:slave/)
  })
})

t.test('a replica in the middle of its first copy holds nothing', { skip }, async t => {
  const replica = await startRedis({ program, args: [...QUICK, '--replicaof', '127.0.0.1', '1'] })
  t.teardown(async () => { await replica.close() })
  t.match(await promote(['--from', '127.0.0.1:1', '--to', replica.address, '--old-writer-is-fenced', 'switched off']), { code: 3, output: /does not hold the data/ })
})

t.test('sentinels would undo it', { skip }, async t => {
  const sentinel = await startRedisSentinel(program)
  t.teardown(async () => { await sentinel.close() })
  const [master, replica] = sentinel.servers
  if (master === undefined || replica === undefined) throw new Error('no servers')
  const ends = ['--from', master.address, '--to', replica.address]
  t.match(await promote(ends), { code: 3, output: /SENTINEL REMOVE/ })
  for (const server of sentinel.sentinels) await connect(t, server).call('SENTINEL', 'REMOVE', sentinel.name)
  await waitFor('the sentinels to leave', async () => !String(await connect(t, master).client('LIST')).includes('name=sentinel-'))
  t.match(await promote(ends), { code: 0 })
})

t.test('passwords come from the environment, an operator\'s rights are few, and the files keep the roles', { skip }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'viewing-promote-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  const files = ['one', 'two'].map(name => {
    const acl = join(folder, `${name}.acl`)
    writeFileSync(acl, `user default on >${PASSWORD} allkeys allchannels +@all\n${OPERATOR.replace('OPERATOR', `${name}-${PASSWORD}`)}\n`)
    return { config: `aclfile ${acl}\nmasterauth ${PASSWORD}\n` }
  })
  const servers = await Promise.all(files.map(async ({ config }) => await startRedis({ program, config, args: QUICK, login: PASSWORD })))
  t.teardown(async () => { await Promise.all(servers.map(async server => { await server.close() })) })
  const [one, two] = servers
  if (one === undefined || two === undefined) throw new Error('no servers')
  const [first, second] = [connect(t, one, PASSWORD), connect(t, two, PASSWORD)]
  await second.call('REPLICAOF', one.host, one.port)
  await waitFor('the replica', async () => (await infoOf(second)).includes('master_link_status:up'))
  const args = ['--from', one.address, '--to', two.address, '--user', 'operator']
  t.match(await promote(args, { env: { REDISCLI_AUTH: 'wrong' } }), { code: 3 })
  const done = await promote(args, { env: { REDISCLI_AUTH_FROM: `one-${PASSWORD}`, REDISCLI_AUTH_TO: `two-${PASSWORD}` } })
  t.equal(done.code, 0, done.output)
  t.notMatch(done.output, PASSWORD)
  t.notMatch(done.output, /ATTENTION/)
  t.same((await Promise.all([first, second].map(async client => await client.acl('LOG') as unknown[]))).map(log => log.filter(entry => JSON.stringify(entry).includes('command'))), [[], []], 'nothing else was needed')
  t.match(await Promise.all([infoOf(first), infoOf(second)]), [/role:slave/, /role:master/])
})
