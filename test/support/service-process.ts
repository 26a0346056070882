import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { createInterface } from 'node:readline'
import { track } from './children.ts'
import { withUser } from './least-privilege.ts'

export interface ServiceProcess {
  url: string
  pid: number
  /** Parsed JSON lines of its standard output so far, events included. */
  lines: Array<Record<string, unknown>>
  signal: (name: NodeJS.Signals) => void
  exited: Promise<{ code: number | null, signal: NodeJS.Signals | null }>
  close: () => Promise<void>
}

const SERVER = new URL('../../dist/server.js', import.meta.url)

/** Tests beat and start faster than any player: the rate limits are off unless a test sets them. */
export const UNLIMITED = { HEARTBEAT_MIN_GAP: '0', USER_RATE_LIMIT: '0' }

/** The built service as a process of its own, on a free port. `env` is all the environment it has beside PATH. `preload`: a module loaded before it. */
export async function startService (env: Record<string, string>, { preload }: { preload?: URL } = {}): Promise<ServiceProcess> {
  return await startProgram(SERVER, { PORT: '0', HOST: '127.0.0.1', LOG_FORMAT: 'json', SHUTDOWN_DELAY: '50ms', ...UNLIMITED, ...withUser(env) }, preload)
}

/** Any program that says where it listens as the service does. */
export async function startProgram (program: URL, env: Record<string, string>, preload?: URL): Promise<ServiceProcess> {
  const child = spawn(process.execPath, ['--enable-source-maps', ...(preload === undefined ? [] : ['--import', preload.href]), fileURLToPath(program)], {
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  track(child)
  const lines: Array<Record<string, unknown>> = []
  let complaints = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => { complaints += text })
  const exited = once(child, 'exit').then(() => {
    return { code: child.exitCode, signal: child.signalCode }
  })
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', text => {
      if (!text.startsWith('{')) return
      // SIGKILL may cut its last line.
      if (child.killed && !text.endsWith('}')) return
      const line: Record<string, unknown> = JSON.parse(text)
      lines.push(line)
      if (line.msg === 'listening' && typeof line.address === 'string') resolve(line.address)
    })
    exited.then(() => { reject(new Error(`the service ended before it listened: ${complaints}${JSON.stringify(lines.at(-1))}`)) }, reject)
  })
  return {
    url,
    pid: child.pid ?? 0,
    lines,
    signal: name => { child.kill(name) },
    exited,
    close: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
      await exited
    }
  }
}
