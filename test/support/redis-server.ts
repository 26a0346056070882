import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { track } from './children.ts'
import { accessList, checkRefusals, LEAST_PRIVILEGE } from './least-privilege.ts'
import { waitFor } from './wait-for.ts'

export interface RedisServer {
  host: string
  port: number
  url: string
  /** `host:port` */
  address: string
  pid: () => number
  /** SIGSTOP and SIGCONT: a server that hangs. */
  pause: () => void
  resume: () => void
  kill: () => Promise<void>
  /** Starts again on the same port with the same data folder. */
  restart: () => Promise<void>
  close: () => Promise<void>
}

export interface RedisServerOptions {
  program: string
  args?: string[]
  password?: string
  /** The default user's password where `config` sets it. */
  login?: string
  port?: number
  /** Configuration file text, for sentinels. */
  config?: string
}

const HOST = '127.0.0.1'

/** A free port between 20000 and 32000: below the ephemeral ports, so that no outgoing socket takes it while its server is down. */
export async function freePort (): Promise<number> {
  for (;;) {
    // Below 30,000: a cluster's bus listens 10,000 above, where nobody else's port may be drawn.
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    const free = async (candidate: number): Promise<boolean> => await new Promise(resolve => {
      const probe = createServer().once('error', () => { resolve(false) }).listen(candidate, HOST, () => { probe.close(() => { resolve(true) }) })
    })
    if (await free(port) && await free(port + 10_000)) return port
  }
}

/** A real server of its own, without persistence unless `args` says otherwise. */
export async function startRedis ({ program, args = [], password, login = password, port: wanted, config }: RedisServerOptions): Promise<RedisServer> {
  const port = wanted ?? await freePort()
  const folder = await mkdtemp(join(tmpdir(), 'viewing-redis-'))
  const guarded = LEAST_PRIVILEGE && password === undefined && config === undefined && !args.includes('--aclfile')
  if (guarded) await writeFile(join(folder, 'users.acl'), accessList())
  let child: ChildProcess

  async function start (): Promise<void> {
    const lines = config === undefined ? [] : [join(folder, 'server.conf')]
    if (config !== undefined) await import('node:fs/promises').then(async fs => { await fs.writeFile(lines[0] ?? '', config) })
    child = spawn(program, [
      ...lines, '--port', String(port), '--bind', HOST, '--dir', folder, '--save', '', '--appendonly', 'no', '--maxmemory-policy', 'noeviction',
      ...(password === undefined ? [] : ['--requirepass', password]), ...(guarded ? ['--aclfile', join(folder, 'users.acl')] : []), ...args
    ], { stdio: 'ignore' })
    track(child)
    const client = new Redis({ host: HOST, port, ...(login === undefined ? {} : { password: login }), lazyConnect: true, retryStrategy: null, maxRetriesPerRequest: 0 })
    client.on('error', () => { /* not up yet */ })
    await waitFor(`redis on port ${port}`, async () => {
      try {
        if (client.status !== 'ready') await client.connect()
        return await client.ping() === 'PONG'
      } catch (error) {
        if (error instanceof Error && /LOADING/.test(error.message)) return false
        client.disconnect()
        return false
      }
    })
    client.disconnect()
  }

  async function kill (): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }

  await start()
  return {
    host: HOST,
    port,
    url: `redis://${password === undefined ? '' : `:${password}@`}${HOST}:${port}`,
    address: `${HOST}:${port}`,
    pid: () => child.pid ?? 0,
    pause: () => { child.kill('SIGSTOP') },
    resume: () => { child.kill('SIGCONT') },
    kill,
    restart: start,
    close: async () => {
      child.kill('SIGCONT')
      const refused = guarded ? await checkRefusals(port).catch((error: unknown) => error) : undefined
      await kill()
      await rm(folder, { recursive: true, force: true })
      if (refused !== undefined) throw refused
    }
  }
}
