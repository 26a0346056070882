import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { track } from '../test/support/children.ts'
import { UNLIMITED } from '../test/support/service-process.ts'
import { waitFor } from '../test/support/wait-for.ts'

/** Processes under measurement: what they are given, and what Linux says they used. */

export interface Measured {
  url: string
  /** The process and its children: a primary and its workers are one instance. */
  pids: () => number[]
  close: () => Promise<void>
}

const USER_HERTZ = 100

/** CPU seconds, user and system, that these processes have used (`/proc/<pid>/stat`, proc(5)). */
export function cpuSeconds (pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
    return sum + (Number(fields[11]) + Number(fields[12])) / USER_HERTZ
  }, 0)
}

/** CPU seconds that the whole machine has worked (`/proc/stat`, proc(5)). */
export function machineSeconds (): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]?.trim().split(/\s+/).slice(1).map(Number) ?? []
  return (user + nice + system + irq + softirq + steal) / USER_HERTZ
}

/** Resident memory of the largest of these processes, MiB; `peak`: the most it ever was. */
export function residentMebibytes (pids: readonly number[], peak = false): number {
  return Math.max(...pids.map(pid => Number(new RegExp(`${peak ? 'VmHWM' : 'VmRSS'}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1_024))
}

/** Bytes that the loopback interface has carried; each counts once. */
export function loopbackBytes (): number {
  return Number(/^\s*lo:\s*(\d+)/m.exec(readFileSync('/proc/net/dev', 'utf8'))?.[1])
}

function family (root: number): number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      parents.set(Number(name), Number(readFileSync(`/proc/${name}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')[1]))
    } catch { /* it ended meanwhile */ }
  }
  const found = [root]
  for (const pid of found) for (const [child, parent] of parents) if (parent === pid) found.push(child)
  return found
}

/**
 * Starts a program that says on standard output where it listens (a JSON line with `address`). Its output goes to a file, as in production it
 * goes to a collector: reading it here would cost the machine what is being measured.
 */
export async function launch (command: readonly string[], env: Record<string, string>): Promise<Measured> {
  const [program = '', ...args] = command
  const folder = mkdtempSync(join(tmpdir(), 'viewing-bench-'))
  const path = join(folder, 'stdout')
  const descriptor = openSync(path, 'a')
  const child: ChildProcess = spawn(program, args, { env: { PATH: process.env.PATH ?? '', HOST: '127.0.0.1', PORT: '0', LOG_FORMAT: 'json', SHUTDOWN_DELAY: '10ms', ...UNLIMITED, ...env }, stdio: ['ignore', descriptor, 'inherit'] })
  closeSync(descriptor)
  track(child)
  const wanted = Number(env.WORKERS ?? '1')
  let url = ''
  await waitFor(`${program} ${args.join(' ')} to listen`, async () => {
    if (child.exitCode !== null) throw new Error(`${command.join(' ')} ended: ${readFileSync(path, 'utf8').slice(-500)}`)
    const addresses = [...readFileSync(path, 'utf8').matchAll(/"address":"(http[^"]+)"/g)]
    url = addresses[0]?.[1] ?? ''
    return addresses.length >= wanted
  })
  return {
    url,
    pids: () => family(child.pid ?? 0),
    close: async () => {
      // Not SIGKILL: with --cpu-prof a process writes its profile as it ends.
      child.kill('SIGTERM')
      await waitFor('the end of a measured process', async () => child.exitCode !== null || child.signalCode !== null)
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
