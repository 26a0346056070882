import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

export interface BinaryRedis { description: string, host: string, port: number, close: () => Promise<void> }
export type BinaryAttempt = { started: true, server: BinaryRedis } | { started: false, reason: string }

const HOST = '127.0.0.1'
const OLDEST_MAJOR = 7
const READY_WITHIN_MS = 5_000
const POLL_MS = 10
/** Another process may take the port between our choosing it and the server's binding it. */
const PORT_ATTEMPTS = 3
/** How long the shell may take to end its children before it is ended with them. */
const CLOSE_WITHIN_MS = 2_000

/**
 * Runs the server given as arguments and kills it as soon as file descriptor 3 reaches its end, which the kernel sees to whenever the process
 * at the other end of that pipe is gone, also by SIGKILL. The server itself does not get the descriptor. The shell leaves when the server does, and
 * waits for both of its children, so that none stays as a zombie where the first process of a container adopts nobody.
 */
const GUARD = `
"$@" 3<&- &
server=$!
(read -r _ <&3; kill -9 $server) &
guard=$!
exec 3<&-
wait $server
code=$?
kill -9 $guard
wait $guard
exit $code
`

/** Starts a Redis or Valkey program from PATH. Being absent, too old or unable to start is a normal outcome. */
export async function startBinary (program: string): Promise<BinaryAttempt> {
  const version = await versionOf(program)
  if (version === undefined) return { started: false, reason: `no ${program} on PATH` }
  if (version.major < OLDEST_MAJOR) return { started: false, reason: `${program} ${version.text} is too old` }
  let reason = ''
  for (let attempt = 1; attempt <= PORT_ATTEMPTS; attempt++) {
    const port = await freePort()
    const run = launch(program, port)
    if (await run.ready()) {
      return { started: true, server: { description: `${program} ${version.text}`, host: HOST, port, close: run.close } }
    }
    await run.close()
    reason = run.lastLine()
  }
  return { started: false, reason: `${program} ${version.text} does not start: ${reason}` }
}

async function versionOf (program: string): Promise<{ major: number, text: string } | undefined> {
  try {
    const { stdout } = await promisify(execFile)(program, ['--version'], { timeout: 2_000 })
    const [, text, major] = /\bv=((\d+)\.\d+\.\d+)/.exec(stdout) ?? []
    return text === undefined ? undefined : { major: Number(major), text }
  } catch {
    return undefined
  }
}

function launch (program: string, port: number) {
  // CONFIG GET tells this name back: proof that the server on the port is ours and not one that was faster.
  const mark = `embedded-${randomUUID()}.rdb`
  const settings = [
    '--port', String(port), '--bind', HOST, '--protected-mode', 'yes', '--daemonize', 'no',
    '--save', '', '--appendonly', 'no', '--dir', tmpdir(), '--dbfilename', mark,
    '--maxmemory', '0', '--maxmemory-policy', 'noeviction'
  ]
  // A session of its own: the terminal's Ctrl-C reaches us only, and the sessions are still there while we drain.
  const child = spawn('sh', ['-c', GUARD, 'sh', program, ...settings], { stdio: ['ignore', 'pipe', 'ignore', 'pipe'], detached: true })
  const life = { over: false }
  let output = ''
  const left = new Promise<void>(resolve => {
    child.once('error', error => { life.over = true; output = error.message; resolve() })
    child.once('exit', () => { life.over = true; resolve() })
  })
  child.stdout?.setEncoding('utf8').on('data', (text: string) => { output = (output + text).slice(-2_000) })
  letGo(child)

  return {
    async ready (): Promise<boolean> {
      const endMs = performance.now() + READY_WITHIN_MS
      while (!life.over && performance.now() < endMs) {
        if (await answers(port, mark)) return true
        await sleep(POLL_MS)
      }
      return false
    },
    async close (): Promise<void> {
      child.ref()
      // The end of the pipe ends the server; nothing is kept, so there is nothing to save.
      child.stdio[3]?.destroy()
      const bound = setTimeout(() => { if (!life.over && child.pid !== undefined) killGroup(child.pid) }, CLOSE_WITHIN_MS)
      await left
      clearTimeout(bound)
    },
    lastLine: () => output.trim().split('\n').at(-1) ?? ''
  }
}

/** Ends the shell, its guard and the server. */
function killGroup (leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL')
  } catch { /* it has just left by itself; 'exit' is on its way */ }
}

/** The child must not keep this process alive; when this process ends, the pipe does, and with it the server. */
function letGo (child: ChildProcess): void {
  child.unref()
  for (const stream of child.stdio) {
    stream?.on('error', () => { /* the other end is gone; 'exit' tells */ })
    if (stream !== null && stream !== undefined && 'unref' in stream && typeof stream.unref === 'function') stream.unref()
  }
}

/** True if the server on the port answers PING and bears the mark. */
async function answers (port: number, mark: string): Promise<boolean> {
  const socket = connect({ port, host: HOST })
  let reply = ''
  try {
    socket.setEncoding('utf8').setTimeout(1_000, () => socket.destroy())
    await once(socket, 'connect')
    socket.write('PING\r\nCONFIG GET dbfilename\r\n')
    for await (const text of socket) {
      reply += String(text)
      if (reply.startsWith('+PONG') && reply.includes(mark)) return true
    }
    return false
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

async function freePort (): Promise<number> {
  const server = createServer().listen(0, HOST)
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no free port')
  return address.port
}
